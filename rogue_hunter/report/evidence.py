"""Windows of evidence, built from the database or from the slices of a running rh-pipe.

Slices of five seconds answer for the last two days, minutes for the time before. A time of which nothing was recorded
gives no window, and the reason.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rogue_hunter.report import history
from rogue_hunter.report.database import Source
from rogue_hunter.report.history import Minute
from rogue_hunter.report.queries import Period
from rogue_hunter.report.sentences import moment
from rogue_hunter.schema.slices import SLICE_S
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
SHORT_MOST = 240
"""Slices or minutes of a long period that are judged one by one: those that were worst."""
STRETCHES = 180
"""Sums of a long period."""
STANDING_S = 3.0
"""A wait that was seen to begin so soon after the start of rh-pipe was there before."""
USUAL_OF = 1500
"""How many minutes the usual is taken from: the median of 1,500 is known to 3 % of the ranks, and costs 10 ms."""

_LATEST = ("late_s", "cpu_busy_cores_max", "max_score")
_AVERAGES = ("cpu_busy_cores", "cpu_steal_cores", "unattributed_cpu_cores", "self_cpu_percent")
_SUMS = ("disk_bytes", "device_bytes", "started", "exited")

Live = Callable[[], Sequence[Record]]
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


def of_now(source: Source, live: Live | None = None) -> Evidence:
    """The evidence about the last 20 s: from the running rh-pipe, else from the newest slices if they are fresh."""
    now = source.now
    slices = [one for one in _assembled(live() if live is not None else ()) if one.end > now - NOW_S]
    if not slices and source.watch != "stopped":
        newest, _ = history.nearest_slices(source.reader, now + 1, now + 1)
        if newest is not None and newest["slice"] + newest["seconds"] >= now - FRESH_S:
            end = float(newest["slice"] + newest["seconds"])
            slices = _slices(source, history.machine_slices(source.reader, end - NOW_S, now + 1))
        else:
            slices = _last_tick(source)
    note = ""
    if slices and slices[-1].end < now - NOW_S / 2:
        note = f"the newest evidence is from {moment(slices[-1].end, now)}"
    window = Window(slices[0].start if slices else now - NOW_S, now, tuple(slices), recent=True,
                    readers=frozenset({os.getpid(), os.getppid()}))
    if not slices:
        return replace(_absent(source, window, now), at=now)
    return _complete(source, Evidence(window, now, note=note), "")


# -- windows -----------------------------------------------------------------------------------------------------------

def _period(source: Source, since: float, until: float, at: float | None, live: Live | None, text: str) -> Evidence:
    machine = history.machine_slices(source.reader, since, until)
    window = Window(since, until, resolution_s=float(SLICE_S), readers=frozenset({os.getpid()}))
    if until - since <= WHOLE_S:
        slices = _slices(source, machine)
        if live is not None and until > source.now - LIVE_S and source.watch == "running":
            after = max((one.end for one in slices), default=since) - 0.1
            slices += [one for one in _assembled(live()) if one.start >= after and one.start < until]
    else:
        slices = _long(source, machine, since, until)
    begin = slices[0].start if slices else until
    if begin - since > NEAR_S:
        older = _minutes(source, since, begin, at, bool(slices))
        if older and not slices:
            window = replace(window, resolution_s=60.0, since=min(since, older[0].start),
                             until=max(until, older[-1].end))
        slices = older + slices
    if not slices:
        pauses = [p for p in history.pauses(source.reader, Period(since, until, text)) if p.get("evidence")]
        slices = [_of_pause(pause) for pause in reversed(pauses)]
    window = replace(window, slices=tuple(slices))
    if not slices:
        return replace(_absent(source, window, at), at=at)
    return _complete(source, Evidence(window, at), text)


def _complete(source: Source, found: Evidence, text: str) -> Evidence:
    """Add waits, limits, pauses and the usual."""
    window = found.window
    reader, since = source.reader, window.slices[0].start
    waits, limits = history.waits_and_limits(reader, since, window.until + SLICE_S)
    began = float(source.state.get("started_at") or 0.0)
    waits = [{**one, "standing": one["ts"] - (one.get("since_s") or 0.0) <= began + STANDING_S} for one in waits]
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

def _slices(source: Source, machine: Sequence[Minute]) -> list[Slice]:
    """These slices of the database with their processes and units."""
    at = [float(row["slice"]) for row in machine]
    processes = history.slice_rows(source.reader, "v_process_slices", at)
    groups = history.slice_rows(source.reader, "v_group_slices", at)
    return [Slice(begin, float(row["seconds"]), row, _of_boot(processes.get(begin, ()), row),
                  _of_boot(groups.get(begin, ()), row)) for begin, row in zip(at, machine, strict=True)]


def _of_boot(rows: Iterable[Minute], machine: Minute) -> list[Minute]:
    return [row for row in rows if row.get("boot_id") == machine.get("boot_id")]


def _assembled(records: Sequence[Record]) -> list[Slice]:
    """Slices made of the records of a running rh-pipe."""
    machine = [each for each in records if each["type"] == "machine_slice" and each.get("seconds")]
    held: dict[tuple[str, float], list[Record]] = {}
    for each in records:
        held.setdefault((each["type"], float(each.get("slice") or 0.0)), []).append(each)
    return [Slice(float(one["slice"]), float(one["seconds"]), one, held.get(("process_slice", float(one["slice"])), ()),
                  held.get(("group_slice", float(one["slice"])), ())) for one in machine]


def _long(source: Source, machine: Sequence[Minute], since: float, until: float) -> list[Slice]:
    """The slices of a long period that can have been short, each by itself, and the sums of the others."""
    short = sorted((row for row in machine if shortage.may_be_short(row)), key=_severity)[-SHORT_MOST:]
    alone = {float(row["slice"]) for row in short}
    width = max(float(SLICE_S), (until - since) / STRETCHES)
    summed = history.summed_rows(source.reader, since, until, width, sorted(alone))
    rest: dict[int, list[Minute]] = {}
    for row in machine:
        if float(row["slice"]) not in alone:
            rest.setdefault(int((float(row["slice"]) - since) / width), []).append(row)
    found = _slices(source, sorted(short, key=lambda row: float(row["slice"])))
    for number, rows in rest.items():
        seconds = sum(float(row["seconds"]) for row in rows)
        if seconds > 0:
            found.append(Slice(float(rows[0]["slice"]), seconds, _averaged(rows, seconds), summed.get(number, ())))
    return sorted(found, key=lambda one: one.start)


def _averaged(rows: Sequence[Minute], seconds: float) -> Minute:
    """Slices of the machine as one row, marked as summed: shortages are judged slice by slice."""
    made: Minute = {}
    made.update((name, rows[0][name]) for name in ("boot_id", "cpus", "memory_total_bytes") if name in rows[0])
    for name in _AVERAGES:
        if any(name in row for row in rows):
            made[name] = sum(float(row.get(name) or 0.0) * float(row["seconds"]) for row in rows) / seconds
    for name in _SUMS:
        if any(name in row for row in rows):
            made[name] = sum(int(row.get(name) or 0) for row in rows)
    for name in (*_LATEST, "pressure_cpu_some_ms_per_s", "pressure_memory_full_ms_per_s", "pressure_io_full_ms_per_s"):
        known = [row[name] for row in rows if name in row]
        if known:
            made[name] = max(known)
    available = [row["memory_available_bytes"] for row in rows if "memory_available_bytes" in row]
    if available:
        made["memory_available_bytes"] = min(available)
    return {**made, "seconds": seconds, "summed": True}


def _severity(row: Minute) -> float:
    """A quick measure of how much was short: parts of the time in ms/s, added up."""
    cpus, seconds = row.get("cpus") or 1, max(float(row.get("seconds") or SLICE_S), 1e-3)
    memory = row.get("memory_total_bytes") or 1
    return float(
        (row.get("pressure_cpu_some_ms_per_s") or 1000 * (row.get("cpu_busy_cores") or 0.0) / cpus)
        + (row.get("run_delay_ms_per_s") or 0.0) / cpus
        + 2 * max(row.get("pressure_memory_full_ms_per_s") or 0.0, row.get("pressure_memory_some_ms_per_s") or 0.0)
        + 2 * max(row.get("pressure_io_full_ms_per_s") or 0.0, 0.5 * (row.get("pressure_io_some_ms_per_s") or 0.0))
        + 1000 * (row.get("cpu_steal_cores") or 0.0) / cpus
        + 1000 * ((row.get("late_s") or 0.0) + (row.get("asleep_s") or 0.0)) / seconds
        + 1000 * max(0.0, shortage.SCARCE - (row.get("memory_available_bytes", memory) or 0) / memory)
        + (row.get("disk_bytes") or 0) / seconds / 1e6
        + 2000 * (row.get("oom_kills") or 0))


# -- minutes and less --------------------------------------------------------------------------------------------------

def _minutes(source: Source, since: float, until: float, at: float | None, sliced: bool) -> list[Slice]:
    """Minutes as slices; with `sliced` up to the slices that begin at `until`. Of a moment it is the minute that holds
    it, unless that minute has slices, which hold more."""
    if at is not None:
        first = at // 60 * 60
        if history.machine_slices(source.reader, first, first + 60):
            return []
        rows = [m for m in history.machine(source.reader, first, first + 60)
                if first <= at <= max(first + 60, first + float(m.get("seconds") or 0.0))]
    else:
        # The minute in which the slices begin is in them.
        rows = [m for m in history.machine(source.reader, since // 60 * 60, until)
                if not sliced or m["minute"] + 60 <= until + 1]
    if len(rows) > SHORT_MOST:
        short = [m for m in rows if shortage.may_be_short(m)]
        chosen = sorted(short, key=_severity)[-SHORT_MOST:] or sorted(rows, key=_severity)[-20:]
        asleep = sorted(rows, key=lambda m: float(m.get("asleep_s") or 0.0))[-3:]
        rows = sorted({id(m): m for m in [*chosen, *asleep]}.values(), key=lambda m: int(m["minute"]))
    commands = history.commands_of(source.reader, [m["minute"] for m in rows])
    return [Slice(float(m["minute"]), float(m.get("seconds") or 60.0), m, commands.get(m["minute"], ())) for m in rows]


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
        state = {"running": "that time is not written yet", "stale": "rh-pipe runs, but writes nothing"}.get(
            source.watch, "rh-pipe is not running")
        ended = moment(max(before[1], float(source.last_tick.get("ts") or 0.0)), now)
        return Evidence(window, absent=f"nothing was recorded after {ended}: {state}")
    gap, asleep = after[0] - before[1], float(after[2].get("asleep_s") or 0.0)
    if asleep >= 0.5 * gap > 0:
        machine = {"asleep_s": asleep, "seconds": gap}
        return Evidence(replace(window, slices=(Slice(before[1], gap, machine),)))
    why = ("the machine was rebooted in between" if before[2].get("boot_id") != after[2].get("boot_id")
           else "rh-pipe was not running then, or was stopped")
    span = f"between {moment(before[1], now)} and {moment(after[0], now)}"
    return Evidence(window, absent=f"nothing was recorded {span} ({duration(gap)}): {why}")


def _neighbours(source: Source, window: Window) -> tuple[tuple[float, float, Minute] | None,
                                                         tuple[float, float, Minute] | None]:
    """Beginning, end and row of the nearest evidence before and after a window without any."""
    slices = history.nearest_slices(source.reader, window.since, window.until)
    minutes = history.neighbours(source.reader, window.since, window.until)
    before = [(float(row["slice"]), float(row["slice"] + row["seconds"]), row) for row in slices[:1] if row]
    after = [(float(row["slice"]), float(row["slice"] + row["seconds"]), row) for row in slices[1:] if row]
    # Where there are slices, a minute's row says less exactly when the watch ended.
    before += [(float(m["minute"]), float(m["minute"]) + 60, m) for m in minutes[:1] if m and not before]
    after += [(float(m["minute"]), float(m["minute"]) + 60, m) for m in minutes[1:] if m and not after]
    return max(before, key=lambda one: one[1], default=None), min(after, key=lambda one: one[0], default=None)
