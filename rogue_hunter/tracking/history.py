"""The stage that turns ticks into history: slices of five seconds, and minutes made from them."""

from __future__ import annotations

from rogue_hunter.config.options import Config
from rogue_hunter.stream.tick import Record, Row, Tick
from rogue_hunter.tracking.minutes import Minute
from rogue_hunter.tracking.slices import Slicer


class History:
    """The stage: adds ticks up; `slicer` holds the running slice and the last complete ones."""

    def __init__(self, config: Config, model: str | None = None) -> None:
        bands = config.bands_of(model or config.scoring.model)
        self.slicer = Slicer(bands.start(bands.tracking))
        self._top = config.minutes.top
        self._minute: Minute | None = None

    def __call__(self, tick: Tick) -> Tick:
        """The tick with the records of the slice, and of the minute, that ended before it."""
        if tick.row is not None:
            if self.slicer.ends(tick.row):
                tick.records.extend(self._end(tick.row))
            self.slicer.add(tick, tick.row)
        return tick

    def close(self) -> list[Record]:
        """The records of what was not complete when the ticks ended."""
        return self._end(None)

    def _end(self, closing: Row | None) -> list[Record]:
        """End the running slice, and the minute unless the next tick, with `closing`, belongs to it too."""
        ended, last = self.slicer.finish(), self.slicer.last
        if ended is None or last is None:
            return []
        if self._minute is None:
            self._minute = Minute(ended)
        minute = self._minute
        minute.add(ended)
        made = self.slicer.records(ended)
        if closing is None or not minute.holds(closing):
            self._minute = None
            made += minute.records(last.processes.values(), self._top)
        return made
