"""The stacks of one process over some seconds, now."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

from rogue_hunter.host.linux.parse import parse_stat
from rogue_hunter.recorder.decode import collapsed, decode
from rogue_hunter.recorder.perf import Job, Kernel, Rings, open_rings
from rogue_hunter.recorder.stage import threads_of
from rogue_hunter.recorder.symbols import exe_of, record_command
from rogue_hunter.sampling.naming import name_of
from rogue_hunter.stream.tick import Record, record
from rogue_hunter.text.errors import UNAVAILABLE, RogueHunterError

HZ = 99
"""Samples a second of CPU time: a profile is short."""
CHUNK_S = 4.0
"""Between two copies of the rings: at 99 Hz a busy CPU fills one in 6 s."""


class ProfileError(RogueHunterError):
    """No profile can be made; the text says why."""

    code = UNAVAILABLE


def profile(pid: int, seconds: float, *, sleep: Callable[[float], object] = time.sleep, kernel: Kernel | None = None,
            run: Callable[[list[str], float], bytes] | None = None) -> list[Record]:
    """The `stack` records of a process, most samples first. Raises ProfileError.

    A Python process is asked by py-spy where that is installed, so that the frames are those of its functions.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            start = parse_stat(file.read()).start
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(4096).rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "backslashreplace")
        with open(f"/proc/{pid}/comm", "rb") as file:
            comm = file.read().decode("utf-8", "backslashreplace").rstrip("\n")
    except (OSError, ValueError):
        raise ProfileError(f"{pid}: no such process") from None
    exe = exe_of(pid)
    name = name_of({"command": comm, "exe": exe, "cmdline": words})
    spy = record_command(pid, exe, seconds, HZ)
    if spy is not None and (made := _by_py_spy((run or _run)(spy, seconds + 10), pid, start, name)):
        return made
    rings = _rings(kernel)
    try:
        if not rings.attach(pid, threads_of(pid)):
            raise ProfileError(f"{pid}: no permission to record this process (perf_event_open)")
        begin, left, copies = time.monotonic_ns(), seconds, []
        while left > 0:  # a ring holds some seconds
            sleep(min(left, CHUNK_S))
            left -= CHUNK_S
            copies += rings.copies()
        job = Job({}, begin, time.monotonic_ns(), HZ, tuple(copies), {pid: (start, name, exe)}, shares=False)
    finally:
        rings.close()
    return decode(job)


def _rings(kernel: Kernel | None) -> Rings:
    try:
        return Rings(HZ, mode="own", kernel=kernel)
    except OSError:
        _, why = open_rings(HZ, kernel)
        raise ProfileError(f"cannot record stacks: {why}") from None


def _by_py_spy(output: bytes, pid: int, start: int, name: str) -> list[Record]:
    """The records of collapsed stacks; none if there is no sample."""
    found = []
    for line in output.decode("utf-8", "backslashreplace").splitlines():
        stack, _, count = line.rpartition(" ")
        if stack and count.isascii() and count.isdecimal() and not stack.startswith("py-spy>"):
            found.append((int(count), stack.split(";")))
    total = sum(count for count, _ in found)
    return [record("stack", pid=pid, start_ticks=start, command=name, samples=count, share=round(count / total, 4),
                   stack=collapsed([name, *frames]), note="by py-spy")
            for count, frames in sorted(found, key=lambda pair: -pair[0]) if total]


def _run(argv: list[str], seconds: float) -> bytes:
    try:
        return subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              timeout=seconds, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return b""
