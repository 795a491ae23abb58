"""Captures on macOS, with stand-ins for its commands that are slow, fail, refuse, or write late."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from rogue_hunter.capture.blame import blame
from rogue_hunter.capture.command import Command
from rogue_hunter.capture.macos import Tools, capture_macos, make_room, save_argv
from rogue_hunter.capture.request import Request, Target
from rogue_hunter.config.options import Forensics
from tests.tools.spindump import FIXTURES, Record, check, fixture, of

pytestmark = pytest.mark.waits

WRITES = 'shift; shift; shift; printf trace > "$1"'
DECODES = f"cat {FIXTURES / 'heavy.txt'}"
LOGS = f"cat {FIXTURES / 'unified.ndjson'}"
TS = 1893549850.0


class Mac:
    """A folder with stand-ins. sudo checks that it is called as the real one must be, and runs the rest. `step_s`: the
    longest time between two looks at the trace."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.step_s = folder, 0.02
        self.file = folder / "capture.tailspin"
        self.tools = Tools(*(str(folder / name) for name in ("sudo", "tailspin", "spindump", "log")))
        self.script("sudo", '[ "$1" = -n ] || exit 9; shift; exec "$@"')
        self.script("tailspin", WRITES)
        self.script("spindump", DECODES)
        self.script("log", LOGS)

    def script(self, name: str, body: str) -> None:
        """Make `name` do `body`; what it was called with is kept beside it."""
        path = self.folder / name
        marks = f'echo "$0 $*" >> {self.folder}/calls\necho $$ >> {self.folder}/{name}.pid'
        path.write_text(f"#!/bin/sh\n{marks}\n{body}\n")
        path.chmod(0o755)

    def capture(self, places: Sequence[Path] | None = None, **settings: object) -> list[Record]:
        """A capture with these tools and directories of reports, checked."""
        chosen: dict[str, object] = {"timeout_s": 20.0, "tailspin_file": str(self.file), **settings}
        target = Target((501, 77), "Editor")
        request = Request("c1", TS, "event", (target,), event="e1", boot_id="b")
        return check(capture_macos(request, settings=Forensics(**chosen), tools=self.tools,  # type: ignore[arg-type]
                                   places=places, sleep=lambda seconds: time.sleep(min(seconds, self.step_s))))

    def pid(self, name: str) -> int:
        """The process that ran as `name` last."""
        return int((self.folder / f"{name}.pid").read_text().split()[-1])


@pytest.fixture
def mac(tmp_path: Path) -> Mac:
    """A Mac on which all goes well."""
    return Mac(tmp_path)


def status(records: list[Record]) -> tuple[str, str, str, str]:
    """Of the whole, of tailspin, spindump, the log."""
    own = records[0]
    return own["status"], own["tailspin_status"], own["spindump_status"], own["logs_status"]


