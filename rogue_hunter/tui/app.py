"""The Textual application of rh-top: widgets that paint prepared lines, keys, and the screens for one process, help and
the question before a process is terminated."""

from __future__ import annotations

import asyncio
import platform
import signal
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.geometry import Region
from textual.screen import ModalScreen
from textual.strip import Strip
from textual.widget import Widget

from rogue_hunter.config.options import Config
from rogue_hunter.paths import state_dir
from rogue_hunter.reaper.audit import audit_log
from rogue_hunter.reaper.candidate import Candidate, manual
from rogue_hunter.reaper.confirm import question
from rogue_hunter.reaper.notify import sentence
from rogue_hunter.reaper.process import Gone, Machine, Stop, Unreadable
from rogue_hunter.reaper.run import Setup, here, reap_batch
from rogue_hunter.rules.load import user_rules
from rogue_hunter.schema.field import Key
from rogue_hunter.text.errors import RogueHunterError
from rogue_hunter.tui import view
from rogue_hunter.tui.model import Entry, Model, Order, Reader
from rogue_hunter.tui.view import SORTS, fill, known

Confirm = Callable[[Sequence[Candidate]], bool]


def terminate(key: Key, config: Config, confirm: Confirm, stop: Stop, machine: Callable[[], Machine] = here) -> str:
    """Ask, then end the process of an identity; returns what became of it, in a sentence. Takes up to 8 s. Nothing is
    done to another process that has its pid by now."""
    pid = key[0]
    try:
        at = machine()
        match = manual(at, pid, time.time())
        if match["start_ticks"] != key[1]:
            return f"{pid} has exited; another process has its pid now"
        rules = user_rules()
        setup = Setup(rules, at, audit_log(config.reap, rules.settings), state_dir(), host=platform.node(),
                      confirm=confirm, stop=stop, dry_run=rules.settings.dry_run)
        (action,) = reap_batch([match], setup)
    except Gone:
        return f"{pid} has exited"
    except (Unreadable, RogueHunterError, OSError) as error:
        return f"{pid}: not killed: {error}"
    return sentence(action)


PAINT_S = 1.0
"""Seconds between two pictures. Keys are answered at once."""

MESSAGE_S = 4.0
"""How long the answer to a key is shown in place of the keys."""

STYLES = {
    "": Style(), "low": Style(), "medium": Style(color="cyan"), "elevated": Style(color="yellow"),
    "high": Style(color="red"), "critical": Style(color="red", bold=True), "bold": Style(bold=True),
    "dim": Style(dim=True), "title": Style(color="black", bgcolor="cyan"), "cursor": Style(reverse=True, bold=True),
    "pause": Style(color="magenta", bold=True), "key": Style(color="cyan", bold=True),
}


class Lines(Widget):
    """Shows prepared lines. Only those that differ from the last picture are painted."""

    DEFAULT_CSS = "Lines { width: 1fr; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._shown: list[view.Line] = []

    def show(self, lines: Sequence[view.Line]) -> None:
        """Paint these lines."""
        before, self._shown = self._shown, list(lines)
        for y in range(max(len(before), len(self._shown))):
            if before[y:y + 1] != self._shown[y:y + 1]:
                self.refresh(Region(0, y, self.size.width, 1))

    def render_line(self, y: int) -> Strip:
        """One line of the widget."""
        if y >= len(self._shown):
            return Strip.blank(self.size.width)
        segments = [Segment(text, STYLES.get(style, STYLES[""])) for text, style in self._shown[y] if text]
        return Strip(segments).adjust_cell_length(self.size.width)

    def text(self) -> str:
        """What is shown, without styles."""
        return "\n".join("".join(text for text, _ in line).rstrip() for line in self._shown)


