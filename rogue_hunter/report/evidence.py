"""Windows of evidence, built from the database or from the slices of a running rh-pipe.

Slices of five seconds answer for the last two days, minutes for the time before. Of a long period the worst slices are
judged one by one, and minutes or hours tell what was used in the rest. A time of which nothing was recorded gives no
window, and the reason.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any

from rogue_hunter.report import history, slices
from rogue_hunter.report.history import Minute
from rogue_hunter.report.queries import Period, Source
from rogue_hunter.report.sentences import moment
from rogue_hunter.schema.slices import PROCESS_SLICE, SLICE_S
from rogue_hunter.store.rollup import AVERAGED
from rogue_hunter.store.tables import compact
from rogue_hunter.stream.tick import Record
from rogue_hunter.text.format import duration
from rogue_hunter.verdict import shortage
from rogue_hunter.verdict.model import Slice, Window

NEAR_S = 5.0
"""A question about a moment is answered from the slices that overlap so many seconds before and after it."""
NOW_S = 20.0
"""A question about now is answered from the last so many seconds."""
FRESH_S = 30.0
"""The newest slice of the database answers for now if it is not older than this."""
LIVE_S = 130.0
"""How far back the slices in the memory of a running rh-pipe can reach: two minutes and the running slice."""
WHOLE_S = 1800.0
"""Up to this length all slices of a period are judged; of a longer one those that can have been short, and sums."""
SHORT_MOST = 120
"""Slices or minutes of a long period that are judged one by one: those that were worst."""
OLD_MOST = 20
STRETCHES = 180
"""Sums of a long period."""
HOURS_FROM_S = 2 * 86400.0
"""From this length on the sums of a period are made of hours, not of minutes."""
USUAL_OF = 1500
"""How many minutes the usual is taken from: the median of 1,500 is known to 3 % of the ranks, and costs 10 ms."""

_ADDED = ("disk_bytes", "device_bytes", "device_requests_s", "started", "exited")
_USE = tuple(f.name for f in PROCESS_SLICE if compact(f).name in slices.SUMMED)

Live = Callable[[Source], Sequence[Record]]
"""Asks a running rh-pipe for its slice records; nothing if there is none."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A window, and what an answer reports about it.

    `absent` is why there is none. `note` says what is special. `minutes` is how many minutes of history overlap it, and
    `usual_of` of how many others the usual is the median.
    """

    window: Window
    at: float | None = None
    absent: str = ""
    note: str = ""
    minutes: int = 0
    usual_of: int = 0
    pauses: Sequence[Record] = field(default_factory=tuple)


def at_moment(source: Source, at: float, live: Live | None = None, text: str = "") -> Evidence:
    """The evidence about a moment, epoch seconds. A time given to the minute means that minute."""
    since, until = (at, at + 60.0) if at % 60 == 0 else (at - NEAR_S, at + NEAR_S)
    near = history.pauses(source.reader, Period(since, until, text))
    for pause in near:
        since, until = min(since, float(pause["start"])), max(until, float(pause["end"]))
    return _period(source, since, until, at, live, text)


def over(source: Source, since: float, until: float, live: Live | None = None, text: str = "") -> Evidence:
    """The evidence about a period, epoch seconds."""
    return _period(source, since, max(until, since + 1e-3), None, live, text)


def of_records(records: Sequence[Record], since: float, until: float, *, recent: bool = False) -> Window:
    """The evidence in the memory of rh-pipe itself about a time, as a window."""
    found = [one for one in assembled(records) if one.end > since]
    return Window(since, until, tuple(found),
                  tuple({**each, "standing": False} for each in records if each["type"] == "wait"),
                  tuple(each for each in records if each["type"] == "limit"),
                  tuple(each for each in records if each["type"] == "pause" and each["end"] >= since), recent=recent)


def of_now(source: Source, live: Live | None = None) -> Evidence:
    """The evidence about the last 20 s: from the running rh-pipe, else from the newest slices if they are fresh."""
    now = source.now
    found = [one for one in assembled(live(source) if live is not None else ()) if one.end > now - NOW_S]
    if not found and source.watch != "stopped":
        newest, _ = slices.nearest(source.reader, now + 1, now + 1)
        if newest is not None and newest["slice"] + newest["seconds"] >= now - FRESH_S:
            end = float(newest["slice"] + newest["seconds"])
            found = _slices(source, slices.machine(source.reader, end - NOW_S, now + 1))
        else:
            found = _last_tick(source)
    note = ""
    if found and found[-1].end < now - NOW_S / 2:
        note = f"the newest evidence is from {moment(found[-1].end, now)}"
    window = Window(found[0].start if found else now - NOW_S, now, tuple(found), recent=True,
                    readers=frozenset({os.getpid(), os.getppid()}))
    if not found:
        return replace(_absent(source, window, now), at=now)
    return _complete(source, Evidence(window, now, note=note), "")


# -- windows -----------------------------------------------------------------------------------------------------------

def _period(source: Source, since: float, until: float, at: float | None, live: Live | None, text: str) -> Evidence:
    window = Window(since, until, resolution_s=float(SLICE_S), readers=frozenset({os.getpid()}))
    if until - since <= WHOLE_S:
        found = _slices(source, slices.machine(source.reader, since, until))
        if live is not None and until > source.now - LIVE_S and source.watch == "running":
            after = max((one.end for one in found), default=since) - 0.1
            found += [one for one in assembled(live(source)) if one.start >= after and one.start < until]
        begin = found[0].start if found else until
        older = _minutes(source, since, begin, at, bool(found)) if begin - since > NEAR_S else []
    else:
        found, older = _long(source, since, until)
    if older:
        window = replace(window, resolution_s=60.0)
        if not found:
            window = replace(window, since=min(since, older[0].start), until=max(until, older[-1].end))
    found = sorted(older + found, key=lambda one: one.start)
    if at is not None:
        # A slice of which most lies outside is of another time; it answers only if there is no other.
        found = [one for one in found if 2 * (min(one.end, until) - max(one.start, since)) >= one.seconds] or found
    if not found:
        pauses = [p for p in history.pauses(source.reader, Period(since, until, text)) if p.get("evidence")]
        found = [_of_pause(pause) for pause in reversed(pauses)]
    window = replace(window, slices=tuple(found))
    if not found:
        return replace(_absent(source, window, at), at=at)
    return _complete(source, Evidence(window, at), text)


def _complete(source: Source, found: Evidence, text: str) -> Evidence:
    """Add waits, limits, pauses and the usual."""
    window = found.window
    reader = source.reader
    waits, limits = slices.waits_and_limits(reader, window.since, window.until + SLICE_S)
    pauses = history.pauses(reader, Period(window.since, window.until, text))
    minutes = history.minute_count(reader, Period(window.since, window.until))
    usual, usual_of = _usual(source, window)
    return replace(found, window=replace(window, waits=tuple(waits), limits=tuple(limits), pauses=tuple(pauses),
                                         usual=usual), minutes=minutes, usual_of=usual_of, pauses=pauses)


def _usual(source: Source, window: Window) -> tuple[dict[str, float], int]:
    steps = history.spread(source.reader, USUAL_OF)
    low, high = window.since - 120, window.until + 120
    others = [m for m in history.sample(source.reader, shortage.COLUMNS, steps) if not low <= m["minute"] < high]
    return shortage.usual(others), len(others) if len(others) >= 10 else 0


# -- slices ------------------------------------------------------------------------------------------------------------

def _slices(source: Source, machine: Sequence[Minute], step: int = SLICE_S) -> list[Slice]:
    """These slices, or minutes, of the database with their processes and units."""
    name = "slice" if step == SLICE_S else "minute"
    at = [float(row[name]) for row in machine]
    processes = slices.rows_of(source.reader, step, "process", at)
    groups = slices.rows_of(source.reader, step, "group", at)
    return [Slice(begin, float(row.get("seconds") or step), row, _of_boot(processes.get(begin, ()), row),
                  _of_boot(groups.get(begin, ()), row)) for begin, row in zip(at, machine, strict=True)]


def _of_boot(rows: Iterable[Minute], machine: Minute) -> list[Minute]:
    return [row for row in rows if row.get("boot_id") == machine.get("boot_id")]


def assembled(records: Sequence[Record]) -> list[Slice]:
    """Slices made of the records that rh-pipe has in memory."""
    machine = [each for each in records if each["type"] == "machine_slice" and each.get("seconds")]
    held: dict[tuple[str, float], list[Record]] = {}
    for each in records:
        held.setdefault((each["type"], float(each.get("slice") or 0.0)), []).append(each)
    return [Slice(float(one["slice"]), float(one["seconds"]), one, held.get(("process_slice", float(one["slice"])), ()),
                  held.get(("group_slice", float(one["slice"])), ())) for one in machine]


def _long(source: Source, since: float, until: float) -> tuple[list[Slice], list[Slice]]:
    """The slices of a long period that can have been short, each by itself, and the sums of the rest; and the minutes
    of the time before the slices that can have been."""
    reader = source.reader
    fine = slices.span(reader, SLICE_S)
    begin = min(until, fine[0] // 60 * 60 if fine else until)
    alone = _slices(source, _short(slices.worst(reader, SLICE_S, since, until, SHORT_MOST)))
    older = _older(source, since, begin) if begin > since else []
    width = (until - since) / STRETCHES
    rest: list[Slice] = []
    for step, low, high in _cover(source, since, until, until - since >= HOURS_FROM_S):
        if step == SLICE_S:
            known = {one.start for one in alone}
            rest += _slices(source, [row for row in slices.machine(reader, low, high) if row["slice"] not in known])
        else:
            rest += _summed(source, step, low, high, max(float(step), width), [*alone, *older])
    return [*alone, *rest], older


def _short(rows: Iterable[Minute]) -> list[Minute]:
    return [row for row in rows if shortage.may_be_short(row)]


def _cover(source: Source, since: float, until: float, hours: bool) -> list[tuple[int, float, float]]:
    """A period in pieces: as much of it as hours (or minutes) cover, and finer ones at its ends."""
    pieces: list[tuple[int, float, float]] = []

    def cover(low: float, high: float, steps: Sequence[int]) -> None:
        if high <= low:
            return
        if not steps:
            pieces.append((SLICE_S, low, high))
            return
        step, span = steps[0], slices.span(source.reader, steps[0])
        begin = ceil(max(low, span[0]) / step) * step if span else high
        end = min(high, span[1]) // step * step if span else high
        if end <= begin:
            cover(low, high, steps[1:])
            return
        cover(low, begin, steps[1:])
        pieces.append((step, begin, end))
        cover(end, high, steps[1:])

    cover(since, until, (slices.HOUR_S, slices.MINUTE_S) if hours else (slices.MINUTE_S,))
    return pieces


def _summed(source: Source, step: int, since: float, until: float, width: float, alone: Sequence[Slice]) -> list[Slice]:
    """Stretches of a time without the slices that are judged alone, marked as summed: no shortage is seen in them."""
    machine = slices.machine_sums(source.reader, step, since, until, width)
    rows = {what: {number: {_identity(row): row for row in some} for number, some in
                   slices.sums(source.reader, step, what, since, until, width).items()}
            for what in ("process", "group")}
    for one in alone:
        number = int((one.start // step * step - since) // width)    # that of its minute or hour
        if number not in machine or not since <= one.start < until:
            continue
        whole, seconds = machine[number], float(machine[number]["seconds"])
        left = max(0.0, seconds - one.seconds)
        for name in AVERAGED:
            if name in whole and name in one.machine:
                total = whole[name] * seconds - one.machine[name] * one.seconds
                whole[name] = max(0.0, total) / left if left else 0.0
        for name in _ADDED:
            if name in whole:
                whole[name] = max(0, whole[name] - (one.machine.get(name) or 0))
        whole["seconds"] = left
        for what, some in (("process", one.processes), ("group", one.groups)):
            for row in some:
                total_row = rows[what].get(number, {}).get(_identity(row))
                if total_row is not None:
                    total_row["active_s"] -= one.seconds
                    for name in _USE:
                        if name in total_row:
                            total_row[name] = max(0, total_row[name] - (row.get(name) or 0))
    return [Slice(float(one["minute"]), float(one["seconds"]), {**one, "summed": True},
                  [row for row in rows["process"].get(number, {}).values() if row["active_s"] > 0],
                  [row for row in rows["group"].get(number, {}).values() if row["active_s"] > 0])
            for number, one in machine.items() if one["seconds"] >= 1]


def _identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row.get("boot_id"), row.get("pid"), row.get("start_ticks"), row.get("unit") if "processes" in row else None


# -- minutes and less --------------------------------------------------------------------------------------------------

def _minutes(source: Source, since: float, until: float, at: float | None, sliced: bool) -> list[Slice]:
    """Minutes as slices; with `sliced` up to the slices that begin at `until`. Of a moment it is the minute that holds
    it, unless that minute has slices, which hold more."""
    if at is not None:
        first = at // 60 * 60
        if slices.machine(source.reader, first, first + 60):
            return []
        rows = [m for m in history.machine(source.reader, first, first + 60)
                if first <= at <= max(first + 60, first + float(m.get("seconds") or 0.0))]
    else:
        # The minute in which the slices begin is in them.
        rows = [m for m in history.machine(source.reader, since // 60 * 60, until)
                if not sliced or m["minute"] + 60 <= until + 1]
    return _with_commands(source, _slices(source, rows, slices.MINUTE_S))


def _older(source: Source, since: float, until: float) -> list[Slice]:
    """The minutes of a long time before the slices that can have been short; of a time for which older versions have
    recorded no identities, at least the worst ones."""
    most = slices.worst(source.reader, slices.MINUTE_S, since, until, SHORT_MOST)
    found = _short(most)
    begin = slices.span(source.reader, slices.MINUTE_S)
    if begin is None or begin[0] >= until:
        found = found or slices.worst(source.reader, slices.MINUTE_S, since, until, OLD_MOST)
    return _with_commands(source, _slices(source, found, slices.MINUTE_S))


def _with_commands(source: Source, minutes: Sequence[Slice]) -> list[Slice]:
    """Minutes of older versions list commands, not processes."""
    commands = history.commands_of(source.reader, [int(one.start) for one in minutes if not one.processes])
    return [replace(one, processes=one.processes or commands.get(int(one.start), ())) for one in minutes]


def _of_pause(pause: Record) -> Slice:
    """A pause of which nothing else is left: the readings that it was judged by, and those it named."""
    seconds = float(pause["duration_s"])
    column = {"cpu": "cpu_seconds", "memory": "memory_bytes", "disk": "disk_bytes"}
    rows = [{**{name: c[name] for name in ("pid", "start_ticks", "command", "unit") if name in c},
             "boot_id": pause.get("boot_id", ""), column.get(str(c.get("resource")), "cpu_seconds"): c.get("amount")}
            for c in pause.get("culprits") or ()]
    return Slice(float(pause["start"]), seconds, {**pause["evidence"], "seconds": seconds}, rows)


def _last_tick(source: Source) -> list[Slice]:
    """The last tick of an rh-pipe that keeps no slices, and the processes that it selected."""
    last = source.last_tick
    ts, dt = float(last.get("ts") or 0.0), float(last.get("interval_s") or 1.0)
    if ts < source.now - FRESH_S:
        return []
    boot = str(last.get("boot_id", ""))
    rows: list[dict[str, Any]] = []
    for row in source.state.get("rogues") or ():
        made = {name: row[name] for name in ("pid", "start_ticks", "ppid", "command", "cmdline", "user", "unit",
                                             "memory_bytes") if name in row}
        rows.append({**made, "boot_id": boot, "cpu_seconds": (row.get("cpu_percent") or 0.0) / 100 * dt,
                     "disk_bytes": (row.get("disk_bytes_per_s") or 0.0) * dt, "max_score": row.get("score") or 0})
    return [Slice(ts - dt, dt, {**last, "seconds": dt}, rows)]


def _absent(source: Source, window: Window, at: float | None) -> Evidence:
    """Why there is nothing of that time: before the history, after it, asleep, or not watched."""
    before, after = _neighbours(source, window)
    now = source.now
    if after is None and (at if at is not None else window.since) > now:
        return Evidence(window, absent="that time has not come yet")
    if before is None:
        return Evidence(window, absent="nothing was recorded yet" if after is None else
                        f"the history begins at {moment(after[0], now)}")
    if after is None:
        state = {"running": "that time is not written yet", "stale": "rh-pipe runs, but writes nothing",
                 "hub": "the hub has received nothing later"}.get(
            source.watch, "rh-pipe is not running")
        ended = moment(max(before[1], float(source.last_tick.get("ts") or 0.0)), now)
        return Evidence(window, absent=f"nothing was recorded after {ended}: {state}")
    gap, asleep = after[0] - before[1], float(after[2].get("asleep_s") or 0.0)
    if asleep >= 0.5 * gap > 0:
        machine = {"asleep_s": asleep, "seconds": gap}
        return Evidence(replace(window, slices=(Slice(before[1], gap, machine),)))
    step = float(after[2].get("clock_step_s") or 0.0)
    why = (f"the clock was set forward by {duration(step)}" if step >= 0.5 * gap > 0
           else "the machine was rebooted in between" if before[2].get("boot_id") != after[2].get("boot_id")
           else "rh-pipe was not running then, or was stopped")
    span = f"between {moment(before[1], now)} and {moment(after[0], now)}"
    return Evidence(window, absent=f"nothing was recorded {span} ({duration(gap)}): {why}")


def _neighbours(source: Source, window: Window) -> tuple[tuple[float, float, Minute] | None,
                                                         tuple[float, float, Minute] | None]:
    """Beginning, end and row of the nearest evidence before and after a window without any."""
    near = slices.nearest(source.reader, window.since, window.until)
    minutes = history.neighbours(source.reader, window.since, window.until)
    before = [(float(row["slice"]), float(row["slice"] + row["seconds"]), row) for row in near[:1] if row]
    after = [(float(row["slice"]), float(row["slice"] + row["seconds"]), row) for row in near[1:] if row]
    # Where there are slices, a minute's row says less exactly when the watch ended.
    before += [(float(m["minute"]), float(m["minute"]) + 60, m) for m in minutes[:1] if m and not before]
    after += [(float(m["minute"]), float(m["minute"]) + 60, m) for m in minutes[1:] if m and not after]
    return max(before, key=lambda one: one[1], default=None), min(after, key=lambda one: one[0], default=None)
