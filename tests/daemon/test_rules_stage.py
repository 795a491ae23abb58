"""The rules inside of rh-pipe: matches are logged and stored, their files are followed, other reapers too."""

from __future__ import annotations

import os
import queue
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.config.options import Config
from rogue_hunter.config.toml import parse
from rogue_hunter.daemon.reload import SETTLE_S
from rogue_hunter.daemon.rules_stage import LOOK_S, Rules, ruling
from rogue_hunter.reaper.audit import AuditLog, FollowAudit, after, last_seq
from rogue_hunter.reaper.run import reap_batch
from rogue_hunter.reaper.stage import BackgroundReap
from rogue_hunter.rules.load import builtin
from rogue_hunter.rules.load import parse as parse_rules
from rogue_hunter.rules.model import RuleError
from rogue_hunter.stream.pipeline import Pipeline, chain
from rogue_hunter.stream.tick import Record, Row, Tick
from tests.reaper.fakes import FakeMachine, FakeProcess, match_of, setup
from tests.tools.ticks import BOOT, START, closing, key
from tests.tools.ticks import named_row as row

BURN = """
[[rules]]
name = "burn"
priority = "high"
conditions = { cpu_percent_min = 50 }
action = { notify = true, log_level = "error" }
[[rules]]
name = "large"
conditions = { memory_mb_min = 1000 }
action = { type = "notify", notify = true, log_level = "info" }
"""


def a_tick(seq: int, *rows: Row) -> Tick:
    processes = {key(each): each for each in rows}
    return Tick(closing(seq, len(rows)), processes, set(processes))


class Pipe:
    """The stages fed tick by tick, with what they say."""

    def __init__(self, file: Path | None, config: Config | None = None, **more: Any) -> None:
        self.said: list[tuple[str, str]] = []
        self.inbox: queue.SimpleQueue[Tick | None] = queue.SimpleQueue()
        self.context = ruling(config or Config(), file, lambda level, text: self.said.append((level, text)), **more)
        self.seq = 0

    def __enter__(self) -> Pipe:
        made = self.context.__enter__()
        found = (made.match, made.reap, made.others, made.tell, made.metrics)
        self.pipeline = Pipeline(*(stage for stage in found if stage is not None))
        self.ticks = self.pipeline.run(iter(self.inbox.get, None))
        return self

    def __exit__(self, *_: object) -> None:
        self.inbox.put(None)
        self.rest = list(self.ticks)
        self.context.__exit__(None, None, None)

    def tick(self, *rows: Row) -> list[Record]:
        self.inbox.put(a_tick(self.seq, *rows))
        self.seq += 1
        return next(self.ticks).records


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    file = tmp_path / "rules.toml"
    file.write_text(BURN)
    return file


def test_a_match_is_a_record_and_logged_once(rules: Path) -> None:
    """As loudly as the rule asks; nothing is ended where there is no machine to act on."""
    with Pipe(rules) as pipe:
        found = pipe.tick(row(4000, cpu_percent=80.0, command="loop\x1b"), row(4001))
        assert [(r["type"], r["pid"], r["rule"]) for r in found] == [("match", 4000, "burn")]
        for _ in range(3):
            assert pipe.tick(row(4000, cpu_percent=81.0, command="loop\x1b"), row(4001)) == []
        pipe.tick(row(4000, cpu_percent=81.0), row(4002, memory_bytes=2 * 10**9))
    assert [level for level, _ in pipe.said] == ["error", "info"]
    assert pipe.said[0][1].startswith("rule burn matches loop") and "[4000]: cpu 80 %" in pipe.said[0][1]


def test_rules_that_cannot_be_used_stop_the_start(rules: Path) -> None:
    rules.write_text("[[rules]]\nname = 'x'\n")
    with pytest.raises(RuleError, match="a rule without conditions"), Pipe(rules):
        pass


def test_the_log_level_of_the_rules_is_the_lowest_logged(rules: Path) -> None:
    rules.write_text(BURN + '[logging]\nlevel = "warning"\n')
    with Pipe(rules) as pipe:
        pipe.tick(row(4002, memory_bytes=2 * 10**9))
    assert pipe.said == []


