"""The score stage, for either model, and the filter of --min-score and --top."""

from __future__ import annotations

from collections.abc import Iterator

from rogue_hunter.config.options import Config
from rogue_hunter.schema.field import Key
from rogue_hunter.scoring.share import share
from rogue_hunter.scoring.stress import stress
from rogue_hunter.stream.tick import Row, Stage, Tick

__all__ = ["least", "score", "share", "stress"]


def score(config: Config, model: str | None = None, explain: bool = False) -> Stage:
    """The stage of the named model; by default of the configured one."""
    model = model or config.scoring.model
    if model == "stress":
        return stress(config.scoring.stress, explain)
    return share(config.scoring.share, config.bands, explain)


def least(min_score: int | None = None, top: int | None = None) -> Stage:
    """A stage that drops rows: scores below `min_score`, and all but the `top` highest, highest first."""

    def stage(ticks: Iterator[Tick]) -> Iterator[Tick]:
        before: dict[Key, Row] = {}
        for tick in ticks:
            if tick.row is None:
                yield tick
                continue
            kept = tick.processes
            if min_score is not None:
                kept = {key: row for key, row in kept.items() if row.get("score", 0) >= min_score}
            if top is not None:
                ranked = sorted(kept.items(), key=lambda item: -item[1].get("score", 0))
                kept = dict(ranked[:top])
            changed = {key for key, row in kept.items() if before.get(key) is not row}
            made = Tick(tick.row, kept, changed, (), tick.scored & kept.keys(), tick.records)
            if not made.partial:
                made.exited = tick.exited
            # Otherwise a process that exited cannot be told from one that was left out: the records do not have it.
            yield made
            before = kept

    return stage
