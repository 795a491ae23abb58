"""The audit file: one JSON line for each signal, on disk before it is sent, and one for each outcome, in a hash chain.

Each line ends with the SHA-256 of itself and of the line before, so a line that is changed, removed or inserted breaks
the chain; a small file beside it holds the last link, so that a truncated end is detected too. The chain detects
corruption and casual edits: a process that may write to the file can rewrite all of it.

Every reaper writes there before it acts, and one process alone may write to the database: so an rh-reap beside a
running rh-pipe need not notify it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from rogue_hunter.config.options import Reap
from rogue_hunter.config.toml import ConfigError
from rogue_hunter.files import Locked, last_lines, lock, open_private, rotate, rotated
from rogue_hunter.paths import PathError, private_dir, state_dir
from rogue_hunter.rules.model import Settings
from rogue_hunter.schema.rules import ACTION
from rogue_hunter.stream.tick import Record, Tick, record
from rogue_hunter.text.format import path_text

START = "0" * 64
"""The link before the first line."""

TAIL = b',"hash":"'
_LINK = len(TAIL) + 64 + 2
"""Bytes at the end of a line that hold its link: `,"hash":"...64..."}`."""


class Damage(NamedTuple):
    """Where the chain does not hold: file, line number from 1, what is wrong."""

    file: str
    line: int
    text: str


class Verdict(NamedTuple):
    """What a check of the chain found: lines that were read, and damages (none when all is well)."""

    lines: int
    damages: tuple[Damage, ...]


def link_of(link: str, body: bytes) -> str:
    """The link of a line that follows `link`: SHA-256 over both."""
    # A damaged line may hold a link that is no text; it is then the link of nothing.
    return sha256(link.encode("utf-8", "surrogatepass") + b"\n" + body)


def sha256(data: bytes) -> str:
    """The SHA-256 in hexadecimal digits."""
    import hashlib  # it brings OpenSSL, 3.4 MB of memory: a pipe that ends nothing does without

    return hashlib.sha256(data).hexdigest()


def entry_of(line: bytes) -> dict[str, Any] | None:
    """The entry of a line; None for a line that is not an entry."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def own_link(line: bytes) -> str | None:
    """The link at the end of a line, None when there is none."""
    if len(line) <= _LINK or line[-_LINK:-_LINK + len(TAIL)] != TAIL or not line.endswith(b'"}'):
        return None
    return line[-66:-2].decode("utf-8", "replace")


def verify(path: Path) -> Verdict:
    """Check the chain over `path` and what was rotated away from it."""
    files = [path]
    while rotated(path, len(files)).exists():
        files.append(rotated(path, len(files)))
    damages: list[Damage] = []
    lines, seq, link = 0, 0, ""
    for file in reversed(files):
        if not file.exists():
            continue
        data = file.read_bytes()
        if data and not data.endswith(b"\n"):
            damages.append(Damage(path_text(file), data.count(b"\n") + 1, "the last line does not end"))
        for number, line in enumerate(data.split(b"\n")[:-1], 1):
            lines += 1
            first = lines == 1 and len(files) == 1
            wrong, seq, link = _check(line, seq, link)
            if first and seq != 1 and not wrong:
                wrong = f"begins at number {seq}; what was before it is gone"
            if wrong:
                damages.append(Damage(path_text(file), number, wrong))
    damages += _check_head(path, seq, link)
    return Verdict(lines, tuple(damages))


def _check(line: bytes, seq: int, link: str) -> tuple[str, int, str]:
    """What is wrong with a line after (seq, link), and number and link after it."""
    entry, own = entry_of(line), own_link(line)
    if entry is None or own is None or type(entry.get("seq")) is not int or type(entry.get("prev")) is not str:
        return "not a line of the audit file", seq + 1, link
    wrong = ""
    if not link:  # the oldest file that is left: what it follows is gone, or it is the first of all
        if entry["seq"] == 1 and entry["prev"] != START:
            wrong = "the first line follows nothing"
    elif entry["prev"] != link:
        wrong = "does not follow the line before it"
    elif entry["seq"] != seq + 1:
        wrong = f"number {entry['seq']} after {seq}"
    if link_of(entry["prev"], line[:-_LINK] + b"}") != own:
        wrong = "was changed after it was written"
    return wrong, entry["seq"], own


