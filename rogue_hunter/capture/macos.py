"""One capture on macOS: the kernel's trace saved by tailspin and decoded by spindump, and the log, side by side.

Only `tailspin save` needs root. It is run as `sudo -n /usr/bin/tailspin save -l 30 FILE` with exactly the file that the
sudoers rule names; the file is in a directory of root's, so that no user can replace it by a link. What tailspin holds
is what happened before: about 20 seconds, the freeze included, while a live spindump would show what came after it.

None of this was run on a Mac: the commands are known from their man pages, and tested with stand-ins.
"""

from __future__ import annotations

import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rogue_hunter.capture import logs
from rogue_hunter.capture.command import Command, Outcome, RunCommand, default_runner, first_words, part_status
from rogue_hunter.capture.reports import collect, spindump
from rogue_hunter.capture.reports.detect import tail
from rogue_hunter.capture.request import Parts, Request, Sleep, capture_record
from rogue_hunter.config.options import Forensics
from rogue_hunter.paths import PathError, private_dir, state_dir
from rogue_hunter.stream.tick import Record

SETTLE_S = 5.0
"""Seconds after tailspin's end in which its file may still grow."""
SETTLE_STEP_S = 0.25
RECORDED_S = 600.0
"""Resource reports written so many seconds before a capture belong to it."""
REPORT_LIMIT_BYTES = 1 << 28
"""Bytes of decoded text; a real one of 3.4 s and 1,000 processes has 9 MB."""
LOG_LIMIT_BYTES = 1 << 27

_REFUSED = ("a password is required", "not allowed", "may not run sudo", "not in the sudoers", "a terminal is required",
            "no askpass")


@dataclass(frozen=True, slots=True)
class Tools:
    """Paths of the commands; tests replace them by stand-ins."""

    sudo: str = "/usr/bin/sudo"
    tailspin: str = "/usr/bin/tailspin"
    spindump: str = "/usr/sbin/spindump"
    log: str = "/usr/bin/log"


SAVE_SECONDS = 30
"""How far back the saved trace goes; tailspin's buffer holds about 20 s."""


def save_argv(tools: Tools, file: str) -> list[str]:
    """The command that the sudoers rule allows, word for word (after `sudo -n`). The path comes last and has no option
    before it: the usage of tailspin lists -o as a flag without a value."""
    return [tools.sudo, "-n", tools.tailspin, "save", "-l", str(SAVE_SECONDS), file]


def capture_macos(request: Request, cancel: threading.Event | None = None, *, settings: Forensics | None = None,
                  tools: Tools | None = None, make: RunCommand | None = None, sleep: Sleep = time.sleep,
                  clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time,
                  places: Sequence[Path] | None = None) -> list[Record]:
    """Save, decode, read the log and macOS's resource reports. Each part has its own status; if one fails, the others
    still run.

    Returns the capture record, the report with its processes, threads and waits, resource reports, log entries. `make`
    starts commands. `places` are directories of diagnostic reports, by default this system's.
    """
    settings, tools = settings or Forensics(), tools or Tools()
    make, cancel = make or default_runner(), cancel or threading.Event()
    parts, start = Parts(), clock()
    deadline = start + settings.timeout_s
    logged: list[Record] = []
    left: list[int] = []
    reader = threading.Thread(target=_read_log, name="rh-forensics-log", daemon=True,
                              args=(request, settings, tools, make, cancel, parts, logged, left))
    reader.start()
    report: list[Record] = []
    raw: dict[str, object] = {}
    saved = _save(settings, tools, make, cancel, parts, deadline, sleep, clock, wall)
    if saved and not os.access(settings.tailspin_file, os.R_OK):
        parts.done("spindump", "denied", f"{settings.tailspin_file}: root wrote it so that this user cannot read it")
    elif saved:
        report = _decode(request, settings, tools, make, cancel, parts, max(1.0, deadline - clock()))
        if settings.keep_raw:
            raw = keep_raw(Path(settings.tailspin_file), request.capture, settings, parts)
    else:
        parts.done("spindump", "skipped")
    limits = _recorded(request, places, parts)
    reader.join(max(1.0, deadline - clock()))
    if reader.is_alive():
        parts.done("logs", "timeout", f"log show: no answer within {settings.timeout_s:g} s")
        logged = []
    everything = [*report, *limits, *logged]
    own = capture_record(request, parts, "macos", clock() - start, everything, **raw,
                         targets=_targets(request, everything), log_entries_left_out=sum(left) or None)
    return [own, *everything]


