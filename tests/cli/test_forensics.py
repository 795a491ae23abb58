"""rh-forensics as it is called: the filter, capture, parse, blame, and how each of them ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from rogue_hunter.schema.capture import RECORDS
from rogue_hunter.stream.wire import dumps
from tests.tools.captures import FIXTURES, capture, parts
from tests.tools.docs import json_schema

REPO = Path(__file__).resolve().parent.parent.parent
SAMPLES = REPO.parent / "shared" / "samples" / "spindump"
REAL = sorted(SAMPLES.glob("*")) if SAMPLES.is_dir() else []
Run = Callable[..., "subprocess.CompletedProcess[bytes]"]
Spawn = Callable[..., "subprocess.Popen[bytes]"]
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads the /proc of Linux")
real = pytest.mark.skipif(not REAL, reason="the folder of real samples is not here")


def lines(done: subprocess.CompletedProcess[bytes]) -> list[dict[str, Any]]:
    """The records that were printed, each valid by the schema of its type."""
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for each in found:
        if each["type"] in RECORDS:
            Draft202012Validator(json_schema(each["type"])).validate(each)
    return found


def of(records: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [each for each in records if each["type"] == kind]


def boot_id() -> str:
    from rogue_hunter.host.platform import here

    host = here()
    try:
        return host.facts().boot_id
    finally:
        host.close()


def start_of(pid: int) -> int:
    from rogue_hunter.host.linux.parse import parse_stat

    return parse_stat(Path(f"/proc/{pid}/stat").read_bytes()).start


def parent_of(place: Path) -> int | None:
    """The parent of a process that lives, by its directory in /proc."""
    from rogue_hunter.host.linux.parse import parse_stat

    try:
        stat = parse_stat((place / "stat").read_bytes())
    except OSError:
        return None
    return None if stat.state == b"Z" else stat.ppid


def event(pid: int, start: int, boot: str, **more: Any) -> bytes:
    """A line as rh-track prints it, as far as it matters here."""
    made = {"type": "event", "v": 1, "ts": time.time(), "kind": "enter", "event": f"e{pid}", "boot_id": boot,
            "pid": pid, "start_ticks": start, "command": "p\x1b[2J", "band": "critical", "score": 90, **more}
    return dumps(made) + b"\n"


# -- the filter ------------------------------------------------------------------------------------------------------


@linux
def test_an_event_becomes_a_capture(rh: Run, spawn: Spawn) -> None:
    """The threads of the culprit, its name as it is; what else was in the input stays away, errors do not."""
    child = spawn(["sleep", "600"])
    done = rh("forensics", stdin=event(child.pid, start_of(child.pid), boot_id()) + b'{"type":"other","v":1}\nx\n')
    found = lines(done)
    assert done.returncode == 65 and b"1 line of input could not be used" in done.stderr
    assert {each["type"] for each in found} <= {*RECORDS, "error"} and of(found, "error")
    (own,) = of(found, "capture")
    assert own["command"] == "p\x1b[2J" and own["event"] == f"e{child.pid}" and own["status"] in ("ok", "partial")
    assert [t["outcome"] for t in own["targets"]] == ["ok"]
    assert {t["pid"] for t in of(found, "spindump_thread")} >= {child.pid}


@linux
def test_a_capture_comes_while_the_input_is_quiet(spawn: Spawn, clean_env: Mapping[str, str]) -> None:
    """A pipeline whose source says nothing for an hour gives out its evidence all the same."""
    run = spawn([sys.executable, "-P", "-m", "rogue_hunter", "forensics"], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, env=dict(clean_env))
    assert run.stdin is not None and run.stdout is not None
    run.stdin.write(event(run.pid, start_of(run.pid), boot_id()))
    run.stdin.flush()
    assert json.loads(run.stdout.readline())["type"] == "capture"
    run.stdin.close()
    assert run.wait(30) == 0


@linux
def test_tee_passes_everything_on(rh: Run) -> None:
    """Events and unknown records too; a capture of another boot is reported as skipped."""
    made = event(1, 1, "another boot") + b'{"type":"other","v":1,"x":[1]}\n'
    done = rh("forensics", "--tee", stdin=made)
    assert done.returncode == 0 and done.stdout.startswith(made.splitlines(keepends=True)[0])
    (own,) = of(lines(done), "capture")
    assert (own["status"], own["reason"], own["skipped"]) == ("skipped", "other_boot", 1)
    assert {"type": "other", "v": 1, "x": [1]} in lines(done)
    assert [each["type"] for each in lines(rh("forensics", stdin=made))] == ["capture"]


@pytest.mark.slow
@linux
def test_a_band_can_be_chosen(rh: Run, tmp_path: Path) -> None:
    """By option, by configuration; where captures are switched off, that is for rh-pipe."""
    made = event(1, 1, boot_id(), band="high")
    assert rh("forensics", stdin=made).stdout == b""
    assert of(lines(rh("forensics", "--band", "high", stdin=made)), "capture")
    config = tmp_path / "x.toml"
    config.write_text('[bands]\nforensics = "high"\n[forensics]\nenabled = false\nlog_entries = 0\n')
    (own,) = of(lines(rh("forensics", "-c", str(config), stdin=made)), "capture")
    assert own["targets"][0]["outcome"] == "gone" and own["journal_status"] == "skipped"


@linux
def test_a_storm_reports_what_was_skipped(rh: Run) -> None:
    """100 events at once: one capture, and 99 in the words of the others."""
    boot = boot_id()
    done = rh("forensics", stdin=b"".join(event(pid, pid, boot) for pid in range(10**6, 10**6 + 100)))
    own = of(lines(done), "capture")
    made, skipped = [c for c in own if c["status"] != "skipped"], [c for c in own if c["status"] == "skipped"]
    assert len(made) == 1 and sum(c["skipped"] for c in skipped) == 99
    assert {c["reason"] for c in skipped} <= {"busy", "debounce"}


@pytest.mark.slow
@linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_its_helper(spawn: Spawn, clean_env: Mapping[str, str], number: int) -> None:
    """While it waits for input, in the middle of a pipeline: the process that makes captures ends with it."""
    run = spawn([sys.executable, "-P", "-m", "rogue_hunter", "forensics"], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(clean_env))
    assert run.stdin is not None
    run.stdin.write(event(run.pid, start_of(run.pid), boot_id()))
    run.stdin.flush()
    assert run.stdout is not None and run.stderr is not None
    assert run.stdout.readline()
    helpers = [child for child in Path("/proc").glob("[0-9]*") if parent_of(child) == run.pid]
    assert len(helpers) == 1
    run.send_signal(number)
    assert run.wait(20) == (130 if number == signal.SIGINT else -signal.SIGTERM)
    said = run.stderr.read()
    assert b"Traceback" not in said and b"Fatal" not in said
    deadline = time.monotonic() + 20
    while parent_of(helpers[0]) is not None:
        assert time.monotonic() < deadline, "the process that makes captures was left behind"
        time.sleep(0.02)


def test_nothing_in_nothing_out(rh: Run) -> None:
    """An empty input is no error."""
    done = rh("forensics")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


# -- parse -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@real
@pytest.mark.parametrize("path", REAL, ids=lambda p: p.name)
def test_real_reports(rh: Run, path: Path) -> None:
    """As many processes, threads and waits as a search for the lines finds."""
    done = rh("forensics", "parse", str(path))
    found, data = lines(done), path.read_bytes()
    assert (done.returncode, done.stderr) == (0, b"")
    (report,) = of(found, "spindump_report")
    assert report["file"] == str(path) and found[-1] is report
    assert len(of(found, "spindump_process")) == len(re.findall(rb"(?m)^Process: ", data)) == report["processes"]
    assert len(of(found, "spindump_thread")) == len(re.findall(rb"(?m)^ *Thread (?:0x[0-9a-f]|<multiple>)", data))
    assert len(of(found, "spindump_blocker")) == data.count(b"(blocked by ") + data.count(b", blocked by ")


@real
def test_the_real_watchdog_report_names_the_blocker(rh: Run) -> None:
    """WindowServer's watchdog fired: WindowServer is what the others wait for."""
    (path,) = (p for p in REAL if "wswatchdog" in p.name)
    done = rh("forensics", "blame", "--table", str(path))
    assert done.returncode == 0 and done.stdout.startswith(b"WindowServer [176] is the subject of the report")
    assert b"\n1. WindowServer [176] thread 0x3e2 blocks 21 threads" in done.stdout
    first = lines(rh("forensics", "blame", str(path)))[0]
    assert (first["rank"], first["command"]) == (1, "WindowServer")
    assert first["chain"][-1] == "WindowServer [176] thread 0x3e2"


