"""Tracking: a process that stays at or above the tracking band is one event, with a beginning and an end.

An event is one `event` record when it begins (enter), when it reaches a higher band or has left one (band), at a new
highest score (peak), every 30 s (checkpoint) and when it ends (exit), each with the whole row of the process and the
lowest and highest of every metric over the last 20 s.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from rogue_hunter.config.options import Bands, Config
from rogue_hunter.schema.field import BANDS, Key
from rogue_hunter.schema.sampling import SNAPSHOT
from rogue_hunter.scoring.selection import Selector
from rogue_hunter.stream.tick import Record, Row, Tick, record
from rogue_hunter.tracking.ring import Ring

_SNAPSHOT = tuple(f.name for f in SNAPSHOT)


@dataclass(slots=True)
class Open:
    """An event that has not ended.

    `entered` and `seen` are epoch seconds; `begun` and `checkpoint` are on the tracker's own clock, which nobody sets:
    `begun` is None until the tracker has taken the event up. `row` is the last one known.
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


class Track:
    """The stage: adds `event` records, and the rogues of the tick and of the last ticks.

    `restored` are the events that were open when the last tracker ended without closing them.
    """

    def __init__(self, config: Config, model: str | None = None, restored: Iterable[Open] = ()) -> None:
        self._model = model
        self._restored = list(restored)
        self._tracker: Tracker | None = None
        self._old: Tracker | None = None
        self._made_of: tuple[object, ...] | None = None
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Use these settings from the next tick on: open events stay open, and the ring is kept."""
        bands = config.bands_of(self._model or config.scoring.model)
        made_of = (bands, config.tracking, config.rogue_selection, config.system.ring_ticks)
        if made_of != self._made_of:
            self._made_of, self._config, self._bands = made_of, config, bands
            self._old = self._old or self._tracker
            self._tracker = None

    def __call__(self, tick: Tick) -> Tick:
        """The tick with its events, `rogues` and `recent`."""
        if tick.row is None:
            return tick
        if self._tracker is None:
            self._tracker = self._begin(tick, tick.row)
        tick.records.extend(self._tracker.update(tick, tick.row))
        tick.rogues, tick.recent = self._tracker.picked, self._tracker.ring.ticks()
        return tick

    def _begin(self, tick: Tick, closing: Row) -> Tracker:
        """A tracker of the settings in force, which takes over what the one before knows."""
        old, self._old = self._old, None
        if old is None:
            return Tracker(self._config, self._bands, self._restored)
        living = [old.open.pop(key) for key in list(old.open) if key in tick.processes or tick.partial]
        new = Tracker(self._config, self._bands, living)
        for before, rows in old.ring.ticks():
            new.ring.push(before, rows)
        if old.open:  # events whose processes have ended
            tick.records.extend(old.update(Tick(closing, tick.processes), closing))
        # The new selection has to look at the state of every process once.
        tick.changed = set(tick.processes)
        return new

    def close(self) -> list[Record]:
        """The toolkit ends, the processes do not: every open event ends. Those that no tick has confirmed, because none
        came, end as crashed when their process was last seen."""
        tracker = self._tracker or self._old
        return tracker.stop() if tracker is not None else Tracker(self._config, self._bands, self._restored).stop()


class Tracker:
    """The open events of one stream of ticks."""

    def __init__(self, config: Config, bands: Bands, restored: Iterable[Open] = ()) -> None:
        self._bands = bands
        self._set = config.tracking
        self._enter = bands.start(bands.tracking)
        self._leave = max(1, self._enter - config.tracking.exit_margin)
        self._ring = Ring(config.system.ring_ticks)
        self._selector = Selector(config.rogue_selection)
        self.picked: dict[Key, Row] = {}
        """The rogues of the last tick."""
        self._restored = list(restored)
        self._open: dict[Key, Open] = {}
        self._last: Row | None = None
        self._clock = 0.0
        """Seconds, time asleep included, since whenever: how long events last is measured by it."""
        self._asleep = 0.0

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
        self._clock = closing["mono_ns"] / 1e9 + self._asleep
        records += self._take_up(tick, closing)
        self._last = closing
        rows = tick.processes
        for key, event in list(self._open.items()):
            row = rows.get(key)
            if row is not None:
                records += self._follow(event, row, closing["ts"])
            elif tick.partial and key not in tick.exited:
                records += self._miss(event, closing["ts"])
            else:
                replaced = any(other[0] == key[0] for other in rows) and not tick.partial
                records.append(self._exit(event, closing["ts"], "replaced" if replaced else "exited"))
        for key in sorted(tick.scored - self._open.keys()):
            row = rows[key]
            if row["score"] >= self._enter:
                records.append(self._begin(key, row, closing))
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
        """A recording may go on after a restart of the machine: nothing that was open lives on."""
        if self._last is None or self._last["boot_id"] == closing["boot_id"]:
            return []
        self._ring = Ring(self._ring.size)
        return [self._exit(event, event.seen, "crashed") for event in list(self._open.values())]

    def _take_up(self, tick: Tick, closing: Row) -> list[Record]:
        """On the first tick: restored events go on if their process still lives, else they ended with the crash."""
        records = []
        for event in self._restored:
            row = tick.processes.get(event.key)
            if event.boot_id == closing["boot_id"] and (row is not None or tick.partial):
                event.row = row or event.row
                event.begun = self._clock - max(0.0, closing["ts"] - event.entered)
                event.checkpoint = self._clock
                self._open[event.key] = event
            else:
                records.append(self._exit(event, event.seen, "crashed"))
        self._restored = []
        return records

    def _begin(self, key: Key, row: Row, closing: Row) -> Record:
        ts = closing["ts"]
        boot = closing["boot_id"]
        band = self._bands.of(row["score"])
        name = f"{boot[:8]}-{key[0]}-{key[1]}-{round(ts * 1000)}"
        event = self._open[key] = Open(name, boot, key, ts, ts, band, row["score"], band, row, self._clock,
                                       begun=self._clock)
        return self._record("enter", event, ts)

    def _follow(self, event: Open, row: Row, ts: float) -> list[Record]:
        event.row, event.seen = row, ts
        score = row.get("score", 0)
        records = []
        if score < self._leave:
            event.below += 1
            if event.below >= self._set.exit_ticks:
                return [self._exit(event, ts, "below_threshold")]
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

    def _miss(self, event: Open, ts: float) -> list[Record]:
        """A partial tick without the process: it used too little to be listed."""
        event.below += 1
        if event.below >= self._set.exit_ticks:
            return [self._exit(event, ts, "below_threshold")]
        return []

    def _exit(self, event: Open, ts: float, reason: str) -> Record:
        self._open.pop(event.key, None)
        return self._record("exit", event, ts, reason)

    def _record(self, kind: str, event: Open, ts: float, reason: str | None = None) -> Record:
        row = event.row
        lasted = max(0.0, ts - event.entered if event.begun is None else self._clock - event.begun)
        snapshot: dict[str, Any] = {name: row[name] for name in _SNAPSHOT if name in row}
        snapshot.update(pid=event.key[0], start_ticks=event.key[1], band=event.band)
        if "start_time" in row:
            snapshot["age_s"] = round(max(0.0, ts - row["start_time"]), 2)
        return record("event", ts=ts, kind=kind, event=event.event, boot_id=event.boot_id, entered=event.entered,
                      duration_s=round(lasted, 3), peak_score=event.peak_score,
                      peak_band=event.peak_band, reason=reason, **snapshot,
                      **(self._ring.ranges(event.key, row) if row else {}))
