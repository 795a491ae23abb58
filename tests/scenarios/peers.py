"""What the usual tools show during a scenario: top, atop, pidstat -d, and an expert's reading of all of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

PEERS = ("top", "atop", "pidstat", "expert")
_COMMANDS: Mapping[str, tuple[str, ...]] = {
    "top": ("top", "-b", "-c", "-w", "300", "-d", "3", "-n", "2"),
    "atop": ("atop", "-P", "PRC,PRD,CPU,DSK,PRG", "3", "2"),
    "pidstat": ("pidstat", "-d", "-l", "-h", "3", "1"),
    "ps": ("ps", "-eo", "pid=,stat=,args="),
}
WAITING = 25.0
"""Percent of the time in which the CPUs waited for storage, from which an expert looks at the disk."""
BUSY = 40.0
"""Percent of a core from which an expert takes a process for the cause."""
SLOW_DISK = 60.0
"""Percent of the time in which a disk was in use, from which atop marks it."""

_TOP = re.compile(r"^\s*([0-9]+) .* ([0-9]+[.,][0-9]) +[0-9.,]+ +[0-9:.]+ (.*)$")
_WA = re.compile(r"([0-9]+[.,][0-9]+)\s*wa")


@dataclass(slots=True)
class Reading:
    """The answer of a tool: command lines, the likeliest first, and the cause that it stands for."""

    commands: list[str] = field(default_factory=list)
    cause: str | None = None


class Peers:
    """The tools, started together; `read` waits for them. Their output goes to files: a full pipe would stop them."""

    def __init__(self, directory: Path) -> None:
        self._files = {name: directory / f"peer.{name}" for name in _COMMANDS}
        self._running = {name: subprocess.Popen(argv, stdout=self._files[name].open("wb"), stderr=subprocess.DEVNULL)
                         for name, argv in _COMMANDS.items() if shutil.which(argv[0])}

    def read(self, ours: set[int]) -> dict[str, Reading]:
        """What each tool that is installed says; processes of `ours` are left out."""
        said: dict[str, str] = {}
        for name, process in self._running.items():
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
                said[name] = self._files[name].read_text("utf-8", "replace")
            process.kill()
            process.wait()
        found = {}
        if "top" in said:
            found["top"] = top_reading(said["top"], ours)
        if "atop" in said:
            found["atop"] = atop_reading(said["atop"], ours)
        if "pidstat" in said:
            found["pidstat"] = pidstat_reading(said["pidstat"], ours)
        if "top" in said:
            found["expert"] = expert(said["top"], found, said.get("ps", ""), ours)
        return found


def top_rows(output: str, ours: set[int]) -> list[tuple[float, str]]:
    """%CPU and command line of the last screen of `top -b -c`, the busiest first, without our own processes."""
    screen = output.rpartition("PID USER")[2].splitlines()[1:]
    found = []
    for line in screen:
        match = _TOP.match(line)
        if match and int(match[1]) not in ours and float(match[2].replace(",", ".")) > 3 and not match[3].startswith(
                ("top ", "atop ", "pidstat ")):
            found.append((float(match[2].replace(",", ".")), match[3]))
    return found


def top_reading(output: str, ours: set[int]) -> Reading:
    """The first row of top is to blame, for the CPU."""
    rows = top_rows(output, ours)
    return Reading([command for _, command in rows], "cpu" if rows else None)


def atop_reading(output: str, ours: set[int]) -> Reading:
    """The first process of the resource that atop marks: the disk if one is busy, else the CPU."""
    last = output.rpartition("SEP\n")[0].rpartition("SEP\n")[2] or output
    names: dict[int, str] = {}
    cpu: dict[int, float] = {}
    disk: dict[int, float] = {}
    busy = 0.0
    for line in last.splitlines():
        label, _, rest = line.partition(" ")
        with suppress(ValueError, IndexError):
            # Before the values: host, epoch, date, time, seconds; of processes the pid and the name in parentheses.
            head, _, tail = rest.partition("(")
            name, _, after = tail.partition(") ")
            if label == "DSK":
                values = rest.split()
                busy = max(busy, float(values[6]) / (10 * float(values[4])))
            elif label in ("PRC", "PRD", "PRG"):
                pid, values = int(head.split()[-1]), after.split()
                if pid in ours:
                    continue
                if label == "PRG":
                    line_of = re.search(r"\((.*)\)", after)
                    names[pid] = f"{name} {line_of[1] if line_of else ''}"
                elif label == "PRC":
                    cpu[pid] = float(values[2]) + float(values[3])
                else:
                    disk[pid] = float(values[4]) + float(values[6])
    cause, used = ("io", disk) if busy >= SLOW_DISK and any(disk.values()) else ("cpu", cpu)
    ranked = [names.get(pid, str(pid)) for pid, much in sorted(used.items(), key=lambda pair: -pair[1]) if much > 9]
    return Reading(ranked, cause if ranked else None)


def pidstat_reading(output: str, ours: set[int]) -> Reading:
    """The process that moved most, for the disk."""
    found = []
    for line in output.splitlines():
        values = line.split(None, 7)
        with suppress(ValueError, IndexError):
            if values[0] != "#" and int(values[2]) not in ours:
                found.append((float(values[3]) + float(values[4]), values[7]))
    found = sorted((one for one in found if one[0] > 100), key=lambda one: -one[0])
    return Reading([command for _, command in found], "io" if found else None)


def expert(top: str, said: Mapping[str, Reading], ps: str, ours: set[int]) -> Reading:
    """An operator who looks at %wa, then at the first of pidstat -d or of top, then at processes in state D."""
    waits = [float(one.replace(",", ".")) for one in _WA.findall(top)]
    disk = said.get("pidstat", Reading())
    if waits and waits[-1] >= WAITING and disk.commands:
        return Reading(disk.commands, "io")
    busy = [command for percent, command in top_rows(top, ours) if percent >= BUSY]
    if busy:
        return Reading(busy, "cpu")
    stuck = [line.split(None, 2)[2] for line in ps.splitlines()
             if len(line.split(None, 2)) == 3 and line.split()[1].startswith("D") and int(line.split()[0]) not in ours]
    return Reading(stuck, "io") if stuck else Reading()
