"""The figures on cost: a block of four lines in README.md and one of tables in tests/bench/README.md.

Both stand between two marker comments and are made from the document of a run. The document (`overhead.json`) and the
chart (`cost.svg`) are kept beside this file, so that the figures can be made again and a test finds stale ones.
"""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import wrap
from typing import Any

from tests.bench import chart, goals
from tests.bench.build import HERE, REPO
from tests.bench.report import FLOOR, FLOOR_CLOCK, OURS, Document, Spread, of_kind
from tests.bench.words import busy, machine, number, span, table

README = REPO / "README.md"
TABLES = HERE / "README.md"
DOCUMENT = HERE / "overhead.json"
CHART = HERE / "cost.svg"
BEGIN, END = (f"<!-- {word} overhead (python -m tests.bench --readme) -->" for word in ("begin", "end"))


class ReadmeError(Exception):
    """A page lacks the markers."""


def fill(text: str) -> str:
    """A paragraph in lines of 120 at most."""
    return "\n".join(wrap(text, 120, break_on_hyphens=False))


def summary(made: Document) -> str:
    """The block of README.md: at most four lines, and the chart."""
    hz = float(made["settings"]["hz"])
    lines: list[str] = []
    if main := of_kind(made, "idle", 1000):
        found = main["subjects"]
        if own := found.get(OURS):
            ms, held = Spread.from_document(own["cpu_ms_per_tick"]), Spread.from_document(own["memory_bytes"])
            others = [(name, Spread.from_document(one["times_rh_pipe"])) for name, one in found.items()
                      if name not in (OURS, *FLOORS)]
            times = ", ".join(f"`{name}` {number(spread.median)}" for name, spread in others if spread)
            if ms and held:
                lines.append(f"- 1,000 idle processes at {hz:g} Hz: {number(ms.median)} ms of CPU time a tick "
                             f"({number(ms.median * hz / 10)} % of a core), {number(held.median / 1e6)} MB.")
            if times:
                lines.append(f"- CPU time of others for the same, as a multiple: {times}.")
    rows = [(load["name"], Spread.from_document(load["subjects"][OURS]["cpu_ms_per_tick"]))
            for load in made["loads"] if OURS in load["subjects"] and load is not main]
    if more := "; ".join(f"{name}, {number(spread.median)} ms" for name, spread in rows if spread):
        lines.append(f"- Other loads: {more}.")
    lines.append(f"- {machine(made)}. [All figures]({TABLES.relative_to(REPO).as_posix()}).")
    shown = "\n".join(fill_item(line) for line in lines)
    if chart.lines_of(made):
        shown += f"\n\n![CPU time a tick against the number of processes]({CHART.relative_to(REPO).as_posix()})"
    return shown + "\n"


def fill_item(text: str) -> str:
    """A list item in lines of 120 at most."""
    return "\n".join(wrap(text, 120, break_on_hyphens=False, subsequent_indent="  "))


def block(made: Document) -> str:
    """The block of tests/bench/README.md: conditions, tables, chart, goals."""
    settings, hz = made["settings"], float(made["settings"]["hz"])
    parts = [fill(
        f"Whole processes at {hz:g} Hz, in turns within one run of {made['took_s'] / 60:.0f} minutes, up to "
        f"{settings['rounds']} rounds of {settings['seconds']:g} s; median, and in brackets the least and the most of "
        "the rounds. Ratios are taken within a round. The floor is a C program that reads each process's file in /proc, in "
        "full if it ran, and does nothing else; floor-clock asks for its CPU clock instead of the file, as rh-pipe does. "
        f"{machine(made)}.")]
    if warning := busy(made):
        parts.append(fill(warning))
    if main := of_kind(made, "idle", 1000):
        parts.append("\n".join(table([MAIN_HEAD, *_all(main, hz)])))
        parts.append("`rh-pipe` alone, on other loads:")
        parts.append("\n".join(table([OURS_HEAD, *filter(None, (_ours(load) for load in made["loads"]))])))
    if chart.lines_of(made):
        parts.append(f"![CPU time a tick against the number of processes]({CHART.name})")
    parts += [fill(sentence) for sentence in (_start_up(made), _growth(made), _goals(made), _missing(made)) if sentence]
    return "\n\n".join(parts) + "\n"


