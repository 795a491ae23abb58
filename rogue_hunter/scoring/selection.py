"""Rogue selection: which scored processes are shown, kept in the ring and sent to clients."""

from __future__ import annotations

from heapq import nlargest

from rogue_hunter.config.options import RogueSelection
from rogue_hunter.schema.field import CATEGORIES, Key
from rogue_hunter.stream.tick import Row, Tick


class Selector:
    """Picks the rogues of each tick. Keeps the states of processes, so that only changes cost."""

    def __init__(self, settings: RogueSelection) -> None:
        self._set = settings
        self._states: dict[str, dict[Key, None]] = {state: {} for state in settings.states}

    def rogues(self, tick: Tick) -> dict[Key, Row]:
        """The rogues of the tick, highest score first, then the picks by category and by state."""
        s = self._set
        rows = tick.processes
        # Equal scores are ordered by identity: the order of a set differs from run to run.
        ranked = nlargest(s.top, tick.scored,
                          key=lambda key: (rows[key]["score"], rows[key].get("cpu_percent", 0.0), key))
        picked = {key: rows[key] for key in ranked}
        for name in CATEGORIES:
            field = name + "_score"
            # Rows of the share model have no categories and are not picked here, even if the minimum is 0.
            some = [key for key in tick.scored if field in rows[key] and rows[key][field] >= s.category_minimum]
            for key in nlargest(s.per_category, some, key=lambda key: (float(rows[key][field]), key)):
                picked.setdefault(key, rows[key])
        self._keep_states(tick)
        for held in self._states.values():
            for key in list(held)[: s.per_state]:
                picked.setdefault(key, rows[key])
        return picked

    def _keep_states(self, tick: Tick) -> None:
        for held in self._states.values():
            for key in [key for key in held if key not in tick.processes]:
                del held[key]
        for key in sorted(tick.changed):
            state = tick.processes[key].get("state")
            for name, held in self._states.items():
                if state == name:
                    held[key] = None
                else:
                    held.pop(key, None)