def ended(pid: int) -> bool:
    """No such process, or one that only waits to be reaped."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if sys.platform == "linux" and b") Z" in Path(f"/proc/{pid}/stat").read_bytes():
            return True
        time.sleep(0.02)
    return False


def test_all_goes_well(mac: Mac) -> None:
    """Records of the report and the log belong to the capture; the commands are called as they must be."""
    records = mac.capture()
    own = records[0]
    assert status(records) == ("ok", "ok", "ok", "ok")
    assert (own["capture"], own["event"], own["pid"], own["start_ticks"], own["os"]) == ("c1", "e1", 501, 77, "macos")
    assert own["targets"] == [{"pid": 501, "start_ticks": 77, "command": "Editor", "outcome": "ok"}]
    assert records[1]["type"] == "spindump_report" and {r["capture"] for r in records} == {"c1"}
    assert (own["processes"], own["blockers"], own["log_entries"]) == (4, 3, 3)
    assert blame(records).roots[0].command == "worker"
    calls = (mac.folder / "calls").read_text()
    assert f"{mac.tools.tailspin} save -l 30 {mac.file}\n" in calls
    assert f"{mac.tools.spindump} -i {mac.file} -stdout -noBinary\n" in calls
    assert f"{mac.tools.log} show --style ndjson --last 1m\n" in calls
    assert save_argv(Tools(), "/var/db/rogue-hunter/capture.tailspin") == [
        "/usr/bin/sudo", "-n", "/usr/bin/tailspin", "save", "-l", "30", "/var/db/rogue-hunter/capture.tailspin"]


def test_frames_of_the_target_and_no_idle_threads(mac: Mac) -> None:
    """Stacks are kept of the target; threads that slept and blocked no other are left out, unless configured."""
    mac.script("spindump", f"cat {FIXTURES / 'heavy.txt'} | sed 's/ (suspended)$//'")
    threads = of(mac.capture(), "spindump_thread")
    assert [t["thread_id"] for t in threads] == ["0xa1", "0xa2,0xa3", "0xb1"]
    assert ["frames" in t for t in threads] == [True, False, False]
    assert len(of(mac.capture(keep_idle=True), "spindump_thread")) == 4


@pytest.mark.parametrize("words", ["sudo: a password is required", "Sorry, user x is not allowed to execute"])
def test_sudo_refuses(mac: Mac, words: str) -> None:
    """A refusal is reported as denied; the log is read anyway."""
    mac.script("sudo", f"echo '{words}' >&2; exit 1")
    records = mac.capture()
    assert status(records) == ("partial", "denied", "skipped", "ok")
    assert records[0]["problems"] == [f"tailspin: {words}"]


def test_tailspin_is_off(mac: Mac) -> None:
    """What it says on standard error is in the problems."""
    mac.script("tailspin", "echo 'tailspin is disabled' >&2; exit 3")
    records = mac.capture()
    assert status(records)[:3] == ("partial", "failed", "skipped")
    assert records[0]["problems"] == ["tailspin: tailspin is disabled"]


@pytest.mark.slow
def test_tailspin_takes_too_long(mac: Mac) -> None:
    """It is stopped at the time limit, with what it started."""
    mac.script("tailspin", "sleep 600 & echo $! >> $(dirname $0)/child.pid; wait")
    records = mac.capture(timeout_s=1.0)
    assert status(records)[1:3] == ("timeout", "skipped")
    assert ended(mac.pid("tailspin")) and ended(mac.pid("child"))


@pytest.mark.slow
def test_tailspin_writes_late(mac: Mac) -> None:
    """The file comes and grows after the command has ended; it is decoded when it is whole."""
    mac.step_s = 1.0
    mac.script("tailspin", '(sleep 0.4; printf half > "$4"; sleep 0.2; printf whole >> "$4") >/dev/null 2>&1 &')
    mac.script("spindump", f'grep -q halfwhole "$2" && {DECODES}')
    assert status(mac.capture())[:3] == ("ok", "ok", "ok")


def test_tailspin_writes_nothing(mac: Mac) -> None:
    """No file, and the file of an earlier capture, are no capture."""
    mac.script("tailspin", "exit 0")
    clock = iter(range(0, 10_000, 3))

    def run() -> list[Record]:
        request = Request("c1", TS, "event", ())
        settings = Forensics(tailspin_file=str(mac.file), timeout_s=3000)
        return check(capture_macos(request, settings=settings, tools=mac.tools, sleep=lambda _: None,
                                   clock=lambda: float(next(clock))))

    records = run()
    assert records[0]["tailspin_status"] == "failed" and "does not exist" in records[0]["problems"][0]
    mac.file.write_text("old")
    records = run()
    assert records[0]["tailspin_status"] == "failed" and "earlier capture" in records[0]["problems"][0]


def test_spindump_fails_halfway(mac: Mac) -> None:
    """What it printed until then is kept, and called partial."""
    mac.script("spindump", f"head -c 3700 {FIXTURES / 'heavy.txt'}; echo broken >&2; exit 1")
    records = mac.capture()
    assert status(records) == ("partial", "ok", "partial", "ok")
    assert records[0]["processes"] == 2 and "2 processes could be read" in str(records[0]["problems"])


def test_spindump_prints_something_else(mac: Mac) -> None:
    """A usage text is no report."""
    mac.script("spindump", "echo usage: spindump")
    records = mac.capture()
    assert status(records)[:3] == ("partial", "ok", "failed") and not of(records, "spindump_report")


def test_commands_are_missing(mac: Mac) -> None:
    """unavailable, each by itself; nothing at all is a failed capture."""
    for name in ("spindump", "log"):
        (mac.folder / name).unlink()
    assert status(mac.capture())[1:] == ("ok", "unavailable", "unavailable")
    (mac.folder / "sudo").unlink()
    assert status(mac.capture()) == ("failed", "unavailable", "skipped", "unavailable")


@pytest.mark.slow
def test_the_log_hangs_and_the_log_never_ends(mac: Mac) -> None:
    """Its time limit is the capture's; what came before is kept; the newest entries are, up to the limit."""
    mac.script("log", f"{LOGS}; sleep 600")
    records = mac.capture(timeout_s=1.5)
    assert status(records)[1:] == ("ok", "ok", "partial") or records[0]["logs_status"] == "timeout"
    assert ended(mac.pid("log"))
    mac.script("log", f"i=0; while [ $i -lt 300 ]; do i=$((i+1)); sed -n 2p {FIXTURES / 'unified.ndjson'}; done")
    records = mac.capture(log_entries=10)
    assert records[0]["log_entries"] == 10 and records[0]["log_entries_left_out"] == 290