class Detail(ModalScreen[None]):
    """One process, or the help: lines that are made again with each picture."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding(key, "leave", show=False)
                                             for key in ("escape", "enter", "q", "question_mark")]

    def __init__(self, make: Callable[[int], list[view.Line]]) -> None:
        super().__init__()
        self._make = make
        self._top = 0

    def compose(self) -> ComposeResult:
        """The lines fill the screen."""
        yield Lines()

    def on_resize(self) -> None:
        """Make them for the new width."""
        self.paint()

    def on_key(self, event: events.Key) -> None:
        """Scroll what is longer than the screen."""
        step = {"down": 1, "up": -1, "pagedown": self.size.height - 1, "pageup": 1 - self.size.height}.get(event.key)
        if step is not None:
            self._top = max(0, self._top + step)
            self.paint()
            event.stop()

    def paint(self) -> None:
        """Show them as they are now."""
        lines, room = self._make(self.size.width), max(1, self.size.height - 1)
        self._top = max(0, min(self._top, len(lines) - room))
        shown = lines[self._top:self._top + room]
        blank = [((" " * self.size.width, ""),)] * (room - len(shown))
        more = f"  {len(lines) - self._top - room} more lines" if len(lines) > self._top + room else ""
        self.query_one(Lines).show([*shown, *blank, view.back(self.size.width, more)])

    def action_leave(self) -> None:
        """Back to the table."""
        self.dismiss()


class Ask(ModalScreen[bool]):
    """The question of rh-reap. Only y confirms."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """The question as rh-reap prints it."""
        yield Lines()

    def on_resize(self) -> None:
        """Show it."""
        self.query_one(Lines).show([((fill(line, self.size.width), "bold" if not line.startswith(" ") else ""),)
                                    for line in self._text.splitlines()])

    def on_key(self, event: events.Key) -> None:
        """y confirms, every other key declines."""
        event.stop()
        self.dismiss(event.key == "y")


class Top(App[int]):
    """rh-top. `now` is the wall clock; `reader_of` makes the reader of the socket."""

    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = None
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(key, action, show=False, priority=key == "ctrl+c") for key, action in (
            ("q", "leave(0)"), ("ctrl+c", "leave(130)"), ("question_mark", "help"), ("slash", "filter"),
            ("s", "sort(1)"), ("S", "sort(-1)"), ("r", "reverse"), ("t", "tree"), ("a", "rogues"), ("k", "kill"),
            ("space", "hold"), ("enter", "open"), ("escape", "clear"), ("up", "move(-1)"), ("down", "move(1)"),
            ("pageup", "page(-1)"), ("pagedown", "page(1)"), ("home", "move(-1000000)"), ("end", "move(1000000)"),
            ("left", "shift(-1)"), ("right", "shift(1)"))),
    ]

    def __init__(self, path: Path, config: Config, now: Callable[[], float] = time.time,
                 reader_of: Callable[[Path, Model, Callable[[], object]], Reader] = Reader) -> None:
        super().__init__(ansi_color=True)
        self.model = Model(now)
        self.order = Order()
        self.held = False
        self._message = ("", 0.0)
        self._typing = self._unanswered = False
        self._config, self._now = config, now
        self._loop: asyncio.AbstractEventLoop | None = None
        self._painting = False
        self.reader = reader_of(path, self.model, self._paint_soon)
        self._entries: list[Entry] = []
        self._at: Key | str | None = None
        self._index = self._first = self._column = 0
        self._stop = Stop()

    # -- life --------------------------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """Head, table, panels, keys or filter, from the top."""
        for name in ("head", "table", "panels", "foot"):
            yield Lines(id=name)

    def on_mount(self) -> None:
        """Begin to follow."""
        loop = self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, partial(self.action_leave, 128 + number))
        self.reader.start()
        self.set_interval(PAINT_S, self._beat)

    def on_unmount(self) -> None:
        """Stop waiting for a process that is being terminated, and end the reader."""
        self._stop.set()
        self.reader.close()

    def on_resize(self) -> None:
        """Share the lines among the parts."""
        sizes = view.Sizes.of(self.size.height)
        for name in ("head", "table", "panels", "foot"):
            part = self.query_one(f"#{name}", Lines)
            part.styles.height = getattr(sizes, name)
            part.display = getattr(sizes, name) > 0
        self.call_after_refresh(self.paint)

    def _beat(self) -> None:
        """Ask for the processes: the answer is painted when it comes. Without one, paint what is known."""
        if not self.reader.ask(self.order.filter) or self._unanswered:
            self.paint()
        self._unanswered = True

    def _paint_soon(self) -> None:
        """Called from the reader's thread."""
        self._unanswered = False
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.paint)

    # -- the picture -------------------------------------------------------------------------------------------------

    def paint(self) -> None:
        """Show what is known now; with the table as it was while it is held."""
        if not self.is_running or not self.screen_stack:
            return
        base = self.screen_stack[0]
        if self.reader.error is not None:
            self.exit(self.reader.error.code, message=str(self.reader.error))
            return
        width, sizes = self.size.width, view.Sizes.of(self.size.height)
        with self.reader.lock:
            if not self.held:
                self._entries = self.model.entries(self.order)
            flags = ["PAUSED"] if self.held else []
            parts = {"head": view.head(self.model, width, self._now(), flags)[:sizes.head],
                     "table": self._table(width, sizes.table),
                     "panels": view.panels(self.model, width, sizes.panels, self._now()) if sizes.panels else [],
                     "foot": [view.foot(width, self._said())]}
        for name, lines in parts.items():
            base.query_one(f"#{name}", Lines).show(lines)
        if isinstance(self.screen, Detail):
            self.screen.paint()

    def _said(self) -> str:
        """What is shown in place of the keys: the filter while it is typed, the answer to the last key."""
        if self._typing:
            return f"filter (name, arguments, user, unit or pid): {self.order.filter}▏"
        return self._message[0] if self._now() < self._message[1] else ""

    def _table(self, width: int, height: int) -> list[view.Line]:
        self._find()
        room = max(0, height - 1)
        self._first = max(0, min(self._first, self._index, len(self._entries) - room))
        if room and self._index >= self._first + room:
            self._first = self._index - room + 1
        shown = self._entries[self._first:self._first + room]
        layout = view.Layout.of(self._entries, width, self._column)
        stale = not self.model.connected
        lines = [view.header(layout, self.order, width, sum(not entry.members for entry in self._entries),
                             max(len(self.model.rows), self.model.tick.get("processes", 0)))]
        lines += [view.row_line(entry, layout, width, self._first + y == self._index, stale,
                                entry.key in self.order.folded) for y, entry in enumerate(shown)]
        if not shown and self.model.tick:
            lines.append((("no process matches the filter" if self.order.filter else "nothing is rogue", "dim"),))
        return lines[:height]

    def _find(self) -> None:
        """The cursor stays with its process; when that is gone, with its line."""
        last = max(0, len(self._entries) - 1)
        if self._at is not None and not (self._index <= last and self._entries
                                         and self._entries[self._index].key == self._at):
            self._index = next((i for i, entry in enumerate(self._entries) if entry.key == self._at), self._index)
        self._index = min(self._index, last)
        if self._at is not None and self._entries:
            self._at = self._entries[self._index].key

    @property
    def selected(self) -> Entry | None:
        """The row under the cursor."""
        return self._entries[self._index] if self._index < len(self._entries) else None

    def note(self, band: str, text: str, level: str = "info") -> None:
        """Show a line in the activity panel, and in the log of rh-pipe."""
        with self.reader.lock:
            self.model.note(band, text)
        self.reader.log(level, text)
        self.paint()

    # -- keys --------------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """The keys of the table are not those of a screen above it, or letters of a filter."""
        return (action == "leave" and parameters == (130,)) or (len(self.screen_stack) == 1 and not self._typing)

    def on_key(self, event: events.Key) -> None:
        """Letters of the filter, while it is typed."""
        if not self._typing or len(self.screen_stack) > 1:
            return
        event.prevent_default()      # the bindings are looked up after this
        event.stop()
        if event.key in ("enter", "escape"):
            self._typing = False
        if event.key == "escape":
            self.order.filter = ""
        elif event.key == "backspace":
            self.order.filter = self.order.filter[:-1]
        elif event.character and event.character.isprintable():
            self.order.filter += event.character
        self._change("")

    def action_leave(self, code: int) -> None:
        """End."""
        self.exit(code)

    def action_move(self, step: int) -> None:
        """Select another row."""
        if self._entries:
            self._index = max(0, min(self._index + step, len(self._entries) - 1))
            self._at = self._entries[self._index].key
            self.paint()

    def action_page(self, step: int) -> None:
        """Select the row a page further."""
        self.action_move(step * max(1, view.Sizes.of(self.size.height).table - 2))

    def action_shift(self, step: int) -> None:
        """Show other metrics."""
        there = len(known(entry.row for entry in self._entries))
        self._column = max(0, min(self._column + step, there - 1))
        self.paint()

    def action_sort(self, step: int) -> None:
        """Sort by another field that is known."""
        there = {column.field for column in known(entry.row for entry in self._entries)} | {"score", "pid", "name"}
        fields = [name for name in SORTS if name in there]
        now = fields.index(self.order.sort) if self.order.sort in fields else 0
        self.order.sort = fields[(now + step) % len(fields)]
        self.order.ascending = self.order.sort in ("name", "user", "state")
        self._change(f"sorted by {self.order.sort}")

    def action_reverse(self) -> None:
        """The other way round."""
        self.order.ascending = not self.order.ascending
        self._change("")

    def action_tree(self) -> None:
        """Group by unit."""
        self.order.tree = not self.order.tree
        self._change("")

    def action_rogues(self) -> None:
        """Only what rh-pipe selects, or all."""
        self.order.only_rogues = not self.order.only_rogues
        self._change("only the rogues that rh-pipe selects; a: all" if self.order.only_rogues else "")

    def action_hold(self) -> None:
        """Stop the table, or continue."""
        self.held = not self.held
        self._change("paused: the table does not change; space: continue" if self.held else "")

    def _change(self, message: str) -> None:
        self._message = (message, self._now() + MESSAGE_S)
        if self.held:
            self._entries = self.model.entries(self.order)
        if self.order.filter:
            self.reader.ask(self.order.filter)
        self.paint()

    def action_clear(self) -> None:
        """Drop the filter."""
        self.order.filter = ""
        self._change("")

    def action_filter(self) -> None:
        """Begin to type a filter."""
        self._typing, self.order.filter = True, ""
        self._change("")

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(Detail(view.help_lines))

    def action_open(self) -> None:
        """Show one process, or fold a unit."""
        entry = self.selected
        if entry is None:
            return
        if isinstance(entry.key, str):
            self.order.folded ^= {entry.key}
            self._change("")
            return
        key, last = entry.key, entry.row

        def lines(width: int) -> list[view.Line]:
            with self.reader.lock:
                return view.detail(self.model, key, last, width)

        self.push_screen(Detail(lines))

    # -- terminate ---------------------------------------------------------------------------------------------------

    def action_kill(self) -> None:
        """Ask, then terminate the selected process, in a thread."""
        entry = self.selected
        if entry is None or isinstance(entry.key, str):
            self._change("select a process, not a unit")
            return
        key = entry.key
        self.run_worker(lambda: self._terminate(key), thread=True, group="terminate", exclusive=False)

    def _terminate(self, key: Key) -> None:
        told = terminate(key, self._config, self._confirm, self._stop)
        self.call_from_thread(self.note, "high", told, "warning")

    def _confirm(self, candidates: Sequence[Candidate]) -> bool:
        """Called in the worker's thread; waits for the answer."""
        answered = threading.Event()
        answers: list[bool] = []

        def answer(value: bool | None) -> None:
            answers.append(bool(value))
            answered.set()

        self.call_from_thread(self.push_screen, Ask(question(candidates)), answer)
        while not answered.wait(0.2):
            if self._stop:
                return False
        return answers[0]
