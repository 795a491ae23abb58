"""The law: for a recorded file, the shell pipeline of separate processes equals the chain in one process, byte by byte.

Stages are functions of ticks; a command is `read | stage | write`. Here the same stages run both ways over the life of
a seeded machine, over a recording of the live one, and over broken input.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

import pytest

from rogue_hunter.config.options import Config
from rogue_hunter.scoring.stage import Least, Score
from rogue_hunter.stream import wire
from rogue_hunter.stream.pipeline import Stage, chain
from rogue_hunter.stream.tick import Tick
from rogue_hunter.tracking.events import Track
from tests.tools import forked
from tests.tools.ticks import Machine, lines, read

CONFIG = Config()

# Command line of a filter -> the stage that it is, and whether it prints the ticks or only its records.
FILTERS: dict[str, tuple[Callable[[], Stage | Sequence[Stage]], bool]] = {
    "score": (lambda: Score(CONFIG), True),
    "score --model stress": (lambda: Score(CONFIG, "stress"), True),
    "score --explain": (lambda: Score(CONFIG, explain=True), True),
    "score --min-score 40": (lambda: (Score(CONFIG), Least(min_score=40)), True),
    "score --top 5": (lambda: (Score(CONFIG), Least(top=5)), True),
    "track": (lambda: Track(CONFIG), False),
    "track --tee": (lambda: Track(CONFIG), True),
    "track --tee --model stress": (lambda: Track(CONFIG, "stress"), True),
}


def in_process(data: bytes, *names: str) -> bytes:
    """The chain in this process: read once, written once."""
    stages: list[Stage] = []
    for name in names:
        made = FILTERS[name][0]()
        stages += made if isinstance(made, tuple) else [made]  # type: ignore[list-item]
    sink = io.BytesIO()
    ticks = wire.Reader(io.BytesIO(data), f"rh-{names[0].split()[0]}").ticks()
    encode = wire.Encoder().tick if FILTERS[names[-1]][1] else wire.only_records
    wire.write(chain(ticks, *stages), sink, encode=encode)
    return sink.getvalue()


def through_wire(ticks: Iterable[Tick], stage: Stage) -> list[Tick]:
    """One stage of a pipeline without the processes: read, run, written."""
    got, reader = read(lines(stage(iter(ticks))))
    assert (reader.bad, reader.truncated) == (0, "")
    return got


@pytest.fixture
def pipeline(clean_env: Mapping[str, str], tmp_path: Path) -> Callable[..., tuple[bytes, list[int]]]:
    """Run commands as processes with real pipes between them; gives the last one's output and all exit codes."""

    def run(data: bytes, *names: str) -> tuple[bytes, list[int]]:
        source = tmp_path / "in.ndjson"
        source.write_bytes(data)
        with open(source, "rb") as begin, open(tmp_path / "err", "wb") as err:
            running: list[subprocess.Popen[bytes]] = []
            try:
                for name in names:
                    stdin = begin if not running else running[-1].stdout
                    running.append(
                        forked.popen(
                            [sys.executable, "-P", "-m", "rogue_hunter", *name.split()],
                            stdin=stdin,
                            stdout=subprocess.PIPE,
                            stderr=err,
                            env=dict(clean_env),
                        )
                    )
                    if len(running) > 1:
                        before = running[-2].stdout
                        assert before is not None
                        before.close()
                last = running[-1].stdout
                assert last is not None
                out = last.read()
                return out, [process.wait(60) for process in running]
            finally:
                for process in running:
                    if process.poll() is None:
                        process.kill()
                        process.wait()
                    if process.stdout is not None:
                        process.stdout.close()

    return run


@pytest.fixture(scope="module")
def recording() -> bytes:
    """F: the life of a machine of 40 processes over 150 ticks."""
    return lines(Machine(11, processes=40).ticks(150))


@cache
def _machine(seed: int) -> bytes:
    return lines(Machine(seed, processes=35).ticks(120))


@pytest.mark.parametrize("seed", range(6 if "RH_LONG" in os.environ else 2))
@pytest.mark.parametrize(
    "names",
    [
        ("score", "track --tee"),
        ("score --model stress", "track --tee --model stress"),
        ("score --min-score 40", "track --tee"),
        ("score --top 5", "track --tee"),
        ("score", "track --tee", "track"),
    ],
)
def test_wire_between_stages_changes_nothing(seed: int, names: tuple[str, ...]) -> None:
    """Written and read again between any two stages, what comes out at the end is the same."""
    data = _machine(seed)
    hops = data
    for name in names:
        hops = in_process(hops, name)
    assert hops == in_process(data, *names)
    assert hops.count(b'"kind":"enter"') >= 1 and hops.count(b'"kind":"enter"') == hops.count(b'"kind":"exit"')


PIPELINES = [
    ("score", "track --tee"),
    ("score", "track"),
    ("score --model stress --explain", "track --tee --model stress"),
    ("score --min-score 40", "track --tee"),
    ("score --top 5", "track --tee"),
]
FILTERS["score --model stress --explain"] = (lambda: Score(CONFIG, "stress", explain=True), True)


@pytest.mark.slow
@pytest.mark.parametrize("names", PIPELINES, ids=" | ".join)
def test_shell_pipeline_equals_chain(
    names: tuple[str, ...], recording: bytes, pipeline: Callable[..., tuple[bytes, list[int]]]
) -> None:
    """`rh-score < F | rh-track` through real pipes: the same bytes as the chain in one process, exit code 0 twice."""
    out, codes = pipeline(recording, *names)
    assert codes == [0] * len(names)
    assert out == in_process(recording, *names)
    assert b'"type":"event"' in out


def test_recording_of_this_machine(
    rh: Callable[..., subprocess.CompletedProcess[bytes]], pipeline: Callable[..., tuple[bytes, list[int]]]
) -> None:
    """The same for the output of rh-sample on this machine, with the names of its processes."""
    sampled = rh("sample", "-n", "3", "--hz", "20")
    assert sampled.returncode == 0 and sampled.stdout.count(b'"type":"tick"') == 3
    out, codes = pipeline(sampled.stdout, "score", "track --tee")
    assert codes == [0, 0]
    assert out == in_process(sampled.stdout, "score", "track --tee")


@pytest.mark.parametrize("damage", ["line", "closing row", "cut"])
def test_broken_input_breaks_both_alike(
    damage: str, recording: bytes, pipeline: Callable[..., tuple[bytes, list[int]]]
) -> None:
    """A bad line, a lost closing row and a cut end give the same records both ways; only the command that met them says
    so by its exit code."""
    data = recording[:300_000].rpartition(b"\n")[0] + b"\n"
    at = data.index(b'{"type":"tick"', 100_000)
    if damage == "line":
        data = data[:at] + b"{broken\n" + data[at:]
    elif damage == "closing row":
        data = data[:at] + data[data.index(b"\n", at) + 1 :]
    else:
        data = data[:-50]
    out, codes = pipeline(data, "score", "track --tee")
    assert codes == [65, 0]
    assert out == in_process(data, "score", "track --tee")
    assert (b'"type":"error"' in out) is (damage != "cut")


def test_empty_input(pipeline: Callable[..., tuple[bytes, list[int]]]) -> None:
    """Nothing in, nothing out, and that is no error."""
    assert pipeline(b"", "score", "track --tee") == (b"", [0, 0])


def test_reading_and_writing_is_the_identity(recording: bytes) -> None:
    """A filter that does nothing prints what it read."""
    got, reader = read(recording)
    assert lines(got) == recording and reader.bad == 0
