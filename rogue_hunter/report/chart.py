"""HTML and SVG as escaped text, and charts: panels over one time axis with pauses as bands and events as bars."""

from __future__ import annotations

import base64
import hashlib
import html
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from rogue_hunter import __version__
from rogue_hunter.text.format import clip, visible


class Markup(str):
    """Text that is markup already; any other text is escaped."""

    __slots__ = ()


def escaped(value: object) -> Markup:
    """A value as text between tags: markup as it is, the parts of a list one after the other, None as nothing."""
    if value is None or value is False:
        return Markup("")
    if isinstance(value, Markup):
        return value
    if isinstance(value, Iterable) and not isinstance(value, str):
        return Markup("".join(map(escaped, value)))
    return Markup(html.escape(visible(str(value))))


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """An element. Attributes that are None are left out; `class_` is class, and an underscore a hyphen."""
    made = "".join(f' {key.rstrip("_").replace("_", "-")}="{html.escape(visible(_number(value)))}"'
                   for key, value in attributes.items() if value is not None)
    return Markup(f"<{name}{made}>{escaped(children)}</{name}>")


def _number(value: object) -> str:
    """A tenth of a pixel is enough: it makes the file half as long."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


def document(title: str, style: str, body: Iterable[object]) -> str:
    """A whole page that loads nothing and runs nothing: its style is named by hash, everything else is forbidden."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    metas = "".join(f'<meta {name}="{key}" content="{html.escape(content)}">\n' for name, key, content in (
        ("http-equiv", "Content-Security-Policy", policy), ("name", "viewport", "width=device-width, initial-scale=1"),
        ("name", "color-scheme", "light dark"), ("name", "referrer", "no-referrer"),
        ("name", "generator", f"rogue-hunter {__version__}")))
    return (f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{metas}{tag("title", title)}\n'
            f"<style>{style}</style>\n</head>\n{tag('body', body)}\n</html>\n")


Points = Sequence[tuple[float, float, float]]
"""Steps of a line: begin, end (epoch seconds) and value; a time without a step is a gap."""