def _check_head(path: Path, seq: int, link: str) -> list[Damage]:
    try:
        number, raw = Path(f"{path}.head").read_bytes().split()
        last, head = int(number), raw.decode("utf-8", "replace")
    except (OSError, ValueError):
        return []
    if last > seq:
        return [Damage(path_text(path), 0, f"ends at number {seq}, but number {last} was written")]
    if last == seq and head != link:
        return [Damage(path_text(path), 0, "does not end with the line that was written last")]
    return []


LOCK_WAIT_S = 10.0
"""A line takes milliseconds to write; a process that holds the lock for this long hangs."""


class AuditError(Exception):
    """The audit file cannot be written, so no signal may be sent; the text says why."""

    def __init__(self, text: str) -> None:
        super().__init__(path_text(text))


class AuditLog:
    """Appends to `path`. At `max_bytes` the file becomes `path.1`, and so on up to `keep` files."""

    def __init__(self, path: Path, *, max_bytes: int = 100_000_000, keep: int = 5,
                 now: Callable[[], float] = time.time, mono_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._now, self._mono_ns = now, mono_ns

    def check(self) -> None:
        """Raise AuditError unless a line could be written now."""
        with self._locked() as fd:
            self._last(fd)
            if os.fstatvfs(fd).f_bavail == 0:
                raise AuditError(f"{self.path}: no space left on the disk")

    def append(self, **entry: Any) -> int:
        """Write a line, wait until it is on disk, and return its number. Raises AuditError."""
        with self._locked() as fd:
            seq, link = self._last(fd)
            if os.fstat(fd).st_size >= self._max_bytes:
                rotate(self.path, self._keep)
                with self._opened() as fresh:
                    return self._write(fresh, seq + 1, link, entry)
            return self._write(fd, seq + 1, link, entry)

    def recent(self, seconds: float, boot_id: str | None = None) -> list[dict[str, Any]]:
        """The entries of the last `seconds`, oldest first. Those of this boot (`boot_id`) count by the monotonic clock
        too, so that setting the wall clock makes none too old. Raises AuditError."""
        since, mono_ns = self._now() - seconds, self._mono_ns()

        def recent(entry: dict[str, Any]) -> bool:
            mono = entry.get("mono_ns") if boot_id is not None and entry.get("boot_id") == boot_id else None
            return _time(entry) >= since or (type(mono) is int and 0 <= mono_ns - mono <= seconds * 1e9)

        found: list[dict[str, Any]] = []
        with self._locked():
            for file in (self.path, rotated(self.path, 1)):
                entries, whole = _newer(file, recent)
                found = entries + found
                if not whole:
                    break
        return found

    def verify(self) -> Verdict:
        """Check every line of every file, from the oldest."""
        return verify(self.path)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """The open file, under its lock. Raises AuditError."""
        try:
            private_dir(self.path.parent)
            held = lock(f"{self.path}.lock", wait_s=LOCK_WAIT_S)
        except Locked:
            raise AuditError(f"{self.path}: its lock was held by another process for {LOCK_WAIT_S:.0f} s") from None
        except (OSError, PathError) as error:
            raise AuditError(f"{self.path}: {getattr(error, 'strerror', None) or error}") from None
        with held, self._opened() as fd:
            yield fd

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        try:
            fd = open_private(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
            try:
                yield fd
            finally:
                os.close(fd)
        except OSError as error:
            raise AuditError(f"{self.path}: {error.strerror}") from None

    def _last(self, fd: int) -> tuple[int, str]:
        """Number and link of the last line; a torn one (a crash while it was written) is set aside first."""
        size = os.fstat(fd).st_size
        if size == 0:
            return self._before()
        tail = os.pread(fd, min(size, 1 << 20), max(0, size - (1 << 20)))
        if not tail.endswith(b"\n"):
            torn = tail[tail.rfind(b"\n") + 1:]
            self._set_aside(fd, size, torn)
            return self._last(fd)
        return _end(self.path, tail)

    def _before(self) -> tuple[int, str]:
        """Number and link that a new file continues: those of the end of the rotated file, if there is one."""
        before = rotated(self.path, 1)
        if not before.exists():
            return 0, START
        return _end(before, before.read_bytes().rstrip(b"\n"))

    def _set_aside(self, fd: int, size: int, torn: bytes) -> None:
        with open(f"{self.path}.torn", "ab", opener=open_private) as file:
            file.write(torn + b"\n")
        os.ftruncate(fd, size - len(torn))
        seq, link = self._last(fd)
        self._write(fd, seq + 1, link, {"kind": "repair", "torn_bytes": len(torn),
                                        "torn_sha256": sha256(torn)})

    def _write(self, fd: int, seq: int, link: str, entry: dict[str, Any]) -> int:
        now = self._now()
        head = {"seq": seq, "prev": link, "ts": round(now, 3), "mono_ns": self._mono_ns(),
                "timestamp": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")}
        try:
            body = json.dumps({**head, **entry}, separators=(",", ":"), allow_nan=False).encode()
        except (ValueError, TypeError) as error:
            raise AuditError(f"{self.path}: an entry that is not JSON: {error}") from None
        new = link_of(link, body)
        line = body[:-1] + TAIL + new.encode() + b'"}\n'
        size = os.fstat(fd).st_size
        try:
            if os.write(fd, line) != len(line):
                raise OSError(28, "No space left on device")
            os.fsync(fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, size)  # half a line would look like a crash
            raise
        self._note_head(seq, new)
        return seq

    def _note_head(self, seq: int, link: str) -> None:
        """Write the last link beside the file. After a crash it may lag behind; it is never ahead."""
        fd = open_private(f"{self.path}.head", os.O_WRONLY | os.O_CREAT)
        try:
            os.pwrite(fd, f"{seq:020d} {link}\n".encode(), 0)
        finally:
            os.close(fd)


def _end(file: Path, data: bytes) -> tuple[int, str]:
    """Number and link of the last line of a file, which ends with `data`. Raises AuditError if it is damaged."""
    line = data.removesuffix(b"\n").rsplit(b"\n", 1)[-1]
    entry, link = entry_of(line), own_link(line)
    if entry is None or link is None or type(entry.get("seq")) is not int:
        raise AuditError(f"{file}: its last line is damaged; check it with rh-reap --verify and move it away")
    return entry["seq"], link


def _entries(lines: list[bytes]) -> list[dict[str, Any]]:
    return [entry for entry in map(entry_of, lines) if entry is not None]


def _newer(file: Path, recent: Callable[[dict[str, Any]], bool]) -> tuple[list[dict[str, Any]], bool]:
    """The recent entries of a file, read from its end, and whether all of the file is recent."""
    lines, _ = last_lines(file, lambda lines: not all(map(recent, _entries(lines))), sys.maxsize)
    entries = _entries(lines)
    newer = [entry for entry in entries if recent(entry)]
    return newer, len(newer) == len(entries)


def _time(entry: dict[str, Any]) -> float:
    """When it was written; a damaged line counts as new, which can only make a budget smaller."""
    ts = entry.get("ts")
    return ts if isinstance(ts, (int, float)) else math.inf


def audit_path(reap: Reap, settings: Settings) -> Path:
    """The audit file: reap.audit, else logging.file of the rules, else audit.log in the state directory.

    All reapers of a user must use the same file, from any working directory: raises ConfigError for a relative path.
    """
    named = reap.audit or settings.log_file
    if not named:
        return state_dir() / "audit.log"
    path = Path(named).expanduser()
    if not path.is_absolute():
        raise ConfigError(f"audit file {named}: must be an absolute path, or begin with ~/")
    return path


def audit_log(reap: Reap, settings: Settings) -> AuditLog:
    """The audit file, with the size and number of files of the rules. Raises ConfigError."""
    return AuditLog(audit_path(reap, settings), max_bytes=settings.log_max_bytes, keep=settings.log_keep)


_NAMES = frozenset(f.name for f in ACTION) - {"ts", "host", "audit_seq"}
_REQUIRED = tuple(f.name for f in ACTION if f.required and f.name != "ts")
MOST = 1 << 22
"""Bytes that are read at most at one time: 1,500 actions of 3 KB."""
LOOK_S = 2.0
"""What others did is history: looking for it at every tick cost 0.12 ms a tick, which is 3 % of a tick of 1,000
processes."""


def action_of(entry: dict[str, Any]) -> Record | None:
    """The action record of an entry; None for an entry that is not an outcome."""
    if entry.get("kind") != "outcome" or any(name not in entry for name in _REQUIRED):
        return None
    fields = {name: value for name, value in entry.items() if name in _NAMES}
    return record("action", ts=entry.get("ts"), host=entry.get("hostname"), audit_seq=entry.get("seq"), **fields)


def last_seq(path: Path) -> int:
    """The number of the line that was written last; 0 when there is none."""
    try:
        return int(Path(f"{path}.head").read_bytes().split()[0])
    except (OSError, ValueError, IndexError):
        return 0


def after(path: Path, seq: int) -> list[dict[str, Any]]:
    """The entries with a higher number than `seq`, oldest first. Nothing is locked: a line that is just being written
    has no end yet and is left for the next time. Raises OSError."""
    found: list[dict[str, Any]] = []
    for file in (path, rotated(path, 1)):
        entries = _tail(file, seq)
        found = entries + found
        if not entries or entries[0]["seq"] <= seq + 1:
            break
    return [entry for entry in found if entry["seq"] > seq]


def _tail(file: Path, seq: int) -> list[dict[str, Any]]:
    """The last entries of a file: so many that `seq` is among them, if it is in the file and not too far back."""
    def whole(lines: list[bytes]) -> list[dict[str, Any]]:
        return [entry for entry in _entries(lines) if type(entry.get("seq")) is int]

    lines, _ = last_lines(file, lambda lines: any(entry["seq"] <= seq + 1 for entry in whole(lines)[:1]), MOST)
    return whole(lines)


class FollowAudit:
    """A stage that adds the action records of other reapers than `own_run`, from its first tick on, every `look_s`
    seconds. `path` is called each time; a file that cannot be read adds nothing."""

    def __init__(self, path: Callable[[], Path], own_run: str, look_s: float = LOOK_S) -> None:
        self._path, self._own_run, self._look_ns = path, own_run, look_s * 1e9
        self._place = path()
        self._seq = last_seq(self._place)
        self._looked: int | None = None

    def __call__(self, tick: Tick) -> Tick:
        """The tick with what others did since the last look."""
        now = tick.row["mono_ns"] if tick.row is not None else None
        if now is not None and (self._looked is None or not 0 <= now - self._looked < self._look_ns):
            self._looked = now
            place = self._path()
            if place != self._place:
                self._place, self._seq = place, last_seq(place)
            tick.records += self.close()
        return tick

    def close(self) -> list[Record]:
        """What others did since the last look."""
        new, self._seq = _new(self._place, self._seq, self._own_run)
        return new


def _new(path: Path, seq: int, own_run: str) -> tuple[list[Record], int]:
    last = last_seq(path)
    if last <= seq:
        return [], min(last, seq)  # a new file begins with 1
    try:
        entries = after(path, seq)
    except OSError:
        return [], last
    actions = [action_of(entry) for entry in entries if entry.get("run") != own_run]
    return [action for action in actions if action is not None], max((e["seq"] for e in entries), default=last)
