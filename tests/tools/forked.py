"""A command in a process of its own without a start of Python: a process that has imported the commands forks for each call.

A start of Python and its imports take 0.1 to 0.3 s of CPU, a fork some milliseconds. `python -m tests.tools.forked` is the
process that forks.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import marshal
import os
import select
import selectors
import shlex
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any, NoReturn

import rogue_hunter
from rogue_hunter.__main__ import main
from tests.tools.processes import dies_with_us

REPO = Path(__file__).resolve().parent.parent.parent
COMMAND = [sys.executable, "-P", "-m", "rogue_hunter"]
CLIENT = """#!{python} -IS
import marshal, posix, sys, _signal, _socket
decoded = lambda data: data.decode("utf-8", "surrogateescape")
env = {{decoded(k): decoded(v) for k, v in posix.environ.items()}}
answer, answering = posix.pipe()
request = marshal.dumps([[{name!r}, *sys.argv[1:], *{more!r}], env, posix.getcwd(), posix.umask(0o077)])
template = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
template.connect({address!r})
template.sendmsg([len(request).to_bytes(8, sys.byteorder)], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, b"".join(
    fd.to_bytes(4, sys.byteorder) for fd in (0, 1, 2, answering)))])
while request:
    request = request[template.send(request):]
posix.close(answering)
pid = int.from_bytes(posix.read(answer, 8), sys.byteorder)
for number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP):
    _signal.signal(number, lambda number, frame: posix.kill(pid, number))
code = posix.waitstatus_to_exitcode(int.from_bytes(posix.read(answer, 8), sys.byteorder))
if code < 0:
    _signal.signal(-code, _signal.SIG_DFL)
    posix.kill(posix.getpid(), -code)