def test_daemon_disabled_asks_nothing(rules: Path) -> None:
    rules.write_text(BURN + "[daemon]\nenabled = false\n")
    with Pipe(rules) as pipe:
        assert pipe.tick(row(4000, cpu_percent=80.0)) == []


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_rules_follow_their_file(rules: Path) -> None:
    """Read again once it is stable; after an invalid file the old ones stay, with one message."""
    clock, said = Clock(), list[tuple[str, str]]()
    held = Rules(rules, lambda level, text: said.append((level, text)), clock)

    def later() -> list[str]:
        clock.now += LOOK_S
        held.look()
        clock.now += max(LOOK_S, SETTLE_S)
        return [rule.name for rule in held.look().rules]

    first = held.look()
    assert later() == ["burn", "large"] and held.look() is first and said == []
    rules.write_text(BURN.replace('"burn"', '"fire"'))
    assert later() == ["fire", "large"] and said.pop()[0] == "info"
    rules.write_text("[[rules]]\nname = 'x'\n")
    assert later() == ["fire", "large"] and later() == ["fire", "large"]
    assert [level for level, _ in said] == ["error"] and "stay as they were" in said.pop()[1]
    rules.write_text("[nonsense")  # who reads the configuration says that
    assert later() == ["fire", "large"] and said == []
    rules.write_text("[system]\nhz = 5.0\n")
    assert later() == [rule.name for rule in builtin().rules]


