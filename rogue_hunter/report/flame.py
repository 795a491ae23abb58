"""Stacks as collapsed lines, as a file of speedscope, and the most frequent ones as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from rogue_hunter import __version__
from rogue_hunter.report.render import Style, table
from rogue_hunter.report.sentences import percent
from rogue_hunter.stream.tick import Record
from rogue_hunter.text.format import visible

FRAMES = 8
"""Frames of a stack that a line of text shows, the innermost ones."""
SPEEDSCOPE = "https://www.speedscope.app/file-format-schema.json"


def collapsed_text(stacks: Iterable[Record]) -> str:
    """One line a stack, `frame;frame;frame samples`, the outermost first: the input of flame graph programs."""
    counts: Counter[str] = Counter()
    for each in stacks:
        counts[_safe(each["stack"])] += each["samples"]
    return "".join(f"{stack} {samples}\n" for stack, samples in counts.most_common())


def speedscope(stacks: Sequence[Record], name: str) -> dict[str, Any]:
    """A speedscope file: a sampled profile of everything, and one of each CPU. Weights are samples."""
    frames: dict[str, int] = {}
    profiles: list[dict[str, Any]] = []
    cpus = sorted({each["cpu"] for each in stacks if "cpu" in each})
    for cpu in [None, *(cpus if len(cpus) > 1 else ())]:
        chosen = [each for each in stacks if cpu is None or each.get("cpu") == cpu]
        weights = [each["samples"] for each in chosen]
        samples = [[frames.setdefault(frame, len(frames)) for frame in _safe(each["stack"]).split(";")]
                   for each in chosen]
        profiles.append({"type": "sampled", "name": name if cpu is None else f"{name}, CPU {cpu}", "unit": "none",
                         "startValue": 0, "endValue": sum(weights), "samples": samples, "weights": weights})
    return {"$schema": SPEEDSCOPE, "shared": {"frames": [{"name": frame} for frame in frames]}, "profiles": profiles,
            "name": name, "activeProfileIndex": 0, "exporter": f"rogue-hunter {__version__}"}


def top_text(stacks: Sequence[Record], look: Style, limit: int = 5) -> str:
    """A table of the most frequent stacks, their innermost frames first."""
    counts: Counter[tuple[int | None, str]] = Counter()
    for each in stacks:
        counts[each.get("pid"), _safe(each["stack"])] += each["samples"]
    total = counts.total()
    rows = []
    # What was not kept apart comes last, however much it is.
    for (pid, stack), samples in sorted(counts.items(), key=lambda one: (one[0][0] is None, -one[1]))[:limit]:
        root, *frames = stack.split(";")
        inner = frames[::-1]
        words = " < ".join(inner[:FRAMES]) + (" < ..." if len(inner) > FRAMES else "")
        rows.append([percent(samples / total), "" if pid is None else str(pid), root, words or root])
    return table(["SAMPLES", "PID", "PROCESS", "STACK, INNERMOST FIRST"], rows, look, right="SAMPLES PID", drop="PID")


def _safe(stack: str) -> str:
    return visible(stack)
