"""The score stage, for either model, the filter of --min-score and --top, and the selection of rogues."""

from __future__ import annotations

from heapq import nlargest

from rogue_hunter.config.options import Config, RogueSelection
from rogue_hunter.schema.field import CATEGORIES, Key
from rogue_hunter.scoring.share import ShareModel
from rogue_hunter.scoring.stress import StressModel
from rogue_hunter.stream.tick import Row, Tick


class Selector:
    """Picks the rogues of each tick. Keeps the states of processes, so that only changes cost."""

    def __init__(self, settings: RogueSelection) -> None:
        self._set = settings
        self._states: dict[str, dict[Key, None]] = {state: {} for state in settings.states}
        self._picked: dict[Key, Row] | None = None

    def rogues(self, tick: Tick) -> dict[Key, Row]:
        """The rogues of the tick, highest score first, then the picks by category and by state."""
        if tick.steady and self._picked is not None:
            return self._picked
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
        self._picked = picked
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


class Score:
    """The stage: scores every process by the configured model, unless another is named."""

    def __init__(self, config: Config, model: str | None = None, explain: bool = False) -> None:
        self._named, self._explain = model, explain
        self._made_of: tuple[object, ...] | None = None
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Use these settings: a changed model begins without averages and scores every process again."""
        made_of = (config.scoring, config.bands)
        if made_of == self._made_of:
            return
        self._made_of, self._fresh = made_of, True
        self._name = self._named or config.scoring.model
        self._model: ShareModel | StressModel = (
            StressModel(config.scoring.stress, self._explain) if self._name == "stress" else
            ShareModel(config.scoring.share, config.bands, self._explain))

    def __call__(self, tick: Tick) -> Tick:
        """The tick with scored rows."""
        if self._fresh and tick.row is not None:
            self._fresh = False
            tick.changed = set(tick.processes)
        return self._model(tick)

    def state(self) -> dict[str, str]:
        """The model in use."""
        return {"model": self._name}


class Least:
    """A stage that leaves out rows: scores below `min_score`, and all but the `top` highest, highest first."""

    def __init__(self, min_score: int | None = None, top: int | None = None) -> None:
        self._min_score, self._top = min_score, top
        self._before: dict[Key, Row] = {}

    def __call__(self, tick: Tick) -> Tick:
        """The tick with the selected rows."""
        if tick.row is None:
            return tick
        kept = tick.processes
        if self._min_score is not None:
            kept = {key: row for key, row in kept.items() if row.get("score", 0) >= self._min_score}
        if self._top is not None:
            kept = dict(sorted(kept.items(), key=lambda item: -item[1].get("score", 0))[:self._top])
        made = tick.with_rows(kept, self._before)
        self._before = kept
        return made