def test_one_array_of_several_files(rh: Run) -> None:
    """--json is one array for any number of files; standard input is one of them."""
    done = rh("forensics", "parse", "--json", str(FIXTURES / "heavy.txt"), "-",
              stdin=(FIXTURES / "unified.ndjson").read_bytes())
    kinds = {each["type"] for each in json.loads(done.stdout)}
    assert done.returncode == 0 and {"spindump_report", "log_entry"} <= kinds
    assert json.loads(rh("forensics", "blame", "--json", str(FIXTURES / "heavy.txt")).stdout)[0]["rank"] == 1
    none = rh("forensics", "parse", "--json", "/dev/null")
    assert none.returncode == 65 and [e["type"] for e in json.loads(none.stdout)] == ["error"]


@pytest.mark.parametrize(("data", "words"), [
    (b"", b"the input is empty"), (b"\x1f\x8b\x08", b"gzip"), (b"hello\n", b"not a spindump"),
    (bytes(range(256)) * 40, b"binary"), (b'{"type":"capture","v":1}\n', b"capture without ts"),
    (b'{"type":"spindump_thread","v":1,"process":"x","thread_id":"1"}\n', b"process is text"),
    (b'{"type":"log_entry","v":9}\n', b"v is 9"), (b'{"type":"capture"', b"cut short"),
])
def test_what_is_no_report(rh: Run, data: bytes, words: bytes) -> None:
    """One line that says what it is instead, and 65; by parse and by blame."""
    for name in ("parse", "blame"):
        done = rh("forensics", name, "-", stdin=data)
        assert done.returncode == 65 and words in done.stderr
        assert done.stderr.startswith(b"rh-forensics: standard input")
        assert b"Traceback" not in done.stderr


