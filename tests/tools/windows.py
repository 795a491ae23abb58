"""Windows of evidence made by hand: slices of a machine with two CPUs and 8 GiB, and processes in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rogue_hunter.verdict.model import Slice, Window

START = 1_795_000_000.0
MIB = 1 << 20
GIB = 1 << 30
BOOT = "b"


def process(pid: int, command: str, **fields: Any) -> dict[str, Any]:
    """A row of process_slice. `cores` and `delay` are per second, and become seconds in `slices`."""
    return {"boot_id": BOOT, "pid": pid, "start_ticks": 1000 + pid, "ppid": 900, "command": command,
            "cmdline": f"/usr/bin/{command}", "state": "running", **fields}


def machine(**fields: Any) -> dict[str, Any]:
    """A row of machine_slice of a quiet machine."""
    return {"boot_id": BOOT, "ticks": 15, "cpus": 2, "cpu_busy_cores": 0.1, "cpu_busy_cores_max": 0.2,
            "cpu_steal_cores": 0.0, "run_delay_ms_per_s": 5.0, "memory_total_bytes": 8 * GIB,
            "memory_available_bytes": 5 * GIB, "pressure_cpu_some_ms_per_s": 5.0, "pressure_memory_some_ms_per_s": 0.0,
            "pressure_memory_full_ms_per_s": 0.0, "pressure_io_some_ms_per_s": 0.0, "pressure_io_full_ms_per_s": 0.0,
            "disk_bytes": 0, "device_bytes": 0, "device_wait_ms": 0.5, "refaults": 0, "late_s": 0.01,
            "uninterruptible": 0, "self_cpu_percent": 1.0, **fields}


def one(index: int, rows: Sequence[dict[str, Any]], groups: Sequence[dict[str, Any]] = (), seconds: float = 5.0,
        **fields: Any) -> Slice:
    """A slice. Of the processes, `cores` and `delay` (per second) become seconds; what the machine's row needs of
    them is added up unless it is given."""
    made = []
    for row in rows:
        done = dict(row)
        for name, field in (("cores", "cpu_seconds"), ("child_cores", "children_cpu_seconds"),
                            ("delay", "run_delay_s"), ("stuck", "uninterruptible_s")):
            if name in done:
                done[field] = done.pop(name) * seconds
        made.append(done)
    busy = sum(r.get("cpu_seconds", 0) + r.get("children_cpu_seconds", 0) for r in made) / seconds
    moved = sum(r.get("disk_bytes", 0) for r in made)
    told = {"cpu_busy_cores": busy, "cpu_busy_cores_max": max(busy, fields.get("cpu_busy_cores", 0.0)),
            "run_delay_ms_per_s": 1000 * sum(r.get("run_delay_s", 0) for r in made) / seconds,
            "disk_bytes": moved, "device_bytes": moved, "seconds": seconds, **fields}
    start = START + 5 * index
    common = {"slice": start, "seconds": seconds}
    return Slice(start, seconds, {**common, **machine(**told)}, [{**common, **r} for r in made],
                 [{**common, "boot_id": BOOT, **g} for g in groups])


def window(*slices: Slice, **more: Any) -> Window:
    """A window over these slices."""
    return Window(slices[0].start if slices else START, slices[-1].end if slices else START + 5, slices, **more)


def repeat(count: int, rows: Sequence[dict[str, Any]], **fields: Any) -> list[Slice]:
    """The same slice `count` times."""
    return [one(index, rows, **fields) for index in range(count)]