FLOORS = (FLOOR, FLOOR_CLOCK)
MAIN_HEAD = ("1,000 idle processes", "CPU ms a tick", "% of a core", "x floor", "x rh-pipe", "RSS MB",
             "system calls a tick")
OURS_HEAD = ("load", "CPU ms a tick", "x floor", "slowest 1 % of ticks", "latest beat", "RSS MB", "system calls a tick")


def _all(load: dict[str, Any], hz: float) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, found in load["subjects"].items():
        ms, floor, ours, held = (Spread.from_document(found[key]) for key in (
            "cpu_ms_per_tick", "times_floor", "times_rh_pipe", "memory_bytes"))
        if ms and held:
            rows.append((name, span(ms), number(ms.median * hz / 10), span(floor) if name != "floor" else "1",
                         span(ours) if name != OURS else "1", number(held.median / 1e6),
                         number(found["syscalls_per_tick"])))
    return rows


def _ours(load: dict[str, Any]) -> tuple[str, ...] | None:
    found = load["subjects"].get(OURS)
    if not found:
        return None
    held, beats = Spread.from_document(found["memory_bytes"]), load["beats"]
    # On the wall where it was listened to, else CPU time.
    slow = f"{number(beats['took_ms_p99'])} ms" if beats else f"{number(found['tick_cpu_ms_p99'])} ms of CPU"
    return (load["name"], span(Spread.from_document(found["cpu_ms_per_tick"])),
            span(Spread.from_document(found["times_floor"])), slow if beats or found["tick_cpu_ms_p99"] else "-",
            f"{number(beats['late_ms_max'])} ms" if beats else "-", number(held.median / 1e6 if held else None),
            number(found["syscalls_per_tick"]))


def _start_up(made: Document) -> str:
    found = {name: Spread.from_document(one["wall_ms"]) for name, one in made["start_up"].items()}
    told = [f"`{name}` {number(spread.median)} ms" for name, spread in found.items() if spread]
    runs = max((spread.count for spread in found.values() if spread), default=0)
    return f"From start to end, median of {runs} runs: {', '.join(told)}." if told else ""


def _growth(made: Document) -> str:
    if not (slope := made["slope"]):
        return ""
    return (f"Memory over {slope['ticks']:,} ticks with the clock handed in: {slope['mb_per_100k_ticks']:+.3f} MB for "
            "100,000 ticks (nine hours).")


def _goals(made: Document) -> str:
    found = list(goals.verdicts(made))
    missed = [f"{v.goal} ({v.told})" for v in found if v.reached is False]
    known = sum(v.reached is not None for v in found)
    said = f"Goals reached: {known - len(missed)} of {known} that were measured."
    return said + (f" Not reached: {'; '.join(missed)}." if missed else "")


def _missing(made: Document) -> str:
    told = [f"{name} ({why})" for name, why in made["missing"].items()]
    told += [f"{name} on {load['name']} ({why})" for load in made["loads"] for name, why in load["failed"].items()]
    return f"Missing: {'; '.join(told)}." if told else ""


def replaced(page: str, body: str) -> str:
    """The page with this text between its markers. Raises ReadmeError."""
    before, found, rest = page.partition(BEGIN + "\n")
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ReadmeError(f"a page lacks {BEGIN} or {END}")
    return before + found + body + ended + after


def write(made: Document, readme: Path = README, tables: Path = TABLES, document: Path = DOCUMENT,
          picture: Path = CHART) -> None:
    """Write both blocks, the document and the chart. Raises ReadmeError (nothing is written then), OSError."""
    pages = {readme: replaced(readme.read_text(), summary(made)), tables: replaced(tables.read_text(), block(made))}
    document.write_text(json.dumps(made, indent=1) + "\n")
    picture.write_text(chart.svg(made))
    for page, text in pages.items():
        page.write_text(text)
