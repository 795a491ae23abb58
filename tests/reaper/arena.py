"""A place for real kills: a pid namespace of its own, victims of an ordinary user, pids that can be handed out again.

The driver is the namespace's first process. As root it becomes uid 1000 for victims and reapers; an ordinary user
gets the same by a user namespace that keeps the own id. Pids below 1000 are never signalled, so the last pid is
raised first. Everything dies with the namespace.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pickle
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from tests.tools import forked

REPO = Path(__file__).parents[2]
USER = 1000
LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
FIRST_PID = 2000


@cache
def unshare() -> list[str]:
    """The command that makes the namespace. Skips the test where none can be made."""
    import pytest  # 0.1 s of each start inside of the arena, which does without

    if sys.platform != "linux" or shutil.which("unshare") is None:
        pytest.skip("REAL KILLS NOT TESTED: they need Linux and unshare(1)")
    own = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"]
    if os.geteuid() != 0:
        own[1:1] = ["--user", "--map-current-user", "--keep-caps"]
    probe = subprocess.run([*own, "sh", "-c", f"echo {FIRST_PID} > {LAST_PID}"], capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip(f"REAL KILLS NOT TESTED: no pid namespace here: {probe.stderr.decode(errors='replace').strip()}")
    return own


def environment() -> dict[str, str]:
    """In which an interpreter finds the package, these tests and what they import."""
    path = os.pathsep.join([str(REPO), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


def run(scenario: Callable[..., Any], timeout_s: float = 120, **arguments: Any) -> Any:
    """Run `scenario(arena, **arguments)` as the first process of a new namespace; its result must be JSON."""
    words = [scenario.__module__, scenario.__name__, json.dumps(arguments)]
    command, env = [*unshare(), sys.executable, "-m", "tests.reaper.inside"], environment()
    if os.geteuid() == 0 and "COVERAGE_PROCESS_CONFIG" not in env:
        done = forked.run([forked.ARENA, *words], env, timeout=timeout_s, sure=True)
    else:
        done = subprocess.run([*command, *words], capture_output=True, timeout=timeout_s, check=False, cwd=REPO, env=env)
    if b"NOT TESTED: " in done.stderr:
        import pytest

        pytest.skip(done.stderr.decode(errors="replace").rpartition("NOT TESTED: ")[2].strip())
    if done.returncode != 0:
        raise AssertionError(f"{scenario.__name__} failed ({done.returncode}):\n{done.stderr.decode(errors='replace')}")
    return json.loads(done.stdout)


class Arena:
    """Inside of the namespace."""

    def __init__(self) -> None:
        self.root = os.geteuid() == 0
        self.uid = USER if self.root else os.geteuid()
        self.dir = Path(tempfile.mkdtemp(prefix="rh-arena-"))
        os.chown(self.dir, self.uid, -1)
        self.children: set[int] = set()
        self.next_pid(FIRST_PID)

    def next_pid(self, pid: int) -> None:
        """The next fork gets this pid (if it is free)."""
        LAST_PID.write_text(str(pid - 1))

    def become_user(self) -> None:
        """Give up root, or what the namespace gave instead of it, for good."""
        if self.root:
            os.setgroups([])
            os.setresgid(USER, USER, USER)
            os.setresuid(USER, USER, USER)
        else:
            libc = ctypes.CDLL(None)
            libc.prctl(47, 4, 0, 0, 0)  # PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL
            header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
            assert libc.capset(header, (ctypes.c_uint32 * 6)()) == 0

    def fork(self, work: Callable[[], Any], name: str = "victim", pid: int | None = None) -> int:
        """A child of the ordinary user that does `work`; ready when this returns."""
        ready, tell = os.pipe()
        if pid is not None:
            self.next_pid(pid)
        child = os.fork()
        if child == 0:
            try:
                os.setsid()
                self.become_user()
                libc = ctypes.CDLL(None)
                libc.prctl(15, name.encode(), 0, 0, 0)  # PR_SET_NAME
                libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: what changed its user is hidden from that user
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                os.dup2(2, 1)  # stdout carries the scenario's result
                os.close(ready)
                os.write(tell, b".")
                work()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        os.close(tell)
        os.read(ready, 1)
        os.close(ready)
        self.children.add(child)
        return child

    def victim(self, kind: str = "obey", name: str = "victim", pid: int | None = None) -> int:
        """obey: sleeps. ignore: does not hear SIGTERM. loop: burns. busy: burns half of a core. stopped: is. catch: exits by itself on SIGTERM."""
        child = self.fork(VICTIMS[kind], name, pid)
        if kind == "stopped":
            os.waitpid(child, os.WUNTRACED)
        while kind == "headless" and Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
        return child

    def alive(self, pid: int) -> bool:
        """Is this child of ours alive? A signal that waits for it has a moment to arrive: on a busy machine the child
        does not run at once."""
        deadline = time.monotonic() + 10
        while pid in self.children:
            if os.waitpid(pid, os.WNOHANG) != (0, 0):
                self.children.discard(pid)
                return False
            status = Path(f"/proc/{pid}/status").read_text()
            pending = [line for line in status.splitlines() if line[:6] in ("SigPnd", "ShdPnd")]
            if all(int(line.split()[1], 16) == 0 for line in pending):
                return True
            assert time.monotonic() < deadline, pid
            time.sleep(0.01)
        return False

    def end(self, pid: int) -> None:
        """End a child of ours and collect it."""
        if pid in self.children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
            self.children.discard(pid)

    def as_user(self, work: Callable[[], Any], *, on: dict[str, Callable[[Any], Any]] | None = None) -> Any:
        """Run `work` in a child of the ordinary user and give its result. It may call back with `self.call`, which
        runs a function of `on` out here, as root."""
        out_r, out_w = os.pipe()
        in_r, in_w = os.pipe()

        def inside() -> None:
            self._pipe = (in_r, out_w)
            try:
                result: Any = ("result", work())
            except BaseException:
                result = ("error", traceback.format_exc())
            _put(out_w, result)

        child = self.fork(inside, "reaper")
        os.close(out_w)
        os.close(in_r)
        try:
            while True:
                kind, value = _get(out_r)
                if kind == "result":
                    return value
                if kind == "error":
                    raise AssertionError(value)
                _put(in_w, (on or {})[kind](value))
        finally:
            os.close(out_r)
            os.close(in_w)
            os.waitpid(child, 0)
            self.children.discard(child)

    def call(self, name: str, value: Any = None) -> Any:
        """From inside of `as_user`: have a function of `on` run outside."""
        read, write = self._pipe
        _put(write, (name, value))
        return _get(read)


def _put(fd: int, value: Any) -> None:
    data = pickle.dumps(value)
    os.write(fd, len(data).to_bytes(8, "little"))
    while data:
        data = data[os.write(fd, data):]


def _get(fd: int) -> Any:
    def read(count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = os.read(fd, count - len(data))
            if not part:
                raise AssertionError("the child ended without a word")
            data += part
        return data

    return pickle.loads(read(int.from_bytes(read(8), "little")))


def _sleep() -> None:
    while True:
        signal.pause()


def _ignore() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _sleep()


def _loop() -> None:
    while True:
        pass


def _busy() -> None:
    while True:
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass
        time.sleep(0.05)


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)
    _sleep()


def _catch() -> None:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
    _sleep()


def _headless() -> None:
    """The thread that began ends alone (not as exit_group(2) does it), the other continues: a zombie that uses CPU."""
    threading.Thread(target=_loop).start()
    ctypes.CDLL(None).syscall(93 if os.uname().machine == "aarch64" else 60, 0)


VICTIMS: dict[str, Callable[[], None]] = {"obey": _sleep, "ignore": _ignore, "loop": _loop, "busy": _busy, "stopped": _stop,
                                          "catch": _catch, "headless": _headless}


@contextlib.contextmanager
def wall() -> Iterator[list[float]]:
    """Measures the seconds that the body takes."""
    took: list[float] = [time.monotonic()]
    yield took
    took[0] = time.monotonic() - took[0]


def readable(fd: int, seconds: float) -> bool:
    """Does something come within so many seconds?"""
    return bool(select.select([fd], [], [], seconds)[0])

