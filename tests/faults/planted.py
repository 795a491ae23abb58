"""Files that another user put where ours will be: links, pipes, directories, files of other users."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rogue_hunter.config.options import Log as LogSettings
from rogue_hunter.daemon.log import Log
from rogue_hunter.daemon.socket.address import Place, SocketError
from rogue_hunter.paths import PathError, private_dir
from rogue_hunter.reaper.audit import AuditError, AuditLog
from rogue_hunter.reaper.guards import disarm, disarmed
from rogue_hunter.reaper.run import alone
from rogue_hunter.store.database import DatabaseError, Lock, open_writer
from tests.reaper.fakes import FakeMachine, setup

from .table import Bench, case, clean

OTHER = 1000
"""Another user; files of theirs are planted only by root."""


def _database(path: Path) -> bool:
    open_writer(path)[0].close()
    return True


def _lock(path: Path) -> bool:
    Lock(path.with_name(path.name.removesuffix(".lock"))).release()
    return True


def _socket(path: Path) -> bool:
    place = Place(path.with_name(path.name.removesuffix(".lock")))
    try:
        place.listen().close()
    finally:
        place.leave()
    return True


def _log(path: Path) -> bool:
    log = Log(path, LogSettings(path=str(path)))
    try:
        return log.write("error", "x")
    finally:
        log.close()


def _audit(path: Path) -> bool:
    for tail in (".lock", ".head"):
        path = path.with_name(path.name.removesuffix(tail))
    AuditLog(path).append(kind="outcome")
    return True


def _reap_lock(path: Path) -> bool:
    with alone(setup(path.parent.parent, FakeMachine())) as free:
        return free


def _disarmed(path: Path) -> bool:
    disarm(path.parent, "a kill failed")
    return disarmed(path.parent) is None


USERS: dict[str, Callable[[Path], bool]] = {
    "x.db": _database, "x.db.lock": _lock, "s.sock": _socket, "s.sock.lock": _socket, "x.log": _log,
    "audit.log": _audit, "audit.log.lock": _audit, "audit.log.head": _audit, "reap.lock": _reap_lock,
    "disarmed": _disarmed,
}
"""Who opens the file of that name, in a directory called state."""

MAY_BE_THERE = {("x.db.lock", "a pipe"), ("s.sock.lock", "a file of theirs"), ("audit.log.lock", "a pipe"),
                ("reap.lock", "a pipe"), ("x.db.lock", "a file of theirs"), ("audit.log.lock", "a file of theirs"),
                ("reap.lock", "a file of theirs"), ("audit.log.head", "a file of theirs")}
"""Nothing is written to a lock but our pid; it may be anything that can be locked. They are in directories of ours."""


def _plant(kind: str, at: Path, victim: Path) -> None:
    if kind == "a link":
        at.symlink_to(victim)
    elif kind == "a link to nothing":
        at.symlink_to(victim.with_name("made"))
    elif kind == "a pipe":
        os.mkfifo(at, 0o666)
    elif kind == "a directory":
        at.mkdir()
    else:
        at.write_bytes(b"")
        at.chmod(0o666)
        os.chown(at, OTHER, OTHER)


@contextmanager
def _in_time(seconds: int) -> Iterator[None]:
    """Raises AssertionError where something hangs."""
    def over(*_: object) -> None:
        raise AssertionError("waits for ever")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@case("planted files", "links, pipes, directories and others' files where ours would be: refused or done without, the target "
      "untouched, nobody waits")
def planted(bench: Bench) -> str:
    kinds = ("a link", "a link to nothing", "a pipe", "a directory", *(("a file of theirs",) if os.geteuid() == 0 else ()))
    refused = tried = 0
    for name, use in USERS.items():
        for kind in kinds:
            place = bench.tmp / "place"
            state = place / "state"
            state.mkdir(0o700, parents=True)
            victim = place / "victim"
            victim.write_bytes(b"precious")
            victim.chmod(0o644)
            _plant(kind, state / name, victim)
            done = False
            with _in_time(20), suppress(DatabaseError, SocketError, PathError, AuditError):
                done = use(state / name)
            tried += 1
            refused += not done
            assert not done or (name, kind) in MAY_BE_THERE, f"{kind} as {name} was used"
            assert victim.read_bytes() == b"precious" and victim.stat().st_mode & 0o777 == 0o644, (name, kind)
            assert not (place / "made").exists(), f"{kind} as {name} was followed"
            shutil.rmtree(place)
    return f"{tried} plants for {len(USERS)} files: {refused} refused, the others locked only; 0 followed"


@case("planted directories", "a link, a file, another user's, one that others may write to, in the place of any of ours; a database in "
      "a sticky directory of all: refused in one line")
def directories(bench: Bench) -> str:
    tried = 0
    for kind in ("link", "file", "open", "theirs"):
        if kind == "theirs" and os.geteuid() != 0:
            continue
        place = bench.tmp / kind
        place.mkdir(0o755)
        there = place / "real"
        there.mkdir(0o700)
        name = place / "rogue-hunter"
        if kind == "link":
            name.symlink_to(there)
        elif kind == "file":
            name.write_bytes(b"")
        else:
            name.mkdir()
            name.chmod(0o777 if kind == "open" else 0o700)
            if kind == "theirs":
                os.chown(name, OTHER, OTHER)
        for use in (private_dir, lambda path: Place(path / "s"), lambda path: AuditLog(path / "a").append(kind="x")):
            try:
                with _in_time(20):
                    use(name)   # type: ignore[operator]
            except (PathError, SocketError, AuditError) as error:
                tried += 1
                assert "\n" not in str(error)
            else:
                raise AssertionError(f"{kind} was used")
        assert not list(there.iterdir()), f"{kind} was followed"
    sticky = bench.tmp / "tmp"
    sticky.mkdir()
    sticky.chmod(0o1777)
    said = ""
    if os.geteuid() == 0:
        planted = sticky / "x.db"
        planted.touch(0o666)
        os.chown(planted, OTHER, OTHER)
        done = bench.rh("pipe", "--for", "1s", "--quiet", "--no-socket", "--db", planted)
        clean(done.stderr, lines=1)
        assert done.returncode == 74 and planted.stat().st_size == 0 and b"belongs to user 1000" in done.stderr, done
        said = f"; another user's database in a sticky directory: {done.returncode}"
    runtime = {"XDG_RUNTIME_DIR": str(bench.tmp / "link")}
    done = bench.rh("pipe", "--for", "1s", "--quiet", "--db", bench.tmp / "y.db", env=runtime)
    clean(done.stderr, lines=1)
    assert done.returncode == 74 and not list((bench.tmp / "link" / "real").iterdir()), done
    return f"{tried} refusals{said}; a runtime directory that is a link: {done.returncode}"
