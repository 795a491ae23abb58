"""What does not change while the machine is up, and the clock that start times count in."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

from rogue_hunter.host.linux.machine import Machine
from rogue_hunter.host.protocol import Facts, HostError


def read_facts(machine: Machine, root: Path, live: bool) -> tuple[Facts, float]:
    """Facts, and the epoch seconds of the boot. Raises HostError when there is no such tree, or nothing is in it."""
    if not os.path.isdir(root):
        raise HostError(f"{root}: not a directory")
    cpu, memory = machine.cpu(whole=True), machine.memory()
    if cpu is None and memory is None and not _has_processes(root):
        raise HostError(f"{root}: holds no processes; is /proc mounted?")
    boot_id = machine.read("sys/kernel/random/boot_id", 64)
    name = machine.read("sys/kernel/hostname", 256)
    facts = Facts("linux", name.decode("utf-8", "backslashreplace").strip() if name else platform.node(),
                  boot_id.decode("ascii", "replace").strip() if boot_id else "unknown",
                  cpu.cpus if cpu else os.cpu_count() or 1, memory[0] if memory else 0)
    if live:
        return facts, time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return facts, float(cpu.boot_time) if cpu and cpu.boot_time else 0.0


def _has_processes(root: Path) -> bool:
    """False for a directory that can be listed and in which no process stands."""
    try:
        return any(name.isdigit() for name in os.listdir(root))
    except OSError:
        return True  # each reading says that


def uptime(machine: Machine, live: bool) -> Callable[[], float]:
    """Seconds since the boot: CLOCK_BOOTTIME, or what a recorded tree says."""
    if live:
        return lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
    return lambda: _recorded_uptime(machine)


def _recorded_uptime(machine: Machine) -> float:
    data = machine.read("uptime", 64)
    try:
        return float(data.split()[0]) if data else 0.0
    except ValueError:
        return 0.0


def own_namespace(root: Path) -> bool:
    """True when the tree shows the pid namespace that this process is in."""
    try:
        return os.readlink(root / "self") == str(os.getpid())
    except OSError:
        return False
