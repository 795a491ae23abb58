"""The view diff: two recordings of scored ticks, and which commands are in another band in the second."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rogue_hunter.report.queries import Source
from rogue_hunter.report.render import Answer, Style, table
from rogue_hunter.report.sentences import cause
from rogue_hunter.report.views.view import Asked, columns, more
from rogue_hunter.schema.field import BANDS
from rogue_hunter.store.database import DatabaseError
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Record, record
from rogue_hunter.text.format import duration


@dataclass(slots=True)
class Seen:
    """A command in one recording: seconds in each band, summed over its processes, and the highest score."""

    score: int = -1
    band: str = BANDS[0]
    reason: str = ""
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recording:
    """What a recording holds: commands by name, ticks, and what was wrong with it (nothing: an empty text)."""

    commands: dict[str, Seen]
    ticks: int
    wrong: str


def diff(_: Source, asked: Asked) -> Answer:
    """Commands whose highest band differs, the largest difference first. Raises DatabaseError, 65, OSError."""
    first, second = asked.which
    if first == second == "-":
        raise DatabaseError("only one of the recordings can be standard input", 2)
    a, b = (_recording(name) for name in (first, second))
    found = [one for one in compare(a, b) if one["change"] != "same"
             and asked.period.text.lower() in str(one["command"]).lower()]
    same = len(a.commands.keys() | b.commands.keys()) - len(found)
    limit = asked.rows(40)
    shown = found[:limit] if limit else found
    notes = [f"{name}: {one.wrong}" for name, one in ((first, a), (second, b)) if one.wrong]

    def text(look: Style) -> str:
        up, down = (sum(one["bands"] > 0 for one in found), sum(one["bands"] < 0 for one in found))
        head = f"commands in B: worse: {up}, better: {down}, same: {same} ({a.ticks} ticks in A, {b.ticks} in B)\n"
        if not found:
            return head
        rows = [[one["change"], f"{one['bands']:+d}",
                 *(cell for side in "ab" for cell in (
                     str(one.get(f"score_{side}", "")), look.band(one.get(f"band_{side}"), one.get(f"band_{side}")),
                     duration(one.get(f"seconds_{side}")), str(one.get(f"reason_{side}", "")))),
                 one["command"]] for one in shown]
        heads = ["CHANGE", "BANDS", "SCORE-A", "BAND-A", "FOR-A", "CAUSE-A", "SCORE-B", "BAND-B", "FOR-B", "CAUSE-B",
                 "COMMAND"]
        return (head + "\n" + table(heads, rows, look, right="BANDS SCORE-A FOR-A SCORE-B FOR-B",
                        drop="FOR-A FOR-B CAUSE-A SCORE-A SCORE-B CAUSE-B BANDS BAND-A BAND-B")
                + more(len(shown), len(found)))

    return Answer(shown, text, columns=columns("report_diff"), notes=notes, code=65 if notes else 0)


def compare(a: Recording, b: Recording) -> list[Record]:
    """A record report_diff for every command of both, the largest difference of bands first, then of scores."""
    made = []
    for name in a.commands.keys() | b.commands.keys():
        was, now = a.commands.get(name), b.commands.get(name)
        bands = (BANDS.index(now.band) if now else 0) - (BANDS.index(was.band) if was else 0)
        change = "new" if was is None else "gone" if now is None else "same" if not bands else \
            "up" if bands > 0 else "down"
        # A command that is in one recording only and never left the lowest band is no difference worth a line.
        if change in ("new", "gone") and not bands:
            change = "same"
        made.append(record("report_diff", command=name, change=change, bands=bands, **_side("a", was),
                           **_side("b", now)))
    return sorted(made, key=lambda one: (-abs(one["bands"]), -abs(one.get("score_b", 0) - one.get("score_a", 0)),
                                         one["command"]))


def _side(side: str, seen: Seen | None) -> dict[str, Any]:
    if seen is None:
        return {}
    return {f"band_{side}": seen.band, f"score_{side}": seen.score, f"reason_{side}": seen.reason or None,
            f"seconds_{side}": round(seen.seconds.get(seen.band, 0.0), 3)}


def _recording(name: str) -> Recording:
    with open(0 if name == "-" else name, "rb", closefd=name != "-") as file:
        reader = wire.Reader(file, "rh-report")
        made = read(reader)
    if not made.ticks:
        raise DatabaseError(f"{name}: holds no tick" + (f"; {reader.first_bad}" if reader.bad else ""), 65)
    if not any(one.score >= 0 for one in made.commands.values()):
        raise DatabaseError(f"{name}: holds no scores; run it through rh-score", 65)
    return made


def read(reader: wire.Reader) -> Recording:
    """All processes and ticks of `reader`, one tick at a time: a recording may be larger than memory."""
    commands: dict[str, Seen] = {}
    ticks = 0
    for tick in reader.ticks():
        if tick.row is None:
            continue
        ticks += 1
        seconds = float(tick.row.get("interval_s") or 0.0)
        for row in tick.processes.values():
            if "score" not in row:
                continue
            seen = commands.setdefault(str(row.get("command") or "?"), Seen())
            band, score = row.get("band", BANDS[0]), int(row["score"])
            seen.seconds[band] = seen.seconds.get(band, 0.0) + seconds
            if score > seen.score:
                seen.score, seen.band, seen.reason = score, band, cause(row) if score else ""
    wrong = f"{reader.bad} lines could not be used; {reader.first_bad}" if reader.bad else ""
    if reader.truncated:
        wrong = f"{wrong}; " * bool(wrong) + f"cut short: {reader.truncated}; the incomplete tick was dropped"
    return Recording(commands, ticks, wrong)
