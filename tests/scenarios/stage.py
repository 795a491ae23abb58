"""Where a scenario plays: starts its programs, makes its control groups, and takes all of it down by its own ids."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from rogue_hunter.host.linux.cgroups import parse_mounts
from tests.tools.processes import dies_with_us


class Missing(Exception):
    """The machine lacks what a scenario needs: a program, a control group, a device, root."""


class Stage:
    """One scenario's programs and control groups. `directory` holds its files; on a disk, not in memory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._children: list[subprocess.Popen[bytes]] = []
        self._groups: list[Path] = []
        self._undo: list[list[str]] = []

    def start(self, *argv: str | Path, group: Path | None = None, cpus: set[int] | None = None, nice: int = 0,
              user: int | None = None, fifo: int = 0, rr: int = 0) -> subprocess.Popen[bytes]:
        """Start a program: in a control group, on some CPUs, at a nice value, as another user, at a real-time priority."""
        if shutil.which(str(argv[0])) is None:
            raise Missing(f"no {argv[0]}")

        def prepare() -> None:
            os.setsid()
            dies_with_us()
            if group is not None:
                (group / "cgroup.procs").write_text(str(os.getpid()))
            if cpus is not None:
                os.sched_setaffinity(0, cpus)
            if nice:
                os.nice(nice)
            if fifo or rr:
                os.sched_setscheduler(0, os.SCHED_FIFO if fifo else os.SCHED_RR, os.sched_param(fifo or rr))
            if user is not None:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)

        child = subprocess.Popen([str(word) for word in argv], cwd=self.directory, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=prepare)  # noqa: PLW1509
        self._children.append(child)
        return child

    def script(self, name: str, code: str) -> Path:
        """Write a script that everybody may read."""
        file = self.directory / name
        file.write_text(code)
        file.chmod(0o755)
        return file

    def python(self, name: str, code: str, *args: str | Path, **options: object) -> subprocess.Popen[bytes]:
        """Start a Python script of this name."""
        return self.start(sys.executable, self.script(name, code), *args, **options)  # type: ignore[arg-type]

    def sh(self, name: str, code: str, *args: str | Path, **options: object) -> subprocess.Popen[bytes]:
        """Start a shell script of this name."""
        return self.start("/bin/sh", self.script(name, code), *args, **options)     # type: ignore[arg-type]

    def stop_before_clients(self, server: subprocess.Popen[bytes], connect: str) -> None:
        """Stop a server that echoes while three clients ask it; `connect` is Python that gives a client's socket `s`."""
        time.sleep(1)
        for _ in range(3):
            self.python("client.py", f"import socket, time\ns = {connect}\n"
                        "while True:\n s.sendall(b'x')\n s.recv(9)\n time.sleep(0.05)\n")
        time.sleep(1)
        os.kill(server.pid, signal.SIGSTOP)

    def program(self, name: str, code: str) -> Path:
        """Compile a C program."""
        source = self.directory / f"{name}.c"
        source.write_text(code)
        done = subprocess.run(["cc", "-O1", "-pthread", "-o", str(self.directory / name), str(source)],
                              capture_output=True, check=False, timeout=60)
        if done.returncode:
            raise Missing(f"cc: {done.stderr.decode(errors='replace')[:200]}")
        return self.directory / name

    def group(self, controller: str, name: str, **files: str | int) -> Path:
        """A control group of version 1, or of version 2 for the controller "", with these files written (`__` in a name
        is a point)."""
        place = parse_mounts(Path("/proc/self/mountinfo").read_bytes()).get(controller)
        if place is None:
            raise Missing(f"no control groups with {controller or 'version 2'}")
        group = place / name
        try:
            group.mkdir(parents=True, exist_ok=True)
            self._groups.append(group)
            for file, text in files.items():
                (group / file.replace("__", ".")).write_text(str(text))
        except OSError as error:
            raise Missing(f"{group}: {error.strerror}") from None
        return group

    def run(self, *argv: str | Path, undo: list[str] | None = None) -> bytes:
        """Run a command of the set-up to its end; `undo` is run when the scenario is taken down."""
        if undo:
            self._undo.append(undo)
        try:
            done = subprocess.run([str(word) for word in argv], capture_output=True, check=False, timeout=60, cwd=self.directory)
        except OSError as error:
            raise Missing(f"{argv[0]}: {error.strerror}") from None
        if done.returncode:
            raise Missing(f"{argv[0]}: {done.stderr.decode(errors='replace').strip()[:200]}")
        return done.stdout

    def device(self) -> str:
        """major:minor of the disk that `directory` lies on, for limits of blkio."""
        status = self.directory.stat()
        name = os.path.realpath(f"/sys/dev/block/{os.major(status.st_dev)}:{os.minor(status.st_dev)}")
        if os.path.exists(f"{name}/partition"):
            name = os.path.dirname(name)
        try:
            return Path(name, "dev").read_text().strip()
        except OSError:
            raise Missing("the directory lies on no block device") from None

    def close(self) -> None:
        """End everything that was started, with its descendants, and remove the control groups."""
        for group in self._groups:      # a frozen process of cgroup v1 does not take a signal, SIGKILL either
            for file, word in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
                with suppress(OSError):
                    if (group / file).exists():
                        (group / file).write_text(word)
        for child in self._children:
            for pids in (self._descendants(child.pid), [child.pid]):
                for pid in pids:
                    with suppress(OSError):
                        os.kill(pid, signal.SIGCONT)
                        os.kill(pid, signal.SIGKILL)
        for undo in reversed(self._undo):       # what waits for a frozen file system ends when that is thawed
            subprocess.run(undo, capture_output=True, check=False, timeout=60)
        for child in self._children:
            child.wait(30)
        for group in reversed(self._groups):
            for _ in range(100):
                with suppress(OSError):
                    for pid in (group / "cgroup.procs").read_text().split():
                        os.kill(int(pid), signal.SIGKILL)
                try:
                    group.rmdir()
                    break
                except OSError:
                    time.sleep(0.05)

    def _descendants(self, pid: int) -> list[int]:
        """Members of the session that a child of ours leads, and their children."""
        found: list[int] = []
        parents: dict[int, list[int]] = {}
        for name in os.listdir("/proc"):
            if name.isdigit():
                with suppress(OSError, IndexError, ValueError):
                    stat = Path("/proc", name, "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
                    parents.setdefault(int(stat[1]), []).append(int(name))
                    if int(stat[3]) == pid and int(name) != pid:
                        found.append(int(name))
        left = [pid]
        while left:
            for child in parents.get(left.pop(), []):
                if child not in found:
                    found.append(child)
                left.append(child)
        return found