def test_the_log_is_read_beside_the_trace(mac: Mac) -> None:
    """Neither waits for the other: each needs the other's mark to end."""
    mac.script("tailspin", f'touch {mac.folder}/a; while [ ! -e {mac.folder}/b ]; do sleep 0.02; done; {WRITES}')
    mac.script("log", f"touch {mac.folder}/b; while [ ! -e {mac.folder}/a ]; do sleep 0.02; done; {LOGS}")
    assert status(mac.capture()) == ("ok", "ok", "ok", "ok")


def test_the_raw_file_is_kept_when_asked_for(mac: Mac, tmp_path: Path) -> None:
    """A private copy, named after the capture; the oldest copies make room; other files are not touched."""
    folder = tmp_path / "raw"
    own = mac.capture(keep_raw=True, raw_directory=str(folder), free_mb=0)[0]
    copy = folder / "c1.tailspin"
    assert (own["raw_path"], own["raw_bytes"]) == (str(copy), 5)
    assert copy.read_text() == "trace" and copy.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    for i, name in enumerate(("old.tailspin", "older.tailspin", "notes.txt")):
        (folder / name).write_bytes(b"x" * 100)
        os.utime(folder / name, (1000 - i, 1000 - i))
    assert make_room(folder, 106) == 1
    assert sorted(p.name for p in folder.iterdir()) == ["c1.tailspin", "notes.txt", "old.tailspin"]
    assert "raw_path" not in mac.capture()[0]


def test_the_raw_file_is_not_kept_on_a_full_disk(mac: Mac, tmp_path: Path) -> None:
    """Reported, and the capture is unchanged."""
    own = mac.capture(keep_raw=True, raw_directory=str(tmp_path / "raw"), free_mb=1_000_000)[0]
    assert "raw_path" not in own and "would be free" in own["problems"][0] and own["status"] == "ok"
    (tmp_path / "raw").chmod(0o777)
    if os.geteuid() != 0:
        return
    os.chown(tmp_path / "raw", 12345, 12345)
    assert "raw file not kept" in mac.capture(keep_raw=True, raw_directory=str(tmp_path / "raw"))[0]["problems"][0]


@pytest.mark.slow
def test_a_command_is_bounded() -> None:
    """In time, in bytes, and by cancelling it."""
    import threading

    command = Command(["sh", "-c", "yes"], 20, limit_bytes=100_000)
    assert len(command.run()) >= 100_000 and command.outcome.status == "limit"
    command = Command(["sh", "-c", "echo out; echo err >&2; exit 3"], 20)
    assert command.run() == b"out\n"
    assert (command.outcome.status, command.outcome.code, command.outcome.error) == ("failed", 3, "err")
    cancel = threading.Event()
    cancel.set()
    command = Command(["sleep", "600"], 20, cancel=cancel)
    assert command.run() == b"" and command.outcome.status == "cancelled"
    command = Command(["sh", "-c", "trap '' TERM; sleep 600 & wait; sleep 600"], 0.2)
    assert command.run() == b"" and command.outcome.status == "timeout"
    command = Command(["sh", "-c", "exec >&- 2>&-; sleep 600"], 0.2)
    assert command.run() == b"" and command.outcome.status == "timeout"
    assert list(Command(["printf", "a\\nb"], 20).lines()) == [b"a\n", b"b"]
    missing = Command(["/no/such/command"], 1)
    assert missing.run() == b"" and missing.outcome.status == "unavailable"


def test_a_fixture_is_a_report() -> None:
    """What the stand-in prints is what the parser's tests read."""
    assert fixture("heavy.txt").startswith(b"Date/Time:")


def test_resource_reports_of_the_last_minutes(mac: Mac, tmp_path: Path) -> None:
    """What macOS recorded shortly before belongs to the capture; an older report does not; a protected directory is
    reported."""
    place = tmp_path / "reports"
    place.mkdir()
    for name, age in (("new.diag", 60.0), ("old.diag", 5000.0)):
        (place / name).write_bytes((FIXTURES / "mac" / "Crawler_2030-01-02-143600_test.diag").read_bytes())
        os.utime(place / name, (TS - age, TS - age))
    records = mac.capture([place])
    (report,) = of(records, "resource_report")
    assert (report["file"], report["capture"], report["average"]) == ("new.diag", "c1", 2450.0)
    assert len(of(records, "resource_process")) == 2 and records[0]["reports_status"] == "ok"
    records = mac.capture([tmp_path / "missing"])
    assert records[0]["reports_status"] == "denied" and "missing" in " ".join(records[0]["problems"])
    assert mac.capture()[0]["reports_status"] == ("ok" if sys.platform == "darwin" else "unavailable")


def test_a_trace_that_only_root_can_read(mac: Mac, monkeypatch: pytest.MonkeyPatch) -> None:
    """tailspin runs as root: a file of mode 0600 is reported in words, not as a failed decoder."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    own = mac.capture()[0]
    assert own["spindump_status"] == "denied" and "this user cannot read it" in " ".join(own["problems"])
