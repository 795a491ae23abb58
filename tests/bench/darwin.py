"""What the macOS sampler costs beside the kernel: its library calls and its own CPU time, idle and active.

    python -m tests.bench.darwin [--ticks N] [--json FILE]

A libproc that answers at once (instant.c) takes the kernel's part out: what is left is ctypes and Python. Each tick is
one `snapshot()` of DarwinHost, in CPU time of its thread, the median of many. The cost of an idle process is the slope
between two numbers of them; that of an active one what a tick with some active costs more, by each. Beside them: the bare
ctypes call that every process needs (a loop over it), below which nothing in Python can go, and the bytes that Python
took and gave back within an idle tick, for each process (tracemalloc; the snapshot's mapping of rows left out).
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from rogue_hunter.host.macos import abi
from rogue_hunter.host.macos.host import DarwinHost
from rogue_hunter.host.macos.libproc import Library
from tests.bench.build import BuildError, build_library
from tests.bench.words import number, table

SIZES = (1000, 5000)
ACTIVE_SHARE = 0.05
FIRST = 1000
FUNCTIONS = ("proc_listallpids", "proc_pid_rusage", "proc_pidinfo", "proc_pidpath", "others")
START_S = 1_700_000_000


class Instant:
    """The library, and a host on it. `running` of the processes run in each tick; when they are `denied`, all are another
    user's, of whom only little may be read."""

    def __init__(self, path: Path, processes: int, running: int, denied: bool = False) -> None:
        self.library = Library(str(path))
        self._handle = self.library.handle
        self._handle.instant_calls.restype = ctypes.c_long
        self._handle.instant_machine(processes, running, denied)
        rusage = abi.RUSAGE[-1](ri_user_time=24_000_000, ri_phys_footprint=1 << 24, ri_proc_start_abstime=1,
                                ri_instructions=10**9, ri_cycles=10**9, ri_energy_nj=10**9)
        self._template(-1, rusage, -1, abi.RUSAGE[-1].ri_user_time.offset)
        both = abi.ProcTaskAllInfo()
        both.pbsd.pbi_status, both.pbsd.pbi_uid, both.pbsd.pbi_comm = abi.SRUN, 501, b"Example"
        both.pbsd.pbi_start_tvsec, both.pbsd.e_tdev = START_S, 0xFFFFFFFF
        both.ptinfo.pti_threadnum = 4
        pid_at = abi.ProcBsdInfo.pbi_pid.offset
        self._template(abi.PROC_PIDTASKALLINFO, both, pid_at, -1)
        self._template(abi.PROC_PIDTBSDINFO, both.pbsd, pid_at, -1)
        short = abi.ProcBsdShortInfo(pbsi_status=abi.SRUN, pbsi_comm=b"Example")
        self._template(abi.PROC_PIDT_SHORTBSDINFO, short, abi.ProcBsdShortInfo.pbsi_pid.offset, -1)
        unique = abi.ProcUniqIdentifierInfo(p_uniqueid=1)
        self._template(abi.PROC_PIDUNIQIDENTIFIERINFO, unique, abi.ProcUniqIdentifierInfo.p_puniqueid.offset, -1)
        self.host = DarwinHost(self.library, mono=time.monotonic_ns, refresh_s=3600.0)

    def _template(self, flavor: int, made: ctypes.Structure, pid_at: int, cpu_at: int) -> None:
        self._handle.instant_template(flavor, ctypes.byref(made), ctypes.sizeof(made), pid_at, cpu_at)

    def tick(self) -> float:
        """Microseconds of CPU time of one snapshot."""
        self._handle.instant_tick()
        before = time.thread_time_ns()
        self.host.snapshot()
        return (time.thread_time_ns() - before) / 1000

    def settle(self) -> None:
        """Until the worker has read everything and no row changes any more."""
        for _ in range(4):
            self.host.snapshot()
            self.host._slow.wait(30)

    def calls(self) -> dict[str, int]:
        """Calls by function since the last reset."""
        return {name: int(self._handle.instant_calls(index)) for index, name in enumerate(FUNCTIONS)}

    def reset(self) -> None:
        """Count from here."""
        self._handle.instant_reset()


