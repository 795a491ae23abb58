"""Recorded trees: the files of /proc of one tick after another, secrets masked, so that a bug report replays.

A recording is a directory of numbered trees, each with the few files that this host reads and a file `clock`. Names of
programs and users stay in it; command lines are redacted as everywhere, environments are never read.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rogue_hunter.files import read_start
from rogue_hunter.host.linux.describe import CMDLINE_BYTES, LARGE_BYTES, LINK, LOOKED_AT, THREADS_MAX, WORDS
from rogue_hunter.host.linux.host import LinuxHost
from rogue_hunter.host.linux.machine import ARCSTATS
from rogue_hunter.host.linux.parse import parse_stat, split_cmdline
from rogue_hunter.host.protocol import HostError, Snapshot
from rogue_hunter.stream.clock import Beat
from rogue_hunter.text.redact import redact

MACHINE = ("stat", "meminfo", "uptime", "loadavg", "pressure/cpu", "pressure/memory", "pressure/io",
           "vmstat", "diskstats", ARCSTATS, "sys/kernel/random/boot_id", "sys/kernel/hostname")
PROCESS = ("stat", "status", "io", "schedstat", "cgroup")
THREAD = ("stat", "status", "schedstat")
LIMIT = 1 << 16
"""Bytes kept of a file; /proc/stat of a machine of 600 CPUs is as long."""


def record(root: Path, target: Path, beat: Beat, known: dict[str, bytes] | None = None) -> int:
    """Write the tree of one tick below `target`. Returns the number of processes. `known` keeps the stat of each
    process from one tick to the next: the threads of those that did nothing are left out. Raises OSError."""
    tree = target / f"{beat.seq:06d}"
    tree.mkdir(mode=0o700, parents=True)
    for name in MACHINE:
        _copy(root / name, tree / name)
    count = 0
    for name in os.listdir(root):
        if name.isascii() and name.isdigit():
            count += _record_process(root / name, tree / name, {} if known is None else known)
    (tree / "clock").write_text(json.dumps({"mono_ns": beat.mono_ns, "ts": beat.ts, "interval_s": beat.interval_s,
                                            "late_s": beat.late_s, "asleep_s": beat.asleep_s}))
    return count


def _record_process(source: Path, target: Path, known: dict[str, bytes]) -> bool:
    stat = _read(source / "stat")
    if stat is None:
        return False
    target.mkdir(mode=0o700)
    (target / "stat").write_bytes(stat)
    for name in PROCESS[1:]:
        _copy(source / name, target / name)
    with contextlib.suppress(ValueError):
        if parse_stat(stat).rss * os.sysconf("SC_PAGE_SIZE") >= LARGE_BYTES:
            _copy(source / "smaps_rollup", target / "smaps_rollup")
    cmdline = _record_program(source, target)
    if any(word in cmdline for word in WORDS):
        _record_mark(source / "fd", target / "fd")
    with contextlib.suppress(ValueError):
        parsed = parse_stat(stat)
        changed, known[source.name] = known.get(source.name) != stat, stat
        if 1 < parsed.threads <= THREADS_MAX and (changed or parsed.state == b"Z"):
            _record_threads(source / "task", target / "task", dead_leader=parsed.state == b"Z")
    return True


def _record_mark(source: Path, target: Path) -> None:
    """The one descriptor that shows that a process is rogue-hunter's own."""
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(source), key=int)[:LOOKED_AT]:
            with contextlib.suppress(OSError):
                if os.readlink(source / name) == LINK:
                    target.mkdir(mode=0o700)
                    os.symlink(LINK, target / name)
                    return


def _record_program(source: Path, target: Path) -> bytes:
    cmdline = _read(source / "cmdline", CMDLINE_BYTES) or b""
    if cmdline:
        (target / "cmdline").write_bytes(redact(split_cmdline(cmdline)).encode() + b"\0")
    with contextlib.suppress(OSError):
        os.symlink(os.readlink(source / "exe"), target / "exe")
    return cmdline


def _record_threads(source: Path, target: Path, dead_leader: bool) -> None:
    """What the threads waited and switched; of a process whose leader has ended, its program and arguments, too."""
    with contextlib.suppress(OSError):
        for name in os.listdir(source):
            for each in THREAD:
                _copy(source / name / each, target / name / each)
            if dead_leader and (target / name).is_dir():
                _record_program(source / name, target / name)


def _copy(source: Path, target: Path) -> None:
    data = _read(source)
    if data is not None:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        target.write_bytes(data)


def _read(path: Path, size: int = LIMIT) -> bytes | None:
    try:
        return read_start(path, size)
    except OSError:
        return None


def recorded(beats: Iterator[Beat], root: Path, target: Path) -> Iterator[Beat]:
    """The beats, each recorded before it is passed on. Raises OSError, also for an existing recording."""
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    known: dict[str, bytes] = {}
    for beat in beats:
        record(root, target, beat, known)
        yield beat


def is_recording(root: Path) -> bool:
    """True when `root` holds numbered trees."""
    return (root / "000000" / "clock").is_file()


class Replay(LinuxHost):
    """A host that reads the next tree of a recording at each snapshot, and the beats to go with it."""

    def __init__(self, recording: Path) -> None:
        """Raises HostError when there is nothing to replay."""
        self._trees = sorted(p for p in recording.iterdir() if p.name.isdigit() and (p / "clock").is_file())
        if not self._trees:
            raise HostError(f"{recording}: not a recording")
        self._next = iter(self._trees)
        self._now_ns, self._now_s = 0, 0.0
        self._read_clock(self._trees[0])
        super().__init__(self._trees[0], mono=lambda: self._now_ns, wall=lambda: self._now_s)

    def _read_clock(self, tree: Path) -> None:
        clock = _clock(tree)
        self._now_ns, self._now_s = clock["mono_ns"], clock["ts"]

    def snapshot(self) -> Snapshot:
        """The next tree; the last one again when there is none."""
        tree = next(self._next, None)
        if tree is not None:
            self._describer.root = self._machine.root = self._files.root = tree
            self._read_clock(tree)
        return super().snapshot()

    def beats(self, pace: float = 0.0, sleep: Callable[[float], object] = time.sleep) -> Iterator[Beat]:
        """The recorded beats, `pace` times as fast as they were; 0 waits for nothing."""
        for seq, tree in enumerate(self._trees):
            clock = _clock(tree)
            if pace and seq:
                sleep(clock["interval_s"] / pace)
            yield Beat(seq, clock["mono_ns"], clock["ts"], clock["interval_s"], clock["late_s"], clock["asleep_s"])


def _clock(tree: Path) -> dict[str, Any]:
    try:
        clock = json.loads((tree / "clock").read_text())
        return {name: clock[name] for name in ("mono_ns", "ts", "interval_s", "late_s", "asleep_s")}
    except (OSError, ValueError, KeyError, TypeError):
        raise HostError(f"{tree}/clock: not a clock of a recording") from None
