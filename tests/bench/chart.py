"""The chart: CPU time a tick against the number of processes, both axes logarithmic, one line for each subject."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import pairwise

from tests.bench import report

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 50, 55
COLOURS = ("#888888", "#c1121f", "#0353a4", "#2a9d8f", "#e09f3e", "#7b2cbf", "#6b705c", "#0a9396", "#9d4edd", "#bb3e03")
LABEL_GAP = 14

Line = list[tuple[float, report.Spread]]


def lines_of(results: Sequence[report.Result], kind: str) -> dict[str, Line]:
    """Subject -> (number of processes, CPU ms a tick), by number, over the loads of one kind."""
    lines: dict[str, Line] = {}
    for result in results:
        if result.load.kind != kind:
            continue
        for name, turns in result.turns.items():
            if spread := report.cost(turns):
                lines.setdefault(name, []).append((result.processes, spread))
    return {name: sorted(line, key=lambda point: point[0]) for name, line in lines.items()}


def svg(results: Sequence[report.Result]) -> str:
    """A panel for idle processes and one for a share of active ones; a kind that was not measured has none."""
    titles = {"idle": "CPU ms a tick, idle processes", "active": "CPU ms a tick, a share of them active"}
    panels = [(title, lines) for kind, title in titles.items() if (lines := lines_of(results, kind))]
    height = HEIGHT * max(1, len(panels))
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
           'font-family="sans-serif" font-size="12">', f'<rect width="{WIDTH}" height="{height}" fill="white"/>']
    for index, (title, lines) in enumerate(panels):
        out += [f'<g transform="translate(0 {index * HEIGHT})">', *_panel(title, lines), "</g>"]
    return "\n".join([*out, "</svg>"]) + "\n"


def decades(low: float, high: float) -> tuple[int, int]:
    """The powers of ten that enclose both values, at least one decade apart."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return first, max(last, first + 1)


def _panel(title: str, lines: dict[str, Line]) -> list[str]:
    points = [point for line in lines.values() for point in line]
    x_first, x_last = decades(min(x for x, _ in points), max(x for x, _ in points))
    y_first, y_last = decades(min(y.low for _, y in points), max(y.high for _, y in points))

    def at_x(value: float) -> float:
        return LEFT + (math.log10(value) - x_first) / (x_last - x_first) * (WIDTH - LEFT - RIGHT)

    def at_y(value: float) -> float:
        return HEIGHT - BOTTOM - (math.log10(value) - y_first) / (y_last - y_first) * (HEIGHT - TOP - BOTTOM)

    out = [f'<text x="{LEFT}" y="28" font-size="15">{escape(title)}</text>',
           f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 14}" text-anchor="middle">processes</text>']
    for power in range(x_first, x_last + 1):
        x = at_x(10.0 ** power)
        out += [_rule(x, TOP, x, HEIGHT - BOTTOM),
                f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{10 ** power:,}</text>']
    for power in range(y_first, y_last + 1):
        level = at_y(10.0 ** power)
        out += [_rule(LEFT, level, WIDTH - RIGHT, level),
                f'<text x="{LEFT - 8}" y="{level + 4:.1f}" text-anchor="end">{10.0 ** power:g}</text>']
    labels = {name: at_y(line[-1][1].median) + 4 for name, line in lines.items()}
    places = dict(zip(labels, spread_out(list(labels.values()), LABEL_GAP), strict=True))
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{at_x(x):.1f},{at_y(y.median):.1f}" for x, y in line)
        width = 3 if name == report.OURS else 1.8
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
        for x, y in line:          # the bar reaches from the lowest to the highest round
            out += [_rule(at_x(x), at_y(y.low), at_x(x), at_y(y.high), colour),
                    f'<circle cx="{at_x(x):.1f}" cy="{at_y(y.median):.1f}" r="3" fill="{colour}"/>']
        beside = at_x(line[-1][0]) + 10
        out.append(f'<text x="{beside:.1f}" y="{places[name]:.1f}" fill="{colour}">{escape(name)}</text>')
    return out


def _rule(x1: float, y1: float, x2: float, y2: float, colour: str = "#dddddd") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def spread_out(places: list[float], gap: float) -> list[float]:
    """The same order of places, moved down where the one above would come nearer than `gap`."""
    order = sorted(range(len(places)), key=places.__getitem__)
    out = list(places)
    for above, below in pairwise(order):
        out[below] = max(out[below], out[above] + gap)
    return out
