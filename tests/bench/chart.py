"""The chart: CPU time a tick against the number of idle processes, both axes logarithmic, a line for each subject."""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape

from tests.bench.report import OURS, Document, Spread

WIDTH, HEIGHT = 760, 500
LEFT, RIGHT, TOP, BOTTOM = 64, 148, 58, 52
COLOURS = {"floor": "#777777", "floor-clock": "#aaaaaa", OURS: "#c1121f", "top": "#0353a4", "psutil": "#2a7f62", "pidstat": "#b5651d",
           "atop": "#7b2cbf", "htop": "#0a8ea0", "glances": "#8a8d00", "process-exporter": "#a23b72"}
"""Of the known subjects; an added one is black."""

LABEL_GAP = 15

Line = list[tuple[float, Spread]]


def lines_of(made: Document, kind: str = "idle") -> dict[str, Line]:
    """Subject -> (number of processes, CPU ms a tick), by number, over the loads of one kind."""
    lines: dict[str, Line] = {}
    for load in made["loads"]:
        for name, found in load["subjects"].items() if load["kind"] == kind else ():
            if spread := Spread.from_document(found["cpu_ms_per_tick"]):
                lines.setdefault(name, []).append((load["size"], spread))
    return {name: sorted(line, key=lambda point: point[0]) for name, line in lines.items()}


def svg(made: Document) -> str:
    """The picture of a document; without a load of idle processes it is empty."""
    lines = lines_of(made)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
           'font-family="Helvetica, Arial, sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    if lines:
        out += _panel(lines, float(made["settings"]["hz"]))
    return "\n".join([*out, "</svg>"]) + "\n"


def decades(low: float, high: float) -> tuple[int, int]:
    """The powers of ten that enclose both values, at least one decade apart."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return first, max(last, first + 1)


def _panel(lines: dict[str, Line], hz: float) -> list[str]:
    points = [point for line in lines.values() for point in line]
    x_first, x_last = decades(min(x for x, _ in points), max(x for x, _ in points))
    y_first, y_last = decades(min(y.low for _, y in points), max(y.high for _, y in points))

    def at_x(value: float) -> float:
        return LEFT + (math.log10(value) - x_first) / (x_last - x_first) * (WIDTH - LEFT - RIGHT)

    def at_y(value: float) -> float:
        return HEIGHT - BOTTOM - (math.log10(value) - y_first) / (y_last - y_first) * (HEIGHT - TOP - BOTTOM)

    out = [_text(LEFT, 24, "What one look at every process costs: CPU time a tick, ms", size=16),
           _text(LEFT, 43, f"all of them idle; both axes logarithmic; bars: least to most of the rounds; {hz:g} Hz",
                 "#555555"),
           _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, "processes", anchor="middle")]
    for power in range(x_first, x_last + 1):
        for step in range(1, 10 if power < x_last else 2):
            x = at_x(step * 10.0 ** power)
            out.append(_rule(x, TOP, x, HEIGHT - BOTTOM, "#dddddd" if step == 1 else "#f3f3f3"))
    for size in sorted({x for x, _ in points}):
        out.append(_text(at_x(size), HEIGHT - BOTTOM + 18, f"{size:,.0f}", anchor="middle"))
    for power in range(y_first, y_last + 1):
        level = at_y(10.0 ** power)
        out += [_rule(LEFT, level, WIDTH - RIGHT, level),
                _text(LEFT - 8, level + 4, f"{10.0 ** power:,g}", anchor="end")]
    core = 1000 / hz
    if 10.0 ** y_first < core < 10.0 ** y_last:
        out += [f'<line x1="{LEFT}" y1="{at_y(core):.1f}" x2="{WIDTH - RIGHT}" y2="{at_y(core):.1f}" stroke="#999999" '
                'stroke-dasharray="5 4"/>', _text(LEFT + 6, at_y(core) - 5, "a whole core", "#777777")]
    return out + _curves(lines, at_x, at_y)


def _curves(lines: dict[str, Line], at_x: Callable[[float], float], at_y: Callable[[float], float]) -> list[str]:
    out = []
    labels = {name: at_y(line[-1][1].median) + 4 for name, line in lines.items()}
    places = dict(zip(labels, spread_out(list(labels.values()), LABEL_GAP), strict=True))
    for name, line in sorted(lines.items(), key=lambda item: item[0] == OURS):        # ours lies above the others
        colour, ours = COLOURS.get(name, "#000000"), name == OURS
        path = " ".join(f"{at_x(x):.1f},{at_y(y.median):.1f}" for x, y in line)
        dash = ' stroke-dasharray="2 3"' if name.startswith("floor") else ""
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{3.5 if ours else 1.8}"{dash}/>')
        for x, y in line:
            out += [_rule(at_x(x), at_y(y.low), at_x(x), at_y(y.high), colour),
                    f'<circle cx="{at_x(x):.1f}" cy="{at_y(y.median):.1f}" r="{4 if ours else 3}" fill="{colour}"/>']
        end, label = at_y(line[-1][1].median), places[name]
        beside = at_x(line[-1][0])
        if abs(label - 4 - end) > 3:           # moved away from its line: lead the eye to it
            out.append(_rule(beside + 5, end, beside + 16, label - 4, colour))
        out.append(_text(beside + 18, label, f"{name} {_short(line[-1][1].median)}", colour, bold=ours))
    return out


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _text(x: float, y: float, words: str, colour: str = "#222222", *, size: int = 0, anchor: str = "",
          bold: bool = False) -> str:
    more = (f' font-size="{size}"' if size else "") + (f' text-anchor="{anchor}"' if anchor else "")
    more += ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}"{more}>{escape(words)}</text>'


def _rule(x1: float, y1: float, x2: float, y2: float, colour: str = "#dddddd") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def spread_out(places: list[float], gap: float) -> list[float]:
    """The same order of places, moved apart where two would come nearer than `gap`, each as little as may be: what
    touches becomes a group, which lies around the middle of where its members want to be."""
    order = sorted(range(len(places)), key=places.__getitem__)
    groups: list[list[int]] = []

    def first(group: list[int]) -> float:
        return sum(places[i] - gap * n for n, i in enumerate(group)) / len(group)

    for i in order:
        groups.append([i])
        while len(groups) > 1 and first(groups[-1]) < first(groups[-2]) + gap * len(groups[-2]):
            groups[-2:] = [groups[-2] + groups[-1]]
    out = list(places)
    for group in groups:
        for n, i in enumerate(group):
            out[i] = first(group) + gap * n
    return out
