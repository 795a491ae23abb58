"""From the evidence of a stretch of time to ranked causes, each with who is behind it and the numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rogue_hunter.report import history, shortage
from rogue_hunter.report.database import Source
from rogue_hunter.report.evidence import USUAL_OF_COMMANDS, Scene, as_minute, inside
from rogue_hunter.report.history import Minute
from rogue_hunter.report.pause_text import culprit_words, pause_words
from rogue_hunter.report.sentences import cause as dominant
from rogue_hunter.report.sentences import command_line, moment, name, number, percent, share
from rogue_hunter.report.shortage import Judged
from rogue_hunter.stream.tick import Record
from rogue_hunter.text.format import clip, duration, size

NAMED = 0.2
"""Who used less than this part of something is not called its cause."""
GREW = 0.05
"""A command whose memory is above its usual by this part of all memory is named before those who always hold much."""
AT_MOST = 120
"""Minutes of one cause whose commands are added up: the worst ones."""

PAUSE_POINTS, PAUSE_POINTS_PER_S = 60.0, 10.0
"""Points of a pause, and of each second of it: four seconds are the worst that can be."""
LESS = {"unknown": 20.0, "stopped": 30.0}
"""Points that a pause has less which says nothing of the machine. One beside what was asked for has 10 less, too."""

_Words = Callable[[float], str]
_COLUMN: dict[str, tuple[str, bool, _Words]] = {
    "cpu": ("cpu_seconds", True, lambda v: f"{number(round(v, 2))} cores"),
    "memory": ("memory_bytes", False, size),
    "io": ("disk_bytes", True, lambda v: f"{size(v)}/s"),
    "gpu": ("gpu_seconds", True, lambda v: f"{percent(v)} of a GPU"),
    "wakeups": ("wakeups", True, lambda v: f"{number(round(v))} wakeups/s"),
}
"""Cause -> column of command_minutes, whether it is a sum over time, and the words for it."""
_VERB = {"cpu": "used", "memory": "held", "io": "moved", "gpu": "used", "wakeups": "made"}
_AS_CAUSE = {"disk": "io", "cpu": "cpu", "memory": "memory", "gpu": "gpu", "wakeups": "wakeups"}


@dataclass(frozen=True, slots=True)
class Cause:
    """One answer. `who` are the commands that used most of what was short, most first."""

    cause: str
    points: float
    words: str
    at: float | None = None
    command: str | None = None
    pid: int | None = None
    who: Sequence[dict[str, Any]] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)

    def fields(self) -> dict[str, Any]:
        """As it stands in a record."""
        made = {"cause": self.cause, "points": self.points, "words": self.words, "at": self.at,
                "command": self.command, "pid": self.pid, "who": list(self.who) or None, **self.numbers}
        return {key: value for key, value in made.items() if value is not None}


Verdicts = Sequence[tuple[Mapping[str, Any], Mapping[str, Judged]]]
"""Minutes, each with what it says of every resource."""


def verdicts(scene: Scene) -> Verdicts:
    """What each minute of the scene says, or of many those that may matter; where there is none, each pause in it."""
    minutes: list[Mapping[str, Any]] = list(scene.minutes) or [
        as_minute(p["evidence"]) for p in scene.pauses if inside(p, scene)]
    if len(minutes) > AT_MOST:
        short = [m for m in minutes if shortage.may_be_short(m)]
        seen = {id(m) for m in short}
        minutes = [*short, *(m for m in shortage.extremes(minutes) if id(m) not in seen)]
    return [(minute, shortage.judge(minute, scene.usual)) for minute in minutes]


def causes(source: Source, scene: Scene, judged: Verdicts, *, beside: bool = False) -> list[Cause]:
    """What was short or stood out, the most likely first. `beside`: the scene lies beside what was asked for."""
    found = [*_pauses(source, scene), *_shortages(source, scene, judged if scene.minutes else (), beside)]
    named = {one.command for one in found}
    found += [one for one in _rogues(source, scene) if one.command not in named]
    return sorted((one for one in found if one.points >= shortage.NOTICED), key=lambda one: -one.points)


def ruled_out(scene: Scene, judged: Verdicts, found: Iterable[Cause]) -> list[Judged]:
    """Every resource that was not the cause, at its worst in the scene."""
    guilty = {one.cause for one in found}
    worst: dict[str, Judged] = {}
    for _, of_it in judged:
        for cause, one in of_it.items():
            if cause not in worst or one.points > worst[cause].points:
                worst[cause] = one
    late = worst.pop("unknown", None)
    left = [one for cause, one in worst.items() if cause not in guilty]
    if late is not None and not scene.pauses and "unknown" not in guilty:
        seconds = late.numbers["late_s"]
        left.append(Judged("pause", 0.0, lambda: f"the latest beat came {duration(seconds)} late", late.numbers))
    return left


# -- pauses ------------------------------------------------------------------------------------------------------------

def _pauses(source: Source, scene: Scene) -> list[Cause]:
    """One answer for the pauses of each cause."""
    by: dict[str, list[Record]] = {}
    for pause in scene.pauses:
        by.setdefault(pause["cause"], []).append(pause)
    return [_paused(source, scene, cause, these) for cause, these in by.items()]


def _paused(source: Source, scene: Scene, cause: str, these: Sequence[Record]) -> Cause:
    total = sum(p["duration_s"] for p in these)
    longest = max(these, key=lambda p: float(p["duration_s"]))
    points = PAUSE_POINTS + PAUSE_POINTS_PER_S * total - LESS.get(cause, 0.0)
    if not any(inside(p, scene) for p in these):
        points -= 10
    what = "rh-pipe itself was stopped" if cause == "stopped" else "paused"
    how = f"{what} {duration(total)} at {moment(longest['start'], source.now)}" if len(these) == 1 else \
        f"{what} {len(these)} times, {duration(total)} in all, the longest {duration(longest['duration_s'])} at " \
        f"{moment(longest['start'], source.now)}"
    first = longest["culprits"][0] if longest["culprits"] else None
    words = f"{how}{pause_words(longest)}"
    unexplained = longest.get("unexplained_share")
    if first is not None:
        words += f": {culprit_words(first)}"
        if unexplained is not None:
            words += f"; {percent(unexplained)} is of nobody seen"
    numbers = {"pauses": len(these), "pause_s": round(total, 3), "pause": longest["id"]}
    if unexplained is not None:
        numbers["unexplained_share"] = unexplained
    return Cause(cause, round(max(0.0, min(100.0, points)), 1), words, longest["start"],
                 first.get("command") if first else None, first["pid"] if first else None,
                 [{k: c[k] for k in ("command", "pid", "unit", "resource", "amount", "share") if k in c}
                  for c in longest["culprits"]], numbers)


# -- minutes -----------------------------------------------------------------------------------------------------------

def _shortages(source: Source, scene: Scene, judged: Verdicts, beside: bool) -> list[Cause]:
    """What the minutes say was short."""
    by: dict[str, list[tuple[Judged, Mapping[str, Any]]]] = {}
    for minute, of_it in judged:
        for cause, one in of_it.items():
            by.setdefault(cause, []).append((one, minute))
    if scene.slept is not None:
        left, right, asleep = scene.slept
        words = f"the machine was asleep for {duration(asleep)} between {moment(left, source.now)} and " \
                f"{moment(right, source.now)}"
        by["asleep"] = [(Judged("asleep", 95.0, lambda: words, {"asleep_s": asleep}), {"minute": left})]
    found = []
    steps = history.spread(source.reader, USUAL_OF_COMMANDS) if scene.usual else {}
    for cause, all_of_it in by.items():
        bad = sorted((pair for pair in all_of_it if pair[0].points >= shortage.NOTICED),
                     key=lambda pair: -pair[0].points)
        if bad:
            found.append(_short(source, scene, cause, bad, len(scene.minutes), steps, beside))
    return found + _others(source, scene, steps)


def _short(source: Source, scene: Scene, cause: str, bad: Sequence[tuple[Judged, Mapping[str, Any]]],
           of: int,
           steps: dict[str, int], beside: bool) -> Cause:
    worst, minute = bad[0]
    who: list[dict[str, Any]] = []
    if cause in _COLUMN:
        used = [m for _, m in bad[:AT_MOST]]
        who = users(source, cause, _commands(source, scene, used), used, steps)
    words = worst.words
    guilty = who[0] if who and who[0]["named"] else None
    if guilty is not None:
        words = f"{_used(cause, guilty)}; {words}"
    elif who:
        words = f"{words}; no command alone: the highest was {_used(cause, who[0])}"
    if of > 1 and not scene.live and not beside:
        words += f"; in {len(bad)} of {of} minutes, worst at {moment(minute['minute'], source.now)}"
    elif beside:
        words += f"; not in that minute, but at {moment(minute['minute'], source.now)}"
    labelled = "rogue" if cause == "rogue-hunter" else cause
    for one in who:
        one.pop("named")
    return Cause(labelled, worst.points, words, minute.get("minute"), guilty["command"] if guilty else None,
                 guilty.get("pid") if guilty else None, who, worst.numbers)


def users(source: Source, cause: str, commands: Sequence[Minute], minutes: Sequence[Mapping[str, Any]],
          steps: dict[str, int]) -> list[dict[str, Any]]:
    """The three commands that used most of it: amount (cores, bytes, bytes/s), share of the machine's, usual amount.

    `named` is True for one that can be called the cause.
    """
    column, flow, _ = _COLUMN[cause]
    seconds = max(0.001, sum(float(m.get("seconds") or 0.0) for m in minutes)) if flow else 1.0
    ranked = sorted(commands, key=lambda c: -float(c.get(column) or 0.0))[:6]
    seen = sum(float(c.get(column) or 0.0) for c in commands)
    whole = {"cpu": sum(m.get("cpu_busy_cores", 0.0) * m.get("seconds", 0.0) for m in minutes),
             "memory": max((m.get("memory_total_bytes", 0) for m in minutes), default=0),
             "io": sum(m.get("disk_bytes", 0) for m in minutes)}.get(cause, 0.0)
    made = []
    for c in ranked:
        amount = float(c.get(column) or 0.0)
        if amount <= 0:
            continue
        usual = _usual(source, c["command"], column, steps, flow)
        part = amount / (max(whole, seen if flow else 0.0) or 1.0)
        grown = cause == "memory" and usual is not None and whole > 0 and (amount - usual) / whole >= GREW
        made.append({"command": c["command"], "pid": c.get("pid"), "unit": c.get("unit"),
                     "processes": c.get("processes"),
                     "amount": round(amount / seconds, 3), "share": round(part, 4),
                     "usual": None if usual is None else round(usual, 3), "named": grown or part >= NAMED,
                     "score": c.get("max_score") or None, "grown": grown or None})
    made.sort(key=lambda one: (not one["grown"], -((one["amount"] - (one["usual"] or 0.0)) if one["grown"]
                                                    else one["amount"])))
    return [{k: v for k, v in one.items() if v is not None} for one in made[:3]]


def _usual(source: Source, command: str, column: str, steps: dict[str, int], flow: bool) -> float | None:
    """The median over other minutes, a second for flows; 0 for a command that was mostly too small to be recorded."""
    if not steps:
        return None
    values = history.command_sample(source.reader, command, column, steps)
    whole = (steps["last"] - steps["first"]) // steps["step"] + 1
    padded = [0.0] * max(0, whole - len(values)) + list(values.values())
    return shortage.median(padded) / (60.0 if flow else 1.0)


def _used(cause: str, one: Mapping[str, Any]) -> str:
    words = _COLUMN[cause][2]
    usual = one.get("usual")
    before = "" if usual is None else " (usually too little to record)" if not usual else f" (usually {words(usual)})"
    of = {"memory": "of all memory", "io": "of all that was seen"}.get(cause, "of what was used")
    many = one.get("processes", 1)
    who = name(one) if many == 1 and "pid" in one else clip(str(one["command"]), 40)
    who += f" ({many} processes)" if many > 1 else ""
    return f"{who} {_VERB[cause]} {words(one['amount'])}, {percent(one['share'])} {of}{before}"


def _commands(source: Source, scene: Scene, minutes: Sequence[Mapping[str, Any]]) -> list[Minute]:
    """The commands of these minutes; those of the last tick for a minute that is not over."""
    found = history.commands(source.reader, [m["minute"] for m in minutes])
    return found or list(scene.live)


def _others(source: Source, scene: Scene, steps: dict[str, int]) -> list[Cause]:
    """The GPU, of which the machine's row says nothing, and what wakes the CPUs all the time."""
    if not scene.minutes:
        return []
    minutes = list(scene.minutes)[-AT_MOST:]
    commands = _commands(source, scene, minutes)
    seconds = max(0.001, sum(float(m.get("seconds") or 0.0) for m in minutes))
    found = []
    gpu = sum(float(c.get("gpu_seconds") or 0.0) for c in commands) / seconds
    if gpu >= 0.5:
        who = users(source, "gpu", commands, minutes, steps)
        words = f"{_used('gpu', who[0])}; all together {percent(gpu)} of a GPU"
        found.append(Cause("gpu", round(min(100.0, 60 * gpu), 1), words, minutes[-1]["minute"], who[0]["command"],
                           who[0].get("pid"), [{k: v for k, v in w.items() if k != "named"} for w in who],
                           {"gpu_seconds_per_s": round(gpu, 3)}))
    who = users(source, "wakeups", commands, minutes, steps)
    if who and who[0]["amount"] >= 2000 and who[0]["amount"] >= shortage.UNUSUAL * who[0].get("usual", 0.0):
        found.append(Cause("wakeups", 25.0, _used("wakeups", who[0]), minutes[-1]["minute"], who[0]["command"],
                           who[0].get("pid"), [{k: v for k, v in w.items() if k != "named"} for w in who],
                           {"wakeups_per_s": who[0]["amount"]}))
    return found


def _rogues(source: Source, scene: Scene) -> list[Cause]:
    """Commands that reached the tracking band, whether or not others had to wait for it."""
    bands = source.config.bands_of(source.state.get("model") or source.config.scoring.model)
    enter = bands.start(bands.tracking)
    minutes = list(scene.minutes)[-AT_MOST:]
    found = []
    for c in _commands(source, scene, minutes) if minutes else ():
        score = c.get("max_score") or 0
        if score < enter:
            continue
        event = max((e for e in scene.events if e.get("command") == c["command"]),
                    key=lambda e: int(e["peak_score"]), default=None)
        words = f"{name(c) if c.get('pid') else clip(c['command'], 40)} stood out: score {score} {bands.of(score)}"
        cause = "rogue"
        if event is not None:
            cause = _AS_CAUSE.get(dominant(event), "rogue")
            line = command_line(event)
            words += "".join(f", {w}" for w in (share(event), f"for {duration(event['duration_s'])}") if w)
            words += f"; {clip(line, 100)}" if not line.startswith("[") else ""
        found.append(Cause(cause, round(score / 2, 1), words, minutes[-1].get("minute"), c["command"], c.get("pid"),
                           (), {"score": score}))
    return found