@dataclass(frozen=True, slots=True)
class Cell:
    """One machine: `us` is the median tick, `calls` those of one tick, `bytes_each` what was taken within an idle one."""

    processes: int
    active: int
    denied: bool
    us: float
    calls: dict[str, int]
    bytes_each: float


def measure(path: Path, processes: int, active: int, denied: bool, ticks: int) -> Cell:
    """One machine of so many processes."""
    made = Instant(path, processes, active, denied)
    try:
        made.settle()
        made.reset()
        made.tick()
        calls = made.calls()
        taken = _taken(made, processes)
        gc.collect()
        gc.disable()
        try:
            took = [made.tick() for _ in range(ticks)]
        finally:
            gc.enable()
        return Cell(processes, active, denied, median(took), calls, taken)
    finally:
        made.host.close()


def _taken(made: Instant, processes: int) -> float:
    """Bytes that a tick holds at its highest beyond what it began with, for each process."""
    tracemalloc.start()
    try:
        made.tick()
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        rows = sys.getsizeof(dict(made.host._rows))
        made.tick()
        _, peak = tracemalloc.get_traced_memory()
        return max(0, peak - before - rows) / processes
    finally:
        tracemalloc.stop()


def bare_call_us(path: Path, calls: int = 20_000) -> float:
    """One proc_pid_rusage through ctypes with everything at hand, the loop around it included."""
    made = Instant(path, 1000, 0)
    call, buffer = made.library.proc_pid_rusage, ctypes.create_string_buffer(1024)
    address = ctypes.addressof(buffer)
    took = []
    for _ in range(7):
        before = time.thread_time_ns()
        for pid in range(FIRST, FIRST + 1000):
            call(pid, 6, address)
        took.append((time.thread_time_ns() - before) / 1000 / 1000)
    made.host.close()
    return median(took)


@dataclass(frozen=True, slots=True)
class Outcome:
    """`idle_us`, `denied_us` (another user's, at rest) and `active_us` are for each process."""

    cells: tuple[Cell, ...]
    bare_us: float
    idle_us: float
    denied_us: float
    active_us: float


def outcome(path: Path, ticks: int) -> Outcome:
    """All machines."""
    kinds = [(size, active, denied) for size in SIZES
             for active, denied in ((0, False), (round(size * ACTIVE_SHARE), False), (0, True))]
    cells = [measure(path, size, active, denied, ticks) for size, active, denied in kinds]
    by = {(cell.processes, cell.active, cell.denied): cell.us for cell in cells}
    few, many = SIZES
    running = round(many * ACTIVE_SHARE)
    idle, denied = ((by[many, 0, kind] - by[few, 0, kind]) / (many - few) for kind in (False, True))
    return Outcome(tuple(cells), bare_call_us(path), idle, denied,
                   (by[many, running, False] - by[many, 0, False]) / running)


def text(found: Outcome) -> str:
    """The table."""
    cells = [("processes", "active", "another's", "us a tick", "library calls", "of these", "bytes taken each")]
    for cell in found.cells:
        of_these = ", ".join(f"{name} {calls:,}" for name, calls in cell.calls.items() if calls)
        cells.append((f"{cell.processes:,}", f"{cell.active:,}", "all" if cell.denied else "0", f"{cell.us:,.0f}", f"{sum(cell.calls.values()):,}",
                      of_these, number(cell.bytes_each)))
    return "\n".join([
        *table(cells), "",
        f"us for each process: idle {found.idle_us:.2f} (a bare ctypes call {found.bare_us:.2f}), "
        f"another user's {found.denied_us:.2f}, active {found.active_us:.1f} more",
    ]) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table. Exit status: 0, 69 without a C compiler."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.darwin", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=100, help="ticks of each machine (100)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="rh-bench-") as directory:
        try:
            path = build_library(Path(directory), "instant")
        except BuildError as error:
            print(error, file=sys.stderr)
            return 69
        found = outcome(path, options.ticks)
    if options.json:
        options.json.write_text(json.dumps(asdict(found), indent=1) + "\n")
    print(text(found), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
