"""Numbers and tables for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tests.bench.report import FLOOR, OURS, Document, Spread


def number(value: float | None) -> str:
    """Three significant digits, never an exponent; a dash for what is not known."""
    if value is None or math.isnan(value):
        return "-"
    digits = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def span(spread: Spread | None, unit: str = "") -> str:
    """`median (least to most)`; one value alone stands alone."""
    if spread is None:
        return "-"
    if spread.count == 1:
        return f"{number(spread.median)}{unit}"
    return f"{number(spread.median)}{unit} ({number(spread.low)} to {number(spread.high)})"


def table(cells: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table whose source lines up, too; the first row is its head, the first column its labels."""
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = ["| " + " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) + " |" for row in cells]
    rule = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return [lines[0], rule, *lines[1:]]


HEAD = ("", "CPU ms a tick", "p99", "% of a core", "x floor", "x rh-pipe", "RSS MB", "syscalls a tick")


def rows(load: dict[str, Any], hz: float) -> list[tuple[str, ...]]:
    """One row of the table for each subject, in the order in which they were asked for."""
    out: list[tuple[str, ...]] = []
    for name, found in load["subjects"].items():
        ms, held = (Spread.from_document(found[key]) for key in ("cpu_ms_per_tick", "memory_bytes"))
        floor, ours = (Spread.from_document(found[key]) for key in ("times_floor", "times_rh_pipe"))
        out.append((
            name, span(ms), number(found["tick_cpu_ms_p99"]), number(ms.median * hz / 10 if ms else None),
            "1" if name == FLOOR else span(floor), "1" if name == OURS else span(ours),
            number(held.median / 1e6 if held else None), number(found["syscalls_per_tick"]),
        ))
    return out


def machine(made: Document) -> str:
    """The machine and the day, with nothing that names it."""
    where = made["machine"]
    held = f", {where['memory_bytes'] / 2**30:.0f} GiB" if where["memory_bytes"] else ""
    return (f"{where['cpu']}, {where['cpus']} CPUs{held}, Linux {where['kernel']}, Python {where['python']}, "
            f"{made['day']}")


def busy(made: Document) -> str:
    """A warning when others used the machine; empty when it was quiet.

    The load average before the run is of others alone; later it holds what the run itself does.
    """
    before, others = made["load_average"].get("before", 0.0), made["other_cores"]
    if before <= BUSY_LOAD and (others or 0.0) <= BUSY_CORES:
        return ""
    kept = f", others kept {number(others)} of {made['machine']['cpus']} CPUs busy meanwhile" if others else ""
    return (f"NOT QUIET: load average {before:.2f} before the run{kept}. CPU time and its ratios suffer a little by it, "
            "wall time, lateness and start-up much: do not quote them.")


BUSY_LOAD, BUSY_CORES = 0.5, 0.1


def markdown(made: Document) -> str:
    """The tables, one for each load, with the machine they come from and what could not be measured."""
    settings = made["settings"]
    hz = float(settings["hz"])
    lines = [
        f"{machine(made)}; {hz:g} Hz, {settings['rounds']} rounds of {settings['seconds']:g} s each in turns. Median "
        "(least to most); ratios are taken within a round. % of a core: at the beat's rate, also for those that cannot "
        "run at it. " + ("Seen: the load, the subject and the benchmark." if settings["alone"]
                         else "Seen: the whole machine."),
    ]
    lines += ["", warning] if (warning := busy(made)) else []
    for load in made["loads"]:
        lines += ["", f"**{load['name']}** ({load['processes']:,} processes seen)", ""]
        lines += table([HEAD, *rows(load, hz)])
        lines += ["", heard(load["beats"])] if load["beats"] else []
        lines += [f"\n{name}: failed: {reason}" for name, reason in load["failed"].items()]
    if made["start_up"]:
        cells = [("from start to end", "ms", "ms on a CPU")]
        cells += [(name, *(span(Spread.from_document(found[key])) for key in ("wall_ms", "cpu_ms")))
                  for name, found in made["start_up"].items()]
        lines += ["", *table(cells)]
    if slope := made["slope"]:
        lines += ["", f"Memory in {slope['ticks']:,} ticks, behind the warm-up: {slope['mb_per_100k_ticks']:+.3f} MB for "
                  f"100,000 ticks ({slope['first_mb']} to {slope['last_mb']} MB)."]
    if made["missing"]:
        lines += ["", "Missing: " + "; ".join(f"{name} ({why})" for name, why in made["missing"].items()) + "."]
    if made["left_out"]:
        lines += ["", f"Left out, because the time was up: {len(made['left_out'])} turns, of which the first was "
                  f"{made['left_out'][0]}. --json names all."]
    return "\n".join(lines) + "\n"


def heard(beats: dict[str, Any]) -> str:
    """A sentence on rh-pipe's beat, and whom it named."""
    said = (f"{OURS}'s beat over {beats['ticks']} ticks: late by {number(beats['late_ms_p50'])} ms, p99 "
            f"{number(beats['late_ms_p99'])}, at most {number(beats['late_ms_max'])}; a tick took "
            f"{number(beats['took_ms_p50'])} ms on the wall, p99 {number(beats['took_ms_p99'])}, at most "
            f"{number(beats['took_ms_max'])}.")
    if beats["leader"]:
        said += f" Highest score: {beats['leader']}, in {beats['leader_ticks']} of them."
    if beats["reported"]:
        said += f" `rh-report why` names {beats['reported']}."
    return said
