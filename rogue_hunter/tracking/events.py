"""Tracking: a process, or a unit of work, that stays at or above the tracking band is one event, with begin and end.

An event begins when the score has been there for `tracking.enter_s`, and records since when. It is one `event` record
when it begins (enter), when it reaches a higher band or has left one (band), at a new highest score (peak), every 30 s
(checkpoint) and when it ends (exit), each with the whole row of the process and the lowest and highest of every metric
over the last 20 s.

It gives the lowest and highest value of each metric for a snapshot, the culprits of a pause and the context of a
capture.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rogue_hunter.config.options import Bands, Config
from rogue_hunter.schema.field import BANDS, Key
from rogue_hunter.schema.sampling import METRICS, SNAPSHOT
from rogue_hunter.scoring.stage import Selector
from rogue_hunter.stream.tick import Recent, Record, Row, Tick, record
from rogue_hunter.tracking.stays import Stay, Stays, Subject, row_of_unit

_METRICS = tuple((f.name, f.sparse) for f in METRICS)


class Ring:
    """A bounded queue of (closing row, selected rows). Rows are shared with the ticks, never copied."""

    def __init__(self, ticks: int) -> None:
        self._ticks: deque[tuple[Row, Mapping[Key, Row]]] = deque(maxlen=ticks)

    @property
    def size(self) -> int:
        """How many ticks are held at most."""
        return self._ticks.maxlen or 0

    def __len__(self) -> int:
        return len(self._ticks)

    def push(self, closing: Row, rows: Mapping[Key, Row]) -> None:
        """Add a tick; the oldest falls out."""
        self._ticks.append((closing, rows))

    def ticks(self) -> Recent:
        """What is held, oldest first."""
        return tuple(self._ticks)

    def history(self, key: Key) -> list[Row]:
        """The rows of one process, oldest first."""
        return [rows[key] for _, rows in self._ticks if key in rows]

    def ranges(self, key: Key, row: Row) -> dict[str, Any]:
        """`name_low` and `name_high` of every metric of the process over the ring and `row`."""
        return ranges([*self.history(key), row])


def ranges(rows: Iterable[Row]) -> dict[str, Any]:
    """`name_low` and `name_high` of every metric over the rows in which it is known; where it is in one row, a row
    without it means 0 if the metric is left out then."""
    held = list(rows)
    found: dict[str, Any] = {}
    for name, sparse in _METRICS:
        values = [row[name] for row in held if name in row]
        if values:
            if sparse and len(values) < len(held):
                values.append(0)
            found[name + "_low"] = min(values)
            found[name + "_high"] = max(values)
    return found


REST_S = 60.0
"""Seconds below the band after which an event of a minute and more has ended; one of five seconds ends after five."""
ROUNDING_S = 1e-3

_SNAPSHOT = tuple(f.name for f in SNAPSHOT)


@dataclass(slots=True)
class Open:
    """An event that has not ended.

    `entered` and `seen` are epoch seconds; `begun`, `above` (the last tick at or above the band) and `checkpoint` are
    on the tracker's own clock, which is never set. `begun` is None for a restored event until the first tick; such an
    event had lasted `lasted` seconds. `row` is the last one known; `points` is the integral of the score by resource.
    `unit` is None unless the event is that of a unit, whose root is the process `key`.
    """

    event: str
    boot_id: str
    key: Key
    entered: float
    seen: float
    band: str
    peak_score: int
    peak_band: str
    row: Row = field(default_factory=dict)
    checkpoint: float = 0.0
    below: int = 0
    band_below: int = 0
    begun: float | None = None
    above: float = 0.0
    lasted: float = 0.0
    points: dict[str, float] = field(default_factory=dict)
    unit: str | None = None
    processes: int = 0


class Track:
    """The stage: adds `event` records, and the rogues of the tick and of the last ticks.

    `restored` are the events that were open when the last tracker ended without closing them.
    """

    def __init__(self, config: Config, model: str | None = None, restored: Iterable[Open] = ()) -> None:
        self._model = model
        self._used = self._settings(config)
        self._tracker = Tracker(config, config.bands_of(model or config.scoring.model), restored)
        self._changed = False

    def _settings(self, config: Config) -> tuple[object, ...]:
        return (config.bands_of(self._model or config.scoring.model), config.tracking, config.rogue_selection,
                config.system.ring_ticks)

    def configure(self, config: Config) -> None:
        """Use these settings from the next tick on: open events stay open, and the ring is kept."""
        used = self._settings(config)
        if used != self._used:
            self._used, self._changed = used, True
            self._tracker.configure(config, config.bands_of(self._model or config.scoring.model))

    def __call__(self, tick: Tick) -> Tick:
        """The tick with its events, `rogues` and `recent`."""
        if tick.row is None:
            return tick
        if self._changed:  # the new selection has to look at the state of every process once
            tick.changed, self._changed = set(tick.processes), False
        tick.records.extend(self._tracker.update(tick, tick.row))
        tick.rogues, tick.recent = self._tracker.picked, self._tracker.ring.ticks()
        return tick

    def close(self) -> list[Record]:
        """The toolkit ends, the processes do not: every open event ends. Those that no tick has confirmed, because none
        came, end as crashed when their process was last seen."""
        return self._tracker.stop()


class Tracker:
    """The open events of one stream of ticks."""

    def __init__(self, config: Config, bands: Bands, restored: Iterable[Open] = ()) -> None:
        self._ring = Ring(config.system.ring_ticks)
        self._stays = Stays(bands, config.tracking)
        self.configure(config, bands)
        self.picked: dict[Key, Row] = {}
        """The rogues of the last tick."""
        self._restored = list(restored)
        self._open: dict[Key, Open] = {}
        self._last: Row | None = None
        self._clock = 0.0
        """Seconds, time asleep included: how long events last is measured by it."""
        self._asleep = 0.0

    def configure(self, config: Config, bands: Bands) -> None:
        """Use these settings from now on."""
        self._bands = bands
        self._set = config.tracking
        self._enter = bands.start(bands.tracking)
        self._leave = max(1, self._enter - config.tracking.exit_margin)
        self._selector = Selector(config.rogue_selection)
        self._stays.configure(bands, config.tracking)
        if self._ring.size != config.system.ring_ticks:
            ring, self._ring = self._ring, Ring(config.system.ring_ticks)
            for closing, rows in ring.ticks():
                self._ring.push(closing, rows)

    @property
    def ring(self) -> Ring:
        """The last ticks of the rogues."""
        return self._ring

    @property
    def open(self) -> dict[Key, Open]:
        """The events that have not ended."""
        return self._open

    def update(self, tick: Tick, closing: Row) -> list[Record]:
        """The event records of one tick."""
        records = self._end_of_boot(closing)
        self._asleep += closing.get("asleep_s", 0.0)
        before, self._clock = self._clock, closing["mono_ns"] / 1e9 + self._asleep
        dt = self._clock - before if self._last is not None else 0.0
        records += self._take_up(tick, closing)
        self._last = closing
        self._stays.update(tick, closing["ts"], self._clock, dt)
        rows = tick.processes
        for key, event in list(self._open.items()):
            row = self._row_now(event, rows)
            if row is not None:
                records += self._follow(event, row, closing["ts"], dt)
            elif event.unit is not None:
                records += self._miss(event, closing["ts"], "exited")
            elif tick.partial and key not in tick.exited:
                records += self._miss(event, closing["ts"])
            else:
                replaced = any(other[0] == key[0] for other in rows) and not tick.partial
                records.append(self._exit(event, closing["ts"], "replaced" if replaced else "exited"))
        for subject, stay in self._stays.due(self._clock):
            records += self._due(subject, stay, rows, closing)
        kept = self._selector.rogues(tick)
        self.picked = kept
        others = {key: rows[key] for key in self._open if key in rows and key not in kept}
        self._ring.push(closing, {**kept, **others} if others else kept)
        return records

    def stop(self) -> list[Record]:
        """The toolkit ends, the processes do not: every open event ends as stopped, at the last tick. Without any tick
        nothing is known of restored events but when they were last seen."""
        if self._last is None:
            return [self._exit(event, event.seen, "crashed") for event in self._restored]
        return [self._exit(event, self._last["ts"], "stopped") for event in list(self._open.values())]

    # -- one event -----------------------------------------------------------------------------------------------

    def _end_of_boot(self, closing: Row) -> list[Record]:
        """A recording may span a restart of the machine: all open events end there."""
        if self._last is None or self._last["boot_id"] == closing["boot_id"]:
            return []
        self._ring = Ring(self._ring.size)
        self._stays = Stays(self._bands, self._set)
        return [self._exit(event, event.seen, "crashed") for event in list(self._open.values())]

    def _take_up(self, tick: Tick, closing: Row) -> list[Record]:
        """On the first tick: a restored event continues if its process still lives, else it ended with the crash."""
        records = []
        for event in self._restored:
            row = tick.processes.get(event.key)
            if event.boot_id == closing["boot_id"] and (row is not None or tick.partial):
                event.row = row or event.row
                event.begun, event.above = self._clock - event.lasted, self._clock
                event.checkpoint = self._clock
                self._open[event.key] = event
            else:
                records.append(self._exit(event, event.seen, "crashed"))
        self._restored = []
        return records

    def _row_now(self, event: Open, rows: Mapping[Key, Row]) -> Row | None:
        """The subject of an event, as it is in this tick; None if it exited."""
        if event.unit is None:
            return rows.get(event.key)
        together = self._stays.units.get(event.unit)
        if together is None:
            return {**event.row, "score": 0} if event.key in rows else None
        event.processes = max(event.processes, len(together.members))
        return row_of_unit(rows.get(event.key) or event.row, together)

    def _due(self, subject: Subject, stay: Stay, rows: Mapping[Key, Row], closing: Row) -> list[Record]:
        """Begin the event of a process or unit, unless an open one covers it."""
        if isinstance(subject, str):
            if any(event.row.get("unit") == subject for event in self._open.values()):
                return []
            # What one process alone does is its own event; but only the first: a test suite is not one event a test.
            leader = stay.leader() if not stay.events else None
            if stay.events:
                stay.entered, stay.begun, stay.points = closing["ts"], self._clock, {}
            stay.events += 1
            if leader is not None and leader in rows:
                return [self._begin(leader, rows[leader], self._stays.of(leader) or stay, closing)]
            members = [(key[1], key[0]) for key, row in rows.items() if row.get("unit") == subject]
            start, pid = min(members)
            together = self._stays.units[subject]
            return [self._begin((pid, start), row_of_unit(rows[pid, start], together), stay, closing, subject,
                                len(together.members))]
        unit = rows[subject].get("unit")
        whole = self._stays.of(unit) if unit is not None else None
        open_ = [event for event in self._open.values() if unit is not None and event.row.get("unit") == unit]
        if subject in self._open or any(event.unit is not None for event in open_) or (whole is not None and not open_):
            return []
        return [self._begin(subject, rows[subject], stay, closing)]

    def _begin(self, key: Key, row: Row, stay: Stay, closing: Row, unit: str | None = None,
               processes: int = 0) -> Record:
        boot = closing["boot_id"]
        band = self._bands.of(row["score"])
        name = f"{boot[:8]}-{key[0]}-{key[1]}-{round(stay.entered * 1000)}"
        event = self._open[key] = Open(
            name, boot, key, stay.entered, closing["ts"], band, row["score"], band, row, self._clock, begun=stay.begun,
            above=self._clock, points=dict(stay.points), unit=unit, processes=processes)
        return self._record("enter", event, closing["ts"])

    def _follow(self, event: Open, row: Row, ts: float, dt: float) -> list[Record]:
        event.row, event.seen = row, ts
        score = row.get("score", 0)
        if score >= self._enter:
            event.above = self._clock
            resource = row.get("dominant_resource") or row.get("dominant_category") or ""
            event.points[resource] = event.points.get(resource, 0.0) + score * dt
        records = []
        if score < self._leave:
            event.below += 1
            if event.below >= self._set.exit_ticks and self._rested(event):
                return [self._exit(event, ts, "below_threshold")]
            if event.below == self._set.exit_ticks:
                event.checkpoint = self._clock
                return [self._record("checkpoint", event, ts)]
        else:
            event.below = 0
        if self._moved_band(event, score):
            records.append(self._record("band", event, ts))
        if score > event.peak_score:
            event.peak_score, event.peak_band = score, self._bands.of(score)
            records.append(self._record("peak", event, ts))
        elif self._clock - event.checkpoint >= self._set.checkpoint_s:
            event.checkpoint = self._clock
            records.append(self._record("checkpoint", event, ts))
        return records

    def _rested(self, event: Open) -> bool:
        """Whether it has been below for as long as it had lasted, a minute at most: the event of a test suite that
        waits for a moment continues."""
        lasted = event.above - event.begun if event.begun is not None else event.lasted
        return self._clock - event.above >= min(REST_S, lasted) - ROUNDING_S

    def _moved_band(self, event: Open, score: int) -> bool:
        """A higher band counts at once; a lower one as an exit would: by the margin, for so many ticks."""
        now = self._bands.of(score)
        if BANDS.index(now) > BANDS.index(event.band):
            event.band, event.band_below = now, 0
            return True
        if score >= self._bands.start(event.band) - self._set.exit_margin:
            event.band_below = 0
            return False
        event.band_below += 1
        if event.band_below < self._set.exit_ticks or score < self._enter:
            return False
        event.band, event.band_below = now, 0
        return True

    def _miss(self, event: Open, ts: float, reason: str = "below_threshold") -> list[Record]:
        """A tick without the process or unit: it used too little to be listed, or others may follow it."""
        event.below += 1
        if event.below >= self._set.exit_ticks:
            return [self._exit(event, ts, reason)]
        return []

    def _exit(self, event: Open, ts: float, reason: str) -> Record:
        self._open.pop(event.key, None)
        self._stays.forget(event.unit or event.key)
        whole = self._stays.of(event.row.get("unit", ""))
        if whole is not None:       # what is left of its unit must last again
            whole.lasted = whole.critical = 0.0
        return self._record("exit", event, ts, reason)

    def _record(self, kind: str, event: Open, ts: float, reason: str | None = None) -> Record:
        row = event.row
        lasted = event.lasted if event.begun is None else max(0.0, event.above - event.begun)
        snapshot: dict[str, Any] = {name: row[name] for name in _SNAPSHOT if name in row}
        snapshot.update(pid=event.key[0], start_ticks=event.key[1], band=event.band)
        most = max(event.points, key=lambda name: (event.points[name], name), default="")
        for name in ("dominant_resource", "dominant_category"):
            if most and name in snapshot:
                snapshot[name] = most
        if "start_time" in row:
            snapshot["age_s"] = round(max(0.0, ts - row["start_time"]), 2)
        return record("event", ts=ts, kind=kind, event=event.event, boot_id=event.boot_id, entered=event.entered,
                      duration_s=round(lasted, 3), scope="process" if event.unit is None else "unit",
                      processes=event.processes or None, peak_score=event.peak_score,
                      peak_band=event.peak_band, reason=reason, **snapshot,
                      **(self._ring.ranges(event.key, row) if row else {}))