LEFT, RIGHT, HEIGHT, HEAD, AXIS = 66, 10, 58, 32, 22
"""Pixels: margins, height of a panel, of the line above it, and of the time axis."""
ROW = 24
"""Height of an event with its label."""
CHARACTER = 6.8
"""Width of a character of a label, on average."""
FRAME, DEPTH = 17, 60
"""Height of a frame of a flame graph, and frames that are shown of a stack."""
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a panel. `style` names its colour and dashes in the style sheet; the first line is filled."""

    name: str
    style: str
    points: Points


@dataclass(frozen=True, slots=True)
class Panel:
    """A chart of `lines` from 0 to `top`. `words` prints a value."""

    title: str
    lines: Sequence[Line]
    top: float
    words: Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Bar:
    """An event: its time, its label, and its band."""

    start: float
    end: float
    label: str
    band: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """What is drawn: `since` to `until`, the time in question, pauses, panels and events."""

    since: float
    until: float
    asked: tuple[float, float]
    pauses: Sequence[tuple[float, float]] = ()
    panels: Sequence[Panel] = ()
    bars: Sequence[Bar] = field(default=())

    @property
    def marked(self) -> bool:
        """The time in question is a part of what is drawn that no pause covers."""
        since, until = self.asked
        return until - since < 0.95 * (self.until - self.since) and not any(
            begin <= since + 1 and end >= until - 1 for begin, end in self.pauses)


def timeline(made: Timeline, width: int, prefix: str, title: str, description: str) -> Markup:
    """The chart, `width` pixels wide. `prefix` makes the ids of this drawing unique in the page."""
    height = sum(HEAD + HEIGHT for _ in made.panels) + 14 + (ROW * len(made.bars) + HEAD if made.bars else 0) + AXIS
    scale = (width - LEFT - RIGHT) / max(made.until - made.since, 1e-3)

    def x(at: float) -> float:
        return LEFT + (min(max(at, made.since), made.until) - made.since) * scale

    floor = height - AXIS
    parts: list[object] = [tag("title", title, id=f"{prefix}-t"), tag("desc", description, id=f"{prefix}-d")]
    if made.marked:
        parts.append(_band("asked", x(made.asked[0]), x(made.asked[1]), floor))
    ticks = axis(made.since, made.until, width - LEFT - RIGHT)
    parts += [tag("line", class_="grid", x1=x(at), x2=x(at), y1=0, y2=floor) for at, _ in ticks]
    parts += [_band("paused", x(begin), x(end), floor) for begin, end in made.pauses]
    y = 0.0
    for panel in made.panels:
        parts += _panel(panel, x, y, width)
        y += HEAD + HEIGHT
    y += 14
    if made.bars:
        parts.append(tag("text", "Events, with their highest score", class_="head", x=LEFT, y=y + 12))
        y += HEAD
    for bar in made.bars:
        parts += _bar(bar, x, y, width)
        y += ROW
    parts += [tag("text", label, class_="tick", x=x(at), y=height - 6, text_anchor="middle") for at, label in ticks]
    return tag("svg", parts, class_=f"timeline {prefix}", viewBox=f"0 0 {width} {height}", width=width, height=height,
               role="img", aria_labelledby=f"{prefix}-t {prefix}-d")


def _band(kind: str, begin: float, end: float, floor: float) -> Markup:
    return tag("rect", class_=kind, x=begin, y=0, width=max(2.0, end - begin), height=floor)


def _panel(panel: Panel, x: Callable[[float], float], top: float, width: int) -> list[Markup]:
    base = top + HEAD + HEIGHT
    high = panel.top or 1.0

    def y(value: float) -> float:
        return base - min(max(value, 0.0), high) / high * (HEIGHT - 4)

    parts = [tag("text", panel.title, class_="head", x=LEFT, y=top + 24),
             tag("line", class_="base", x1=LEFT, x2=width - RIGHT, y1=base, y2=base),
             tag("text", panel.words(high), class_="tick", x=LEFT - 5, y=top + HEAD + 10, text_anchor="end"),
             tag("text", "0", class_="tick", x=LEFT - 5, y=base, text_anchor="end")]
    at = LEFT + (len(panel.title) + 2) * CHARACTER
    if len(panel.lines) > 1:
        for line in panel.lines:
            parts += [tag("line", class_=f"line {line.style}", x1=at, x2=at + 18, y1=top + 20, y2=top + 20),
                      tag("text", line.name, class_="tick", x=at + 23, y=top + 24)]
            at += 36 + len(line.name) * CHARACTER
    highest = max((value for line in panel.lines for _, _, value in line.points), default=None)
    if highest is not None and at + 100 < width:
        parts.append(tag("text", f"highest {panel.words(highest)}", class_="tick", x=width - RIGHT, y=top + 24,
                         text_anchor="end"))
    for nth, line in enumerate(panel.lines):
        drawn = stairs(line.points, x, y)
        if nth == 0 and drawn:
            parts.append(tag("path", class_=f"area {line.style}", d=_closed(line.points, x, y, base)))
        if drawn:
            parts.append(tag("path", class_=f"line {line.style}", d=drawn))
    return parts


def stairs(points: Points, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    """The path of steps; a gap in time is a gap in the line."""
    made: list[str] = []
    before = -math.inf
    for begin, end, value in points:
        made.append(f"V{y(value):.1f}H{x(end):.1f}" if begin - before <= max(2.0, end - begin) else
                    f"M{x(begin):.1f} {y(value):.1f}H{x(end):.1f}")
        before = end
    return "".join(made)


def _closed(points: Points, x: Callable[[float], float], y: Callable[[float], float], base: float) -> str:
    """The area below the steps, a closed part for each step."""
    runs = [part for part in stairs(points, x, y).split("M") if part]
    return "".join(f"M{(start := run.split(' ', 1)[0])} {base:.1f}V{run.split(' ', 1)[1]}V{base:.1f}H{start}Z"
                   for run in runs)


def _bar(bar: Bar, x: Callable[[float], float], top: float, width: int) -> list[Markup]:
    begin, end = x(bar.start), x(bar.end)
    label = clip(bar.label, int((width - LEFT - RIGHT) / CHARACTER))
    at = max(float(LEFT), min(begin, width - RIGHT - len(label) * CHARACTER))
    return [tag("text", label, class_="tick", x=at, y=top + 12),
            tag("rect", class_=f"bar {bar.band}", x=begin, y=top + 16, width=max(3.0, end - begin), height=5, rx=2)]


def flame(stacks: Iterable[tuple[str, int]], width: int, prefix: str, title: str) -> Markup:
    """A flame graph with its root above: `stacks` are frames joined by ;, the outermost first, and samples. A frame is
    as wide as its share; those narrower than two pixels are left out."""
    rects: list[Markup] = []
    total = 0
    level: dict[tuple[str, ...], int] = {}      # path -> samples, the paths of one depth next to each other
    for stack, samples in stacks:
        total += samples
        frames = stack.split(";")[:DEPTH]
        for depth in range(1, len(frames) + 1):
            path = tuple(frames[:depth])
            level[path] = level.get(path, 0) + samples
    scale, deepest = (width - 2) / max(total, 1), 0
    begins: dict[tuple[str, ...], float] = {(): 1.0}
    for path in sorted(level, key=lambda one: (len(one), one[:-1], -level[one], one)):
        at, wide = begins.get(path[:-1]), level[path] * scale
        if at is None:
            continue
        begins[path[:-1]] = at + wide
        if wide < 2:
            continue
        begins[path] = at
        deepest = max(deepest, len(path))
        y = (len(path) - 1) * FRAME
        label = clip(path[-1], int((wide - 6) / CHARACTER)) if wide > 40 else None
        rects.append(tag("g", tag("title", f"{path[-1]}: {level[path]} samples, {100 * level[path] / total:.0f} %"),
                         tag("rect", class_="frame kernel" if path[-1].endswith("_[k]") else "frame", x=at, y=float(y),
                             width=wide - 0.5, height=FRAME - 1),
                         tag("text", label, x=at + 3, y=float(y + 12)) if label else None))
    height = max(deepest, 1) * FRAME
    return tag("svg", tag("title", title, id=f"flame-{prefix}"), rects, class_=f"flame {prefix}", width=width,
               height=height, viewBox=f"0 0 {width} {height}", role="img", aria_labelledby=f"flame-{prefix}")


def axis(since: float, until: float, pixels: float) -> list[tuple[float, str]]:
    """Times for the axis with their labels, local, at round steps and at least 80 pixels apart."""
    most = max(2.0, pixels / 80)
    step = next((step for step in _STEPS if (until - since) / step <= most), _STEPS[-1])
    offset = time.localtime(since).tm_gmtoff
    first = math.ceil((since + offset) / step) * step - offset
    form = "%H:%M:%S" if step < 60 else "%H:%M" if step < 43200 else "%d %b"
    count = int((until - first) / step) + 1 if until >= first else 0
    return [(at, time.strftime(form, time.localtime(at))) for at in (first + n * step for n in range(count))
            if (at - since) / (until - since) * pixels > 24 and (until - at) / (until - since) * pixels > 20]


def spark(values: Sequence[float | None], top: float, style: str, words: str, width: int = 120,
          height: int = 22) -> Markup:
    """A small chart of values that follow each other, from 0 to `top`; None is a gap. `words` say what it shows."""
    high = top or 1.0
    step = width / max(len(values), 1)
    points = [(float(n), n + 1.0, value) for n, value in enumerate(values) if value is not None]
    path = _closed(points, lambda at: at * step, lambda value: height - 1 - value / high * (height - 3), height - 1.0)
    return tag("svg", tag("title", words), tag("path", class_=f"area {style}", d=path) if path else None,
               tag("line", class_="base", x1=0, x2=width, y1=height - 0.5, y2=height - 0.5), class_="spark",
               viewBox=f"0 0 {width} {height}", width=width, height=height, role="img", aria_label=words)
