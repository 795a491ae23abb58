"""The stress model: what harm does a process do to the machine, in four categories of 0 to 100?

    score = 0.40 blocking + 0.30 contention + 0.20 pressure + 0.10 efficiency, times the multiplier of its state

Every input counts as min(1, value / norm). Unknown inputs are left out and the weights of the others are scaled to
100, so that processes do not look harmless on a platform that cannot measure something.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rogue_hunter.config.options import Stress
from rogue_hunter.schema.field import CATEGORIES, STATES, Key
from rogue_hunter.stream.tick import Row, Tick

INPUTS: dict[str, tuple[tuple[str, float], ...]] = {
    "blocking": (("pageins_per_s", 35), ("disk_bytes_per_s", 35), ("faults_per_s", 30)),
    "contention": (("run_delay_ms_per_s", 30), ("context_switches_per_s", 30), ("cpu_percent", 25),
                   ("qos_interactive_ms_per_s", 15)),
    "pressure": (("memory_bytes", 35), ("wakeups_per_s", 25), ("syscalls_per_s", 20), ("mach_messages_per_s", 20)),
    "efficiency": (("ipc", 60), ("threads", 40)),
}
"""Category -> inputs and their points when they count in full."""


class StressModel:
    """The stress model as a stage. A row's score depends on that row alone, so only changed rows are scored."""

    def __init__(self, settings: Stress, explain: bool = False) -> None:
        self._set, self._explain = settings, explain
        self._sources: Mapping[Key, Row] = {}
        self._rows: dict[Key, Row] = {}
        self._scored: set[Key] = set()

    def __call__(self, tick: Tick) -> Tick:
        """The tick with every process scored."""
        if tick.row is None:
            return tick
        before, sources = self._rows, self._sources
        rows: dict[Key, Row] = {}
        for key, row in tick.processes.items():
            known = before.get(key)
            rows[key] = known if known is not None and sources.get(key) is row else \
                score_row(self._set, row, self._explain)
        self._sources, self._rows = tick.processes, rows
        changed = {key for key, row in rows.items() if before.get(key) is not row}
        self._scored = {key for key in self._scored | changed if key in rows and rows[key]["score"]}
        top = max((rows[key]["score"] for key in self._scored), default=0)
        return Tick({**tick.row, "max_score": top}, rows, changed, tick.exited, self._scored, tick.records)


def part(settings: Stress, name: str, value: float) -> float:
    """How far an input counts, 0..1."""
    if name == "ipc":
        return min(1.0, max(0.0, 1.0 - value / settings.ipc_minimum))
    norm: float = getattr(settings, name)
    return min(1.0, max(0.0, value / norm))


def category(settings: Stress, name: str, row: Row) -> tuple[float, list[dict[str, Any]]]:
    """A category's score, 0..100, and the points of each known input."""
    known = [(metric, points, row[metric]) for metric, points in INPUTS[name] if row.get(metric) is not None]
    scale = 100.0 / sum(points for _, points, _ in known) if known else 0.0
    terms = [{"category": name, "input": metric, "value": value,
              "points": part(settings, metric, value) * points * scale} for metric, points, value in known]
    return sum(t["points"] for t in terms), terms


def multiplier(settings: Stress, row: Row) -> float:
    """The multiplier of the state; a process that used the CPU in the tick counts as running."""
    state = row.get("state", "running")
    if state in ("running", "uninterruptible") or row.get("cpu_percent", 0.0) >= settings.running_percent:
        return 1.0
    # The state comes from a record and may be any word: only known states are looked up among the options.
    return float(getattr(settings, state, 1.0)) if state in STATES else 1.0


def score_row(settings: Stress, row: Row, explain: bool = False) -> Row:
    """The row with its stress score."""
    scores: dict[str, float] = {}
    terms: list[dict[str, Any]] = []
    for name in CATEGORIES:
        scores[name], parts = category(settings, name, row)
        if name == "blocking" and row.get("state") == "uninterruptible":
            scores[name] = 100.0
            parts = [{"category": name, "input": "state", "value": "uninterruptible", "points": 100.0}]
        terms += parts
    factor = multiplier(settings, row)
    total = factor * sum(scores[name] * getattr(settings, name + "_weight") for name in CATEGORIES)
    value = round(min(100.0, max(0.0, total)))
    out = row.copy()
    out["model"] = "stress"
    out["score"] = value
    out["band"] = settings.bands.of(value)
    for name in CATEGORIES:
        out[name + "_score"] = round(scores[name], 1)
    dominant = max(CATEGORIES, key=lambda name: scores[name])
    if scores[dominant] > 0:
        out["dominant_category"] = dominant
        ranked = sorted((t for t in terms if t["category"] == dominant and t["points"] > 0), key=lambda t: -t["points"])
        out["dominant_metrics"] = [f"{t['input']}:{_short(t['value'])}" for t in ranked[:3]]
    if explain:
        weights = {name: getattr(settings, name + "_weight") * factor for name in CATEGORIES}
        out["terms"] = [{**t, "points": round(t["points"] * weights[t["category"]], 2)}
                        for t in sorted(terms, key=lambda t: -t["points"] * weights[t["category"]])]
    return out


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) and value != int(value) else str(
        int(value) if isinstance(value, float) else value)