def test_a_report_that_was_cut_off(rh: Run) -> None:
    """The readable part is printed and the rest is an error, in every form."""
    data = (FIXTURES / "heavy.txt").read_bytes()
    cut = data[: data.index(b"Process:", data.index(b"Process:") + 9) + 200]
    for form in ("--ndjson", "--json", "--table"):
        done = rh("forensics", "parse", form, "-", stdin=cut)
        assert done.returncode == 65 and b"the report is incomplete" in done.stderr and b"Editor" in done.stdout


def test_a_missing_file(rh: Run, tmp_path: Path) -> None:
    done = rh("forensics", "parse", str(tmp_path / "none"))
    assert done.returncode == 74 and b"No such file" in done.stderr
    assert rh("forensics", "parse").returncode == 2


def test_stacks_of_one_process(rh: Run) -> None:
    """--frames-of leaves those of the others out."""
    everything = lines(rh("forensics", "parse", str(FIXTURES / "heavy.txt")))
    one = lines(rh("forensics", "parse", "--frames-of", "501", str(FIXTURES / "heavy.txt")))
    assert {t["pid"] for t in of(one, "spindump_thread") if "frames" in t} == {501}
    assert len({t["pid"] for t in of(everything, "spindump_thread") if "frames" in t}) > 1


# -- blame -----------------------------------------------------------------------------------------------------------


