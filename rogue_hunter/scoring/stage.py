"""The score stage, for either model, and the filter of --min-score and --top."""

from __future__ import annotations

from rogue_hunter.config.options import Config
from rogue_hunter.schema.field import Key
from rogue_hunter.scoring.share import ShareModel
from rogue_hunter.scoring.stress import StressModel
from rogue_hunter.stream.tick import Row, Tick


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