def _recorded(request: Request, places: Sequence[Path] | None, parts: Parts) -> list[Record]:
    """The resource reports that macOS wrote in the last minutes, of any process."""
    found, problems = collect.reports_between(request.ts - RECORDED_S, request.ts + RECORDED_S, places)
    some = collect.directories() if places is None else places
    parts.done("reports", "unavailable" if not some else "denied" if problems and not found else "ok",
               problems[0] if problems else None)
    return [{**each, "capture": request.capture} for each in found
            if each["type"] in ("resource_report", "resource_process")]


def _targets(request: Request, records: Iterable[Record]) -> list[dict[str, object]] | None:
    """The outcome of each target: ok if the report has a process with its pid and name (it has no start times)."""
    seen = {(each.get("pid"), each.get("command")) for each in records if each["type"] == "spindump_process"}
    pids = {pid for pid, _ in seen}
    return [{"pid": t.key[0], "start_ticks": t.key[1], "command": t.command,
             "outcome": "ok" if (t.key[0], t.command) in seen else "unsure" if t.key[0] in pids else "gone"}
            for t in request.targets] or None


def _save(settings: Forensics, tools: Tools, make: RunCommand, cancel: threading.Event, parts: Parts,
          deadline: float, sleep: Sleep, clock: Callable[[], float], wall: Callable[[], float]) -> bool:
    """Run tailspin save, and wait until its file exists and no longer grows."""
    file = Path(settings.tailspin_file)
    began = wall()
    before = _stamp(file)
    command = make(save_argv(tools, settings.tailspin_file), max(1.0, deadline - clock()), 1 << 20, cancel)
    command.run()
    outcome = command.outcome
    if outcome.status != "ok":
        parts.done("tailspin", _refusal(outcome), f"tailspin: {first_words(outcome)}")
        return False
    if _settled(file, before, began, min(deadline, clock() + SETTLE_S), sleep, clock):
        parts.done("tailspin", "ok")
        return True
    after = _stamp(file)
    if after is None:
        parts.done("tailspin", "failed", f"tailspin ended well, but {file} does not exist")
    elif after == before:
        parts.done("tailspin", "failed", f"tailspin ended well, but {file} is the one of an earlier capture")
    else:
        parts.done("tailspin", "partial", f"{file} still grew {SETTLE_S:g} s after tailspin had ended")
        return True
    return False


def _refusal(outcome: Outcome) -> str:
    if outcome.status == "failed" and any(words in outcome.error.lower() for words in _REFUSED):
        return "denied"
    return part_status(outcome)


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _settled(file: Path, before: tuple[int, int, int] | None, began: float, until: float, sleep: Sleep,
             clock: Callable[[], float]) -> bool:
    """True when the file is of this capture, is not empty, and did not change between two checks."""
    last: tuple[int, int, int] | None = None
    while True:
        now = _stamp(file)
        # The clock of a file may be a tick behind the wall clock.
        fresh = now is not None and now != before and now[2] > 0 and now[1] / 1e9 >= began - 2
        if fresh and now == last:
            return True
        last = now if fresh else None
        if clock() >= until:
            return False
        sleep(SETTLE_STEP_S)


def _decode(request: Request, settings: Forensics, tools: Tools, make: RunCommand, cancel: threading.Event,
            parts: Parts, timeout_s: float) -> list[Record]:
    command = make([tools.spindump, "-i", settings.tailspin_file, "-stdout", "-noBinary"], timeout_s,
                   REPORT_LIMIT_BYTES, cancel)
    wanted = {target.key[0] for target in request.targets}
    parsed = spindump.parse(command.lines(), frames_of=lambda pid: pid in wanted, capture=request.capture)
    records = list(parsed) if settings.keep_idle else _relevant(parsed, wanted)
    outcome = command.outcome
    report = records[-1] if records else None
    processes = report["processes"] if report else 0
    status = part_status(outcome)
    if status == "ok" and not processes:
        status = "failed"
    elif status not in ("ok", "unavailable", "denied") and processes:
        parts.problems.append(f"spindump: {status}; {processes} processes could be read")
        status = "partial"
    parts.done("spindump", status, None if status in ("ok", "partial") else f"spindump: {first_words(outcome)}")
    # The report comes before its processes, as a capture comes before its child records.
    return [report, *records[:-1]] if report and processes else []