def test_a_change_is_asked_about_every_process(rules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also about those whose rows stand."""
    monkeypatch.setattr("rogue_hunter.daemon.rules_stage.LOOK_S", 0.0)
    monkeypatch.setattr("rogue_hunter.daemon.rules_stage.SETTLE_S", 0.0)
    quiet = row(4000, cpu_percent=40.0)
    with Pipe(rules) as pipe:
        assert pipe.tick(quiet) == []
        rules.write_text(BURN.replace("= 50", "= 30"))
        pipe.inbox.put(Tick(closing(1, 1), {key(quiet): quiet}, set()))
        assert [r["rule"] for r in next(pipe.ticks).records] == ["burn"]


@pytest.fixture
def desktop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[str]]:
    """A desktop that writes down what it is shown."""
    bin_, shown = tmp_path / "bin", tmp_path / "shown"
    bin_.mkdir()
    for name in ("notify-send", "osascript"):
        (bin_ / name).write_text(f'#!/bin/sh\nfor last; do :; done\necho "$last" >> "{shown}"\n')
        (bin_ / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")

    def lines(count: int) -> list[str]:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if shown.exists() and len(shown.read_text().splitlines()) >= count:
                break
            time.sleep(0.01)
        return shown.read_text().splitlines() if shown.exists() else []

    return lines


def test_matches_are_shown_on_the_desktop_when_both_want_it(rules: Path, desktop: Callable[[int], list[str]]) -> None:
    rules.write_text(BURN + "[notifications]\nenabled = true\n")
    with Pipe(rules) as pipe:
        pipe.tick(row(4000, cpu_percent=80.0), row(4002, memory_bytes=2 * 10**9))
        pipe.tick(row(4000, cpu_percent=80.0), row(4002, memory_bytes=2 * 10**9))
        found = desktop(2)
    assert len(found) == 2 and found[0].startswith("cpu 80 %") and found[1].startswith("memory 2000 MB")


def test_metrics_are_served_when_the_rules_ask_for_it(rules: Path) -> None:
    pytest.importorskip("prometheus_client")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    rules.write_text(BURN + f"[metrics]\nenabled = true\nhttp_port = {port}\n")
    with Pipe(rules) as pipe:
        pipe.tick(row(4000, cpu_percent=80.0))
        page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
        assert 'rogue_hunter_matches_total{priority="high",rule="burn"} 1.0' in page
        with Pipe(rules) as second:  # the port is taken: logged, and all else continues
            assert second.tick(row(4000, cpu_percent=80.0))
        assert second.said[0][0] == "warning" and str(port) in second.said[0][1]


# -- what other reapers do --------------------------------------------------------------------------------------------


def acted(tmp_path: Path, pid: int, **more: Any) -> list[Record]:
    process = FakeProcess(pid)
    return reap_batch([match_of(process)], setup(tmp_path, FakeMachine(process), **more))


def test_actions_of_others_are_taken_from_the_audit_file(tmp_path: Path) -> None:
    """The same record that the other reaper printed; own ones and those of before the start are left out."""
    path = tmp_path / "state" / "audit.log"
    acted(tmp_path, 2000, run="before")
    inbox: queue.SimpleQueue[Tick | None] = queue.SimpleQueue()
    ticks = chain(iter(inbox.get, None), FollowAudit(lambda: path, "own", 0.0))

    def tick() -> list[Record]:
        inbox.put(Tick(closing(0, 0)))
        return next(ticks).records

    assert tick() == []
    printed = [*acted(tmp_path, 2001, run="other"), *acted(tmp_path, 2002, run="own"),
               *acted(tmp_path, 2003, run="other", dry_run=True)]
    assert tick() == [printed[0], printed[2]] and tick() == []
    with open(path, "ab") as file:
        file.write(b'{"seq":99,"kind":"outcome"')  # a line that is just being written
    assert tick() == []
    inbox.put(None)
    assert list(ticks) == []


def test_the_audit_file_may_be_rotated(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = AuditLog(path, max_bytes=2000, keep=3)
    for number in range(30):
        log.append(kind="outcome", n=number)
    assert path.with_name("audit.log.1").exists() and last_seq(path) == 30
    here = len(path.read_bytes().splitlines())
    assert [e["n"] for e in after(path, 30 - here - 2)] == list(range(30 - here - 2, 30))
    assert after(path, 30) == [] and after(tmp_path / "none", 0) == []


def test_what_waits_is_dropped_when_it_is_no_longer_armed(tmp_path: Path) -> None:
    process, other = FakeProcess(2000), FakeProcess(2001)
    machine = FakeMachine(process, other)
    chosen = setup(tmp_path, machine, rules=parse_rules(BURN.encode()))
    armed = [True]

    def ticks() -> Iterator[Tick]:
        yield Tick(records=[match_of(process, rule="burn")])
        for _ in range(2000):
            if machine.sent:
                break
            time.sleep(0.005)
        armed[0] = False
        yield Tick(records=[match_of(other, rule="burn")])
        for _ in range(5):
            time.sleep(0.005)
            yield Tick()

    records = [r for t in chain(ticks(), BackgroundReap(chosen, current=lambda: chosen if armed[0] else None))
               for r in t.records if r["type"] == "action"]
    assert [(r["pid"], r["outcome"]) for r in records] == [(2000, "terminated")]
    assert {pid for pid, _ in machine.sent} == {2000}


def test_an_armed_stage_reaps_what_it_matched(tmp_path: Path, rules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a machine of dictionaries; a dry run in the rules sends nothing and is logged."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    victim = FakeProcess(4100, start_ticks=1000, age_s=2000.0, start_time=START - 990, cpu_seconds_total=1e9)
    machine = FakeMachine(victim)
    monkeypatch.setattr(machine, "boot_id", lambda: BOOT)
    config = parse(b'[reap]\nmode = "armed"\n')
    rules.write_text(BURN + "[daemon]\ndry_run = true\n")
    burning = row(4100, cpu_percent=99.0, command="victim", cpu_seconds_total=50.0, start_time=START - 990)

    def run() -> list[Record]:
        with Pipe(rules, config, machine=lambda: machine) as pipe:
            shift = time.time() - START
            made = a_tick(0, burning)
            assert made.row is not None
            made.row["ts"] += shift
            made.processes = {key(burning): {**burning, "start_time": START - 990 + shift}}
            pipe.inbox.put(made)
            found = list(next(pipe.ticks).records)
            deadline = time.monotonic() + 10
            while not any(r["type"] == "action" for r in found) and time.monotonic() < deadline:
                time.sleep(0.02)
                pipe.inbox.put(Tick(None))
                found += next(pipe.ticks).records
        assert any("armed:" in text for _, text in pipe.said)
        return [r for r in found if r["type"] == "action"]

    assert [a["outcome"] for a in run()] == ["dry_run"] and machine.sent == []
    rules.write_text(BURN)
    assert [a["outcome"] for a in run()] == ["terminated"] and machine.sent == [(4100, 15)]
