"""What the database holds of a stretch of time: the evidence that `why` judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rogue_hunter.report import history, queries, shortage
from rogue_hunter.report.database import Source
from rogue_hunter.report.history import Minute
from rogue_hunter.report.queries import Period
from rogue_hunter.report.sentences import moment
from rogue_hunter.stream.tick import Record
from rogue_hunter.text.format import duration

USUAL_OF, USUAL_OF_COMMANDS = 1500, 300
"""How many minutes the usual is taken from: the median of 1,500 is known to 3 % of the ranks, and costs 10 ms."""
NEAR_S = 60.0
"""A pause so near is told of too: people remember a minute, not a second."""
AROUND = 2
"""Minutes before and after that are looked at when the minute itself was as usual."""

_SAME = ("cpus", "cpu_busy_cores", "cpu_steal_cores", "unattributed_cpu_cores", "memory_total_bytes",
         "memory_available_bytes", "pressure_cpu_some_ms_per_s", "pressure_memory_full_ms_per_s",
         "pressure_io_full_ms_per_s", "processes", "started", "exited", "max_score", "late_s", "asleep_s",
         "self_cpu_percent")


@dataclass(frozen=True, slots=True)
class Scene:
    """A stretch of whole minutes. `minutes` of it in the order of time, `normal` the usual of `normal_of` others.

    `live` are the commands of a last minute that is not over, made of the last tick. `note` says what is special about
    the evidence, and `absent` why there is none.
    """

    since: float
    until: float
    at: float | None
    minutes: Sequence[Minute] = ()
    pauses: Sequence[Record] = ()
    events: Sequence[Record] = ()
    normal: Mapping[str, float] | None = None
    normal_of: int = 0
    live: Sequence[Minute] = ()
    note: str = ""
    absent: str = ""
    slept: tuple[float, float, float] | None = None

    @property
    def usual(self) -> Mapping[str, float]:
        """The usual of each column; empty when it is not known."""
        return self.normal or {}

    @property
    def watched_s(self) -> float:
        """Time that the ticks of its minutes cover."""
        return round(sum(float(m.get("seconds", 0.0)) for m in self.minutes), 1)


def look(source: Source, since: float, until: float, at: float | None, text: str = "") -> Scene:
    """The evidence of the minutes from the one of `since` up to `until`, epoch seconds."""
    first, end = since // 60 * 60, max(until, since // 60 * 60 + 60)
    scene = Scene(first, end, at,
                  history.machine(source.reader, first, end),
                  history.pauses(source.reader, Period(first - NEAR_S, end + NEAR_S, text)),
                  queries.events(source.reader, Period(first, end, text), source.watched, 200))
    if not scene.minutes:
        scene = _unfinished(source, scene)
    if not scene.minutes and not [p for p in scene.pauses if inside(p, scene)]:
        return _absent(source, scene)
    return _with_usual(source, scene)


def around(source: Source, scene: Scene) -> Scene:
    """The minutes before and after a scene, without its own."""
    low, high = scene.since - 60 * AROUND, scene.until + 60 * AROUND
    minutes = [m for m in history.machine(source.reader, low, high)
               if not scene.since <= m["minute"] < scene.until]
    return replace(scene, minutes=minutes, pauses=(), live=(), events=queries.events(
        source.reader, Period(low, high), source.watched, 200))


def inside(pause: Record, scene: Scene) -> bool:
    """The pause overlaps the stretch itself."""
    return bool(pause["start"] < scene.until and pause["end"] >= scene.since)


def as_minute(tick: Mapping[str, Any]) -> Minute:
    """The closing row of a tick, or the evidence of a pause, as a very short minute."""
    made = {name: tick[name] for name in _SAME if name in tick}
    made["seconds"] = tick.get("interval_s") or 1.0
    return made


# -- inside ------------------------------------------------------------------------------------------------------------

def _with_usual(source: Source, scene: Scene) -> Scene:
    steps = history.spread(source.reader, USUAL_OF)
    low, high = scene.since - 60 * AROUND, scene.until + 60 * AROUND
    others = [m for m in history.sample(source.reader, shortage.COLUMNS, steps) if not low <= m["minute"] < high]
    return replace(scene, normal=shortage.usual(others), normal_of=len(others) if len(others) >= 10 else 0)


def _unfinished(source: Source, scene: Scene) -> Scene:
    """The minute is not over, or was cut off by the end of rh-pipe: the last tick, and the minute before."""
    last = source.last_tick
    ts = float(last.get("ts", 0.0))
    now = source.watch == "running" and scene.since <= source.now
    if not last or not (scene.since <= ts < scene.until or (now and ts >= scene.since - 60)):
        return scene
    before, _ = history.neighbours(source.reader, scene.since, scene.until)
    minutes = [before] if now and before is not None and before["minute"] >= scene.since - 120 else []
    made = {"minute": int(ts // 60) * 60, **as_minute(last), "boot_id": last.get("boot_id", "")}
    made.pop("started", None)
    rogues = [_as_command(row, made["seconds"]) for row in source.state.get("rogues") or []]
    made["disk_bytes"] = round(sum(row["disk_bytes"] for row in rogues))
    note = f"that minute is not over: told from the tick of {moment(ts, source.now)}" + (
        " and the minute before" if minutes else "")
    return replace(scene, minutes=[*minutes, made], live=rogues, note=note,
                   since=minutes[0]["minute"] if minutes else scene.since)


def _as_command(row: Mapping[str, Any], seconds: float) -> Minute:
    return {"command": row.get("command") or "?", "pid": row.get("pid"), "processes": 1,
            "cpu_seconds": row.get("cpu_percent", 0.0) / 100 * seconds, "memory_bytes": row.get("memory_bytes", 0),
            "disk_bytes": row.get("disk_bytes_per_s", 0.0) * seconds, "gpu_seconds": 0.0,
            "wakeups": row.get("wakeups_per_s", 0.0) * seconds, "run_delay_s": 0.0, "rogue_s": 0.0,
            "max_score": row.get("score", 0)}


def _absent(source: Source, scene: Scene) -> Scene:
    """Why there is nothing of that time: before the history, after it, asleep, or not watched."""
    before, after = history.neighbours(source.reader, scene.since, scene.until)
    now = source.now
    if before is None:
        return replace(scene, absent="nothing was recorded yet; minutes are written as they end" if after is None else
                       f"the history begins at {moment(after['minute'], now)}")
    left = before["minute"] + 60
    if after is None:
        ended = moment(max(left, float(source.last_tick.get("ts", 0.0))), now)
        state = {"running": "that time has not come yet, or its minute is not over",
                 "stale": "rh-pipe runs, but writes nothing"}.get(source.watch, "rh-pipe is not running")
        return replace(scene, absent=f"nothing was recorded after {ended}: {state}")
    gap = after["minute"] - left
    asleep = float(after.get("asleep_s", 0.0))
    span = f"between {moment(left, now)} and {moment(after['minute'], now)}"
    if asleep >= 0.5 * gap:
        return replace(scene, slept=(left, after["minute"], asleep))
    why = ("the machine was started anew in between" if before["boot_id"] != after["boot_id"]
           else "rh-pipe was not running then, or was stopped")
    return replace(scene, absent=f"nothing was recorded {span} ({duration(gap)}): {why}")