posix._exit(code)
"""
"""A program that is rh-NAME by a fork of the template, and costs a twentieth of a start of our commands."""
ARENA = "an arena"
"""Not a command: a scenario as the first process of a pid namespace (tests/reaper/inside.py)."""
LIKE_OURS = ("LANG", "LC_ALL", "LC_CTYPE")
"""Variables that Python reads only when it starts: a call that has other values needs a start."""


def run(words: Sequence[str | Path], env: Mapping[str, str], stdin: bytes = b"", timeout: float = 60, *,
        sure: bool = False) -> subprocess.CompletedProcess[bytes]:
    """Run `rh-WORD WORD...` as a process of its own to its end; `sure`: whether it can be forked was
    asked before. Raises subprocess.TimeoutExpired."""
    args = [*COMMAND, *map(os.fspath, words)]
    if not (sure or can(args, env)):
        return subprocess.run(args, input=stdin, timeout=timeout, capture_output=True, env=dict(env), check=False)
    with Forked(args, env=dict(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            out, err = process.communicate(stdin, timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(args, process.returncode, out, err)


def popen(args: Sequence[str | Path], **options: Any) -> subprocess.Popen[bytes]:
    """Start a process that ends with this one: one of our commands without a start of Python, where that is possible."""
    if options.keys() <= {"stdin", "stdout", "stderr", "env", "cwd"} and can(args, options.get("env")):
        return Forked(args, **options)
    return subprocess.Popen(args, **{"preexec_fn": dies_with_us, **options})


def can(args: Sequence[str | Path], env: Mapping[str, str] | None) -> bool:
    """Whether this command line needs no Python of its own in this environment."""
    env = os.environ if env is None else env
    return (list(args[:len(COMMAND)]) == COMMAND and sys.platform == "linux" and env.get("PYTHONPATH") == str(REPO)
            and not any(name.startswith(("PYTHON", "COVERAGE")) for name in env if name != "PYTHONPATH")
            and all(env.get(name) == os.environ.get(name) for name in LIKE_OURS))


def program(path: Path, name: str, *more: str) -> None:
    """Write a program that runs `rh-NAME ARGUMENT...` with these arguments behind its own."""
    if sys.platform == "linux" and "COVERAGE_PROCESS_CONFIG" not in os.environ:
        text = CLIENT.format(python=sys.executable, name=name, more=more, address=template().address)
    else:
        text = f'#!/bin/sh\nexec {shlex.join(COMMAND)} {name} "$@" {shlex.join(more)}\n'
    path.write_text(text)
    path.chmod(0o755)


class Forked(subprocess.Popen[bytes]):
    """Popen of a command, by the template. Of the options it knows the streams, `env` and `cwd`."""

    def _execute_child(self, args: Sequence[str | Path], *options: Any) -> None:
        """What the base class calls to start the program: options as in CPython from 3.7 to 3.14."""
        cwd, env = options[4:6]
        streams = [fd if fd >= 0 else number for number, fd in enumerate((options[9], options[12], options[14]))]
        try:
            self.pid, self._status = template().start([os.fspath(word) for word in args[len(COMMAND):]],
                                                    os.environ if env is None else env, cwd, streams)
            self._child_created = True
        finally:
            self._close_pipe_fds(*options[9:15])    # type: ignore[attr-defined]

    def _ended(self, timeout: float | None) -> int | None:
        """The status of waitpid(2), once the template has it."""
        if self._status is None or not select.select([self._status], [], [], timeout)[0]:
            return None
        (status,) = struct.unpack("=q", os.read(self._status, 8))
        os.close(self._status)
        self._status = None
        return int(status)

    def _internal_poll(self, *_: Any, **more: Any) -> int | None:
        if self.returncode is None and (status := self._ended(0)) is not None:
            self._handle_exitstatus(status)
        found: int | None = self.returncode
        return found

    def _try_wait(self, flags: int) -> tuple[int, int]:
        status = self._ended(0 if flags & os.WNOHANG else None)
        return (0, 0) if status is None else (self.pid, status)


@cache
def template() -> Template:
    """The one of this process."""
    return Template()


def close() -> None:
    """End the template, if there is one."""
    if template.cache_info().currsize:
        template().close()
        template.cache_clear()


class Template:
    """The process that forks. It ends with this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair()
        with theirs:
            env = {**{k: v for k, v in os.environ.items() if k in ("PATH", "TZ", *LIKE_OURS)}, "PYTHONPATH": str(REPO)}
            self._place = tempfile.TemporaryDirectory(prefix="rh-forked-")
            self.address = f"{self._place.name}/s"
            self._process = subprocess.Popen([sys.executable, "-P", "-m", "tests.tools.forked", str(theirs.fileno()), self.address],
                                             env=env, pass_fds=[theirs.fileno()], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self._process.stdout.read(1)    # type: ignore[union-attr]  (it listens)

    def start(self, words: list[str], env: Mapping[str, str], cwd: str | None, streams: list[int]) -> tuple[int, int]:
        """The pid of a new process, and a pipe in which its status will be."""
        answer, answering = os.pipe()
        with self._lock:
            os.umask(mask := os.umask(0o077))
            request = marshal.dumps([words, dict(env), os.fspath(cwd or os.getcwd()), mask])
            socket.send_fds(self._socket, [struct.pack("=Q", len(request))], [*streams, answering])
            self._socket.sendall(request)
        os.close(answering)
        return struct.unpack("=q", os.read(answer, 8))[0], answer

    def close(self) -> None:
        """End it."""
        self._socket.close()
        self._process.communicate(timeout=30)
        self._place.cleanup()


def _serve(first: socket.socket, listener: socket.socket) -> list[str] | None:
    """Fork for each request until the other end of `first` is closed. In a forked process: the words of its command."""
    running: dict[int, tuple[int, int]] = {}
    with selectors.DefaultSelector() as ready:
        for each in (first, listener):
            ready.register(each, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                requests = key.fileobj
                if not isinstance(requests, socket.socket):
                    ready.unregister(key.fd)
                    pid, answer = running.pop(key.fd)
                    with suppress(BrokenPipeError):
                        os.write(answer, struct.pack("=q", os.waitpid(pid, 0)[1]))
                    os.close(answer)
                    os.close(key.fd)
                    continue
                if requests is listener:
                    ready.register(listener.accept()[0], selectors.EVENT_READ)
                    continue
                head, fds, _, _ = socket.recv_fds(requests, 8, 4)
                if not head:
                    if requests is first:
                        return None
                    ready.unregister(requests)
                    requests.close()
                    continue
                request = _whole(requests, struct.unpack("=Q", head)[0])
                pid = os.fork()
                if pid == 0:
                    for each in [key.fileobj for key in ready.get_map().values() if isinstance(key.fileobj, socket.socket)]:
                        each.detach()
                    ready.close()
                    return _become(request, fds)
                for fd in fds[:3]:
                    os.close(fd)
                with suppress(BrokenPipeError):
                    os.write(fds[3], struct.pack("=q", pid))
                end = os.pidfd_open(pid)
                running[end] = pid, fds[3]
                ready.register(end, selectors.EVENT_READ)


def _whole(requests: socket.socket, size: int) -> Any:
    data = b""
    while len(data) < size:
        data += requests.recv(size - len(data))
    return marshal.loads(data)


def _become(request: Any, fds: list[int]) -> list[str]:
    """Take on the streams, the environment and the directory of the call."""
    words, env, cwd, mask = request
    dies_with_us()
    for number, fd in enumerate(fds[:3]):
        os.dup2(fd, number)
    os.closerange(3, 1 << 16)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    os.umask(mask)
    os.chdir(cwd)
    return list(words)


def preload() -> None:
    """Import what commands need, and what a user may not be able to read where the interpreter is root's."""
    for name in ("encodings.ascii", "encodings.latin_1", "encodings.idna", "encodings.utf_8_sig", "tabulate", "sqlite_utils",
                 "prometheus_client"):
        with suppress(ImportError):
            import_module(name)
    for module in walk_packages(rogue_hunter.__path__, "rogue_hunter."):
        if "tui" not in module.name:    # textual takes long, and is seldom needed
            with suppress(ImportError):     # what is optional and not installed
                import_module(module.name)


def _main() -> None:
    preload()
    gc.collect()
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[2])
    listener.listen(50)
    os.write(1, b"1")
    words = _serve(socket.socket(fileno=int(sys.argv[1])), listener)
    if words is None:
        return
    if words[0] == ARENA:
        _namespace()
        finish(lambda: import_module("tests.reaper.inside").main(*words[1:]))
    command(words)


def command(words: Sequence[str]) -> NoReturn:
    """This process becomes `rh-WORD WORD...`."""
    sys.argv = ["rogue_hunter", *words]
    finish(main)


def finish(work: Callable[[], object]) -> NoReturn:
    """Do this and end, as Python does it, but for taking down each module, which would copy the template's memory."""
    code: object = 0
    try:
        work()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(code if isinstance(code, int) else code is not None)


def _namespace() -> None:
    """What `unshare --fork --pid --mount-proc --kill-child` does: the caller is the first process of a pid namespace, its
    parent passes its status on. Raises AssertionError."""
    libc = ctypes.CDLL(None)
    assert libc.unshare(0x20020000) == 0                                # CLONE_NEWPID, CLONE_NEWNS
    assert libc.mount(b"none", b"/", None, 0x44000, None) == 0          # MS_REC, MS_PRIVATE
    first = os.fork()
    if first:
        os._exit(min(255, abs(os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]))))
    dies_with_us()
    assert libc.mount(b"proc", b"/proc", b"proc", 0xE, None) == 0       # MS_NOSUID, MS_NODEV, MS_NOEXEC


if __name__ == "__main__":
    _main()
