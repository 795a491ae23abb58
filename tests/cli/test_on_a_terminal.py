"""Every command prints for people on a terminal, and records in a pipe; --ndjson forces records."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Tick
from tests.tools.reports import hog, record_run, seconds, ticks_of
from tests.tools.ticks import closing, key

Shown = Callable[..., tuple[int, str]]


def scored(*scores: int) -> bytes:
    """One tick for each of the scores of a process."""
    made = b""
    for n, score in enumerate(scores):
        row = hog(4000, score, command="busy\x1b[2J")
        made += wire.Encoder().tick(Tick(closing(n, 1, ts=1_800_000_000.0 + n / 3), {key(row): row}, {key(row)}))
    return made


@pytest.fixture
def shown(clean_env: Mapping[str, str], tmp_path: Path) -> Shown:
    """Run a command with a terminal of 80 columns as its output: its exit code, and what the terminal shows of it and of
    standard error."""
    def run(*args: str, stdin: bytes = b"") -> tuple[int, str]:
        ours, theirs = pty.openpty()
        command = [sys.executable, "-P", "-m", "rogue_hunter", *args]
        env = {**clean_env, "HOME": str(tmp_path), "TERM": "xterm", "COLUMNS": "80", "NO_COLOR": "1"}
        given = tmp_path / "stdin"
        given.write_bytes(stdin)
        with given.open("rb") as source:
            process = subprocess.Popen(command, stdin=source, stdout=theirs, stderr=theirs, env=env)
        os.close(theirs)
        seen, deadline = b"", time.monotonic() + 60
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.2)[0]:
                try:
                    data = os.read(ours, 65536)
                except OSError:
                    break
                seen += data
        code = process.wait(20)
        os.close(ours)
        return code, seen.decode().replace("\r\n", "\n")

    return run


def test_a_sample_is_a_table(shown: Shown) -> None:
    code, text = shown("sample", "-n", "1", "--top", "3")
    lines = text.splitlines()
    assert code == 0 and "CPUs busy" in lines[0] and lines[1].split()[0] == "CPU%" and lines[1].endswith("COMMAND")
    assert 3 <= len(lines) <= 5 and "{" not in text
    code, text = shown("sample", "-n", "1", "--top", "3", "--ndjson")
    assert code == 0 and [json.loads(line)["type"] for line in text.splitlines()] == ["process"] * 3 + ["tick"]


def test_the_output_of_rh_pipe_is_a_table(shown: Shown, tmp_path: Path) -> None:
    args = ("pipe", "-q", "--for", "0.5s", "--tee", "--no-socket", "--db", str(tmp_path / "x.db"))
    code, text = shown(*args)
    assert code == 0 and "CPUs busy" in text and "COMMAND" in text and "{" not in text
    assert {json.loads(line)["type"] for line in shown(*args, "--ndjson")[1].splitlines()} >= {"process", "tick"}


@pytest.mark.parametrize("args", [("score",), ("track",), ("match", "--no-project"), ("forensics",)])
def test_a_filter_prints_text_on_a_terminal(shown: Shown, args: tuple[str, ...]) -> None:
    code, text = shown(*args, stdin=scored(*[76] * 20))
    assert code == 0 and "{" not in text and "\x1b" not in text
    if args[0] == "score":
        assert text.count("COMMAND") >= 6 and "busy\\x1b[2J" in text
    if args[0] == "track":
        assert "began to hog cpu: score 76" in text


def test_records_on_a_terminal_are_harmless_too(shown: Shown) -> None:
    """JSON escapes no character above the first 32: a terminal obeys some of those."""
    code, text = shown("score", "--ndjson", stdin=scored(76).replace(b"busy", b"\xc2\x9b31m\xe2\x80\xae"))
    assert code == 0 and '"command":"\\u009b31m\\u202e\\u001b[2J"' in text and not {"\x9b", "\u202e"} & set(text)


def test_a_filter_in_a_pipe_prints_records_in_any_environment(rh: Callable[..., subprocess.CompletedProcess[bytes]]) -> None:
    """RH_FORMAT is for reports: the next filter needs records."""
    assert rh("score", stdin=scored(76), RH_FORMAT="table").stdout.startswith(b'{"type":"process"')
    assert rh("score", "--table", stdin=scored(76)).stdout.split()[0] != b"{"


def test_keepers_print_a_sentence(shown: Shown, tmp_path: Path) -> None:
    db = tmp_path / "x.db"
    record_run(db, ticks_of(20, seconds(2, 15, hog(100, 85))))
    code, text = shown("prune", "--older-than", "1h", "--dry-run", "--db", str(db))
    assert code == 0 and text.startswith("would remove ") and "events left" in text.replace("event left", "events left")
    assert json.loads(shown("prune", "--older-than", "1h", "--dry-run", "--ndjson", "--db", str(db))[1])["type"] == "prune"
    code, text = shown("reap", "--verify")
    assert code == 0 and "audit" in text and "{" not in text


def test_a_dry_run_of_the_reaper_is_announced_once(shown: Shown, burn: Callable[[], int]) -> None:
    pid = burn()
    _, text = shown("reap", "--pid", str(pid), "--dry-run", "--yes")
    assert "{" not in text and text.count(f"[{pid}]") == 1