def test_captures_are_judged_one_by_one(rh: Run) -> None:
    """The output of rh-forensics, with two captures in it, beside other records."""
    data = b"".join(dumps(each) + b"\n" for each in (
        capture("k1"), *parts("k1"), {"type": "event", "v": 1}, capture("k2"), *parts("k2"),
        capture("k3", status="skipped", reason="busy", skipped=2)))
    found = lines(rh("forensics", "blame", "-", stdin=data))
    assert [(b["capture"], b["rank"], b["pid"], b["waiters"], b["samples"]) for b in found] == [
        ("k1", 1, 7, 2, 6.0), ("k2", 1, 7, 2, 6.0)]
    words = rh("forensics", "blame", "--table", "-", stdin=data).stdout.decode()
    assert words.splitlines()[0] == "k1:" and "hog [7] thread 7 blocks 2 threads of 2 other processes" in words


def test_a_log_has_no_blockers(rh: Run) -> None:
    """That is no answer but a mistake."""
    done = rh("forensics", "blame", str(FIXTURES / "unified.ndjson"))
    assert done.returncode == 65 and b"has no stacks" in done.stderr and done.stdout == b""


def test_hostile_names_reach_no_terminal(rh: Run) -> None:
    """In words every name is made harmless; as a record it is what it was."""
    name = "a\x1b[31m\u202ez\n"
    keys = {"type", "capture", "trigger", "source"}
    made = [{k: name if isinstance(v, str) and k not in keys else [name] if isinstance(v, list) else v
             for k, v in each.items()} for each in (capture(status="ok"), *parts())]
    data = b"".join(dumps(each) + b"\n" for each in made)
    for args in (("blame", "--table"), ("parse", "--table")):
        words = rh("forensics", *args, "-", stdin=data).stdout.decode()
        assert words and not set(words) & {"\x1b", "\u202e"} and "\\x1b" in words, args
    assert any(each.get("command") == name for each in lines(rh("forensics", "blame", "-", stdin=data)))


# -- capture ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@linux
def test_a_look_at_a_living_process(rh: Run, spawn: Spawn) -> None:
    """By its number; the first is the culprit. In words it is the same."""
    one, two = spawn(["sleep", "600"]), spawn(["sleep", "600"])
    done = rh("forensics", "capture", str(one.pid), str(two.pid))
    found = lines(done)
    assert done.returncode == 0 and found[0]["type"] == "capture" and found[0]["trigger"] == "manual"
    assert {p["pid"]: p["role"] for p in of(found, "spindump_process") if p["pid"] in (one.pid, two.pid)} == {
        one.pid: "culprit", two.pid: "rogue"}
    assert found[0]["boot_id"] == boot_id() and (found[0]["pid"], found[0]["command"]) == (one.pid, "sleep")
    words = rh("forensics", "capture", "--table", str(one.pid)).stdout.decode()
    assert f"sleep (pid {one.pid})" in words and "culprit" in words
    assert json.loads(rh("forensics", "capture", "--json", str(one.pid)).stdout)[0]["type"] == "capture"


@pytest.mark.slow
@linux
def test_a_missing_process(rh: Run) -> None:
    """69, and the others are looked at."""
    done = rh("forensics", "capture", "4194305")
    assert (done.returncode, done.stdout) == (69, b"") and b"4194305: no such process" in done.stderr
    done = rh("forensics", "capture", "4194305", str(os.getpid()))
    assert done.returncode == 69 and lines(done)[0]["pid"] == os.getpid()
    assert lines(rh("forensics", "capture"))[0]["type"] == "capture"


def test_rh_format_chooses_the_form(rh: Run) -> None:
    """A form that the command does not have is ignored, an unknown one is an error."""
    assert rh("forensics", "parse", FIXTURES / "heavy.txt", RH_FORMAT="json").stdout.startswith(b"[\n{")
    assert rh("forensics", "parse", FIXTURES / "heavy.txt", RH_FORMAT="csv").stdout.startswith(b'{"type":')
    assert rh("forensics", "parse", FIXTURES / "heavy.txt", RH_FORMAT="cvs").returncode == 2
