"""Softer than ending a process: a lower priority; a stop, or a frozen control group, that ends by itself.

What ends a stop or a freeze is a process of its own, which is started first: it does so even if rogue-hunter is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path

from rogue_hunter.host.linux import cgroups
from rogue_hunter.reaper.process import Gone, Guard, Handle, Live, Veto
from rogue_hunter.rules.model import Action

DONE = {"renice": "reniced", "stop": "stopped", "freeze": "frozen"}
"""Remedy -> the outcome of an action record."""

MEMBERS_MAX = 200
"""Processes of a control group that is frozen; each is checked by the guards."""

READY_S = 5.0
"""Seconds within which the process that ends a stop must have started."""

_KEEPER = """
import os, select, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
kind, target, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
os.write(1, b"r")
poll = select.poll()
if kind == "stop":
    poll.register(int(target), select.POLLIN)
    poll.poll(seconds * 1000)
    try:
        signal.pidfd_send_signal(int(target), signal.SIGCONT)
    except ProcessLookupError:
        pass
else:
    poll.poll(seconds * 1000)
    with open(target, "w") as file:
        file.write("0")
"""
"""The process that ends a stop or a freeze: the kind, a descriptor or a file, seconds."""

Place = Callable[[int], tuple[Path, str] | None]
"""(pid) -> where the tree of cgroup v2 is mounted, and the path of the process's control group in it; None without."""

Keep = Callable[[str, str, float, tuple[int, ...]], None]
"""(kind, descriptor or file, seconds, descriptors to inherit). Starts it and returns once it waits. Raises Veto."""


def keeper(kind: str, target: str, seconds: float, fds: tuple[int, ...] = ()) -> None:
    """Start the process that ends a stop or a freeze. Raises Veto if it does not start."""
    try:
        child = subprocess.Popen([sys.executable, "-I", "-S", "-c", _KEEPER, kind, target, str(seconds)],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                 pass_fds=fds, start_new_session=True, cwd="/", env={"PATH": "/usr/bin:/bin"})
    except OSError as error:
        raise Veto("refused", f"what would end it again cannot be started: {error.strerror}") from None
    timer = threading.Timer(READY_S, child.kill)
    timer.start()
    with child.stdout or nullcontext() as out:
        ready = out.read(1) if out is not None else b""
    timer.cancel()
    threading.Thread(target=child.wait, name="keeper", daemon=True).start()
    if ready != b"r":
        raise Veto("refused", "what would end it again did not start")


def apply(action: Action, live: Live, handle: Handle, guard: Guard, protected: Callable[[int], str | None], *,
          keep: Keep = keeper, place: Place | None = None) -> tuple[str, str]:
    """Do it; the outcome and a text. `protected(pid)` says why another process must not be touched, None if it may.

    Raises Veto, Gone, PermissionError.
    """
    if action.type == "renice":
        return _renice(live, handle, guard, action.nice)
    if action.type == "stop":
        return _stop(live, handle, guard, action.seconds, keep)
    return _freeze(live, guard, protected, action.seconds, keep, place or placed)


def _renice(live: Live, handle: Handle, guard: Guard, nice: int) -> tuple[str, str]:
    """All threads that there are now; later ones inherit it. The pid is that of the handle as long as it lives, so it
    is looked at afterwards: while a process is not collected by its parent, its pid is not given to another one."""
    now = os.getpriority(os.PRIO_PROCESS, live.pid)
    if now >= nice:
        return "spared", f"its nice value is {now} already"
    guard(0)
    for tid in _threads(live.pid):
        with suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, tid, nice)
    if handle.gone():
        raise Gone
    return "reniced", f"nice {now} to {nice}"


def _threads(pid: int) -> list[int]:
    """The threads of a process; only the process itself where there is no /proc."""
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except FileNotFoundError:
        return [pid]


def _stop(live: Live, handle: Handle, guard: Guard, seconds: float, keep: Keep) -> tuple[str, str]:
    if live.row.get("state") == "stopped":
        return "spared", "it is stopped already, and is not continued"     # by a person or a debugger
    fd = handle.fileno()
    if fd < 0:
        raise Veto("refused", "a stop needs a pidfd")
    keep("stop", str(fd), seconds, (fd,))
    guard(signal.SIGSTOP)
    handle.send(signal.SIGSTOP)
    return "stopped", f"it continues in {seconds:g} s"


def _freeze(live: Live, guard: Guard, protected: Callable[[int], str | None], seconds: float, keep: Keep,
            place: Place) -> tuple[str, str]:
    """Every process of the group is checked: the group of a terminal holds the shell too. The group is the one of
    version 2 in which the process is now; a row of rh-sample may hold that of version 1, whose path means another."""
    root, name = place(live.pid) or (Path(), "")
    name = name.strip("/")
    group = root / name
    switch = group / "cgroup.freeze"
    if not name or ".." in name.split("/") or not os.access(switch, os.W_OK):
        raise Veto("refused", "its control group cannot be frozen: that needs a group of its own in cgroup v2 that "
                              "this user may write to")
    members = list(_members(group))
    if live.pid not in members:
        raise Gone
    if switch.read_text().strip() == "1":
        return "spared", f"control group {name} is frozen already, and is not continued"
    for count, pid in enumerate(members, 1):
        # The kernel gives 0 for a process of another pid namespace.
        why = protected(pid) if pid else "it cannot be seen from this pid namespace"
        if why is not None or count > MEMBERS_MAX:
            raise Veto("refused", f"process {pid} of its control group must not be frozen: {why}" if why else
                       f"its control group has more than {MEMBERS_MAX} processes")
    keep("freeze", str(switch), seconds, ())
    guard(0)
    switch.write_text("1")
    return "frozen", f"control group {name}; it continues in {seconds:g} s"


def placed(pid: int) -> tuple[Path, str] | None:
    """Where it is, from /proc: on a machine with both versions, version 2 is not mounted at the usual place."""
    try:
        root = cgroups.parse_mounts(Path("/proc/self/mountinfo").read_bytes()).get("")
        name = cgroups.parse_cgroup(Path(f"/proc/{pid}/cgroup").read_bytes()).get("")
    except OSError:
        return None
    return None if root is None or name is None else (root, name)


def _members(group: Path) -> Iterator[int]:
    for folder, _, _ in os.walk(group):
        with suppress(FileNotFoundError):
            yield from map(int, (Path(folder) / "cgroup.procs").read_text().split())