def _relevant(records: Iterable[Record], wanted: set[int]) -> list[Record]:
    """All processes and the threads that matter: all threads of the targets, and of other processes the threads that
    ran, were blocked, or block others. A tailspin of 1,000 processes has 6,000 threads; a few hundred of them ran."""
    kept: list[Record] = []
    for each in records:
        kept.append(each)
    awaited = {each.get("on_thread_id") for each in kept if each["type"] == "spindump_blocker"}
    return [each for each in kept if each["type"] != "spindump_thread" or each.get("pid") in wanted
            or each["state"] != "sleeping" or each.get("cpu_seconds") or each.get("blocked_samples")
            or not awaited.isdisjoint(each["thread_id"].split(","))]


def _read_log(request: Request, settings: Forensics, tools: Tools, make: RunCommand, cancel: threading.Event,
              parts: Parts, into: list[Record], left: list[int]) -> None:
    """`log show` takes its span in whole minutes."""
    if not settings.log_entries or settings.log_seconds <= 0:
        parts.done("logs", "skipped")
        return
    minutes = max(1, math.ceil(settings.log_seconds / 60))
    argv = [tools.log, "show", "--style", "ndjson", "--last", f"{minutes}m"]
    command: Command = make(argv, settings.timeout_s, LOG_LIMIT_BYTES, cancel)
    since = request.ts - settings.log_seconds
    entries = (each for each in logs.unified(command.lines(), request.capture)
               if each["type"] == "log_entry" and each.get("ts", since) >= since)
    kept, more = tail(entries, settings.log_entries)
    status = part_status(command.outcome)
    if status not in ("ok", "unavailable", "denied") and kept:
        status = "partial"
    into.extend(kept)
    left.append(more)
    parts.done("logs", status, None if status == "ok" else f"log show: {first_words(command.outcome)}")


SUFFIX = ".tailspin"


def keep_raw(source: Path, capture: str, settings: Forensics, parts: Parts) -> dict[str, object]:
    """Copy `source` to the directory of copies; the fields raw_path and raw_bytes, or a problem among `parts`.

    No copy is kept when less than settings.free_mb would remain free on the disk, or when the file alone exceeds the
    quota.
    """
    try:
        directory = private_dir(Path(settings.raw_directory) if settings.raw_directory else state_dir() / "captures")
        size = source.stat().st_size
        quota = settings.raw_quota_mb << 20
        if size > quota:
            parts.problems.append(f"raw file not kept: {size >> 20} MB, the quota is {settings.raw_quota_mb} MB")
            return {}
        make_room(directory, quota - size)
        if shutil.disk_usage(directory).free - size < settings.free_mb << 20:
            parts.problems.append(f"raw file not kept: less than {settings.free_mb} MB would be free on the disk")
            return {}
        target = directory / (capture + SUFFIX)
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as out, source.open("rb") as file:
            try:
                shutil.copyfileobj(file, out, 1 << 20)
            except OSError:
                target.unlink(missing_ok=True)
                raise
        return {"raw_path": str(target), "raw_bytes": target.stat().st_size}
    except PathError as error:
        parts.problems.append(f"raw file not kept: {error}")
    except OSError as error:
        parts.problems.append(f"raw file not kept: {error.strerror}")
    return {}


def make_room(directory: Path, allowed: int) -> int:
    """Delete the oldest copies in `directory` until they take at most `allowed` bytes; return how many were deleted.

    Only regular files with the suffix of copies are counted and deleted.
    """
    found: list[tuple[int, str, int, Path]] = []
    for path in directory.iterdir():
        if path.suffix == SUFFIX and not path.is_symlink() and path.is_file():
            stat = path.stat()
            found.append((stat.st_mtime_ns, path.name, stat.st_size, path))
    total = sum(size for _, _, size, _ in found)
    deleted = 0
    for _, _, size, path in sorted(found):
        if total <= allowed:
            break
        path.unlink(missing_ok=True)
        total -= size
        deleted += 1
    return deleted
