"""The names and the line of a program, which the patterns of rules are searched in, and the search: with a time limit.

A pattern such as `(a+)+$` takes twice as long for each further character, and neither `re` nor the lock it holds can
be interrupted by another thread. A signal on the main thread does interrupt it (the engine looks every few thousand
steps; measured: a budget of 50 ms ends after 53 to 56 ms). The timer counts CPU time, not wall time: on a machine that
stalls, a rule that only waits for a CPU is not slow. The limit costs 2 us a search, and results are kept for each
program, so the patterns of an unchanged process are evaluated once.
"""

from __future__ import annotations

import functools
import os
import re
import signal
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from types import FrameType
from typing import NamedTuple

from rogue_hunter.sampling.naming import programs_of, script_of, split_line
from rogue_hunter.stream.tick import Row
from rogue_hunter.text.redact import LIMIT

SUBJECT_LIMIT = 4096
"""Characters of a name or line that patterns see. The wire carries no more of a command line."""

COMM_LIMIT = 15
"""Bytes of the kernel's short name on Linux (TASK_COMM_LEN - 1): a longer program name is cut to this."""


class Program(NamedTuple):
    """`names` of what runs, without repeats: the short name, path and last part of the program and of argv[0], path
    and last part of an interpreter's script. `line` is the last part of argv[0] with the arguments after it, None if
    it is unknown.

    `names_unread` and `line_unread` say what could not be read, empty when names or line are complete.
    """

    names: tuple[str, ...]
    line: str | None
    names_unread: str = ""
    line_unread: str = ""


NO_NAME = "its name cannot be read"
NO_ARGUMENTS = "its arguments cannot be read"
NO_PROGRAM = "its program cannot be read"
CUT = f"its command line is longer than the {LIMIT} bytes that are read"


def described(row: Row) -> bool:
    """Have the arguments been read? Hosts read them after the first sight of a process; "" means that it has none."""
    return row.get("cmdline") is not None


def program_of(row: Row, directory: str = "") -> Program:
    """The names in a process row; an absent `command`, `exe` or `cmdline` is unknown. With its working `directory`,
    also the whole path of a script.

    A dead process that waits for its parent (state defunct, one thread, arguments read as empty) has no program.
    """
    exe, cmdline = row.get("exe"), row.get("cmdline")
    if exe is None and cmdline == "" and row.get("state") == "defunct" and row.get("threads") == 1:
        exe = ""
    return _program(row.get("command"), exe, cmdline, directory)


@functools.lru_cache(maxsize=4096)
def _program(command: str | None, exe: str | None, cmdline: str | None, directory: str) -> Program:
    path = (exe or "").removesuffix(" (deleted)")[:SUBJECT_LIMIT]
    known = [(command or "")[:SUBJECT_LIMIT], _last(path), path]
    if cmdline is None:
        return Program(_distinct(known), None, NO_ARGUMENTS, NO_ARGUMENTS)
    # Redaction cuts between characters, of which the longest has four bytes.
    cut = len(cmdline) > SUBJECT_LIMIT or len(cmdline.encode("utf-8", "surrogatepass")) > LIMIT - 4
    first, rest = split_line(path, cmdline[:SUBJECT_LIMIT])
    if exe is None:
        # A path with blanks looks like a program with arguments, and the script depends on the program.
        certain = not (first.startswith("/") and rest)
        names = _distinct([*known, _last(first), first] if certain else known)
        return Program(names, _line(first, rest) if certain and not cut else None, NO_PROGRAM, NO_PROGRAM)
    # Under another name busybox is that program: `less x.sh` runs no script.
    multiple = _last(path) == "busybox" != _last(first)
    runs = (not multiple and programs_of(_last(path), rest.split(" "))) or programs_of(_last(first), rest.split(" "))
    script = runs[-1] if runs else None
    names = _distinct([*known, _last(first), first, *(name for each in runs for name in (_last(each), each)),
                       os.path.normpath(os.path.join(directory, script)) if script and directory else ""])
    interprets = any(script_of(_last(name), ("script",)) for name in (path, first))
    ends = not rest or (interprets and (script is None or rest.endswith(script)))   # the cut may be in a name
    unread = NO_NAME if command is None else CUT if cut and ends else ""
    return Program(names, None if cut else _line(first, rest), unread, CUT if cut else "")


def _line(first: str, rest: str) -> str:
    return f"{_last(first)} {rest}" if rest else _last(first)


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name))


@functools.lru_cache(maxsize=4096)
def with_subcommand(program: Program) -> Program:
    """With one more name, the program and its subcommand: `cargo build` for `cargo build --release`.

    For patterns that protect: `^cargo build$` means the build, with any options.
    """
    words = (program.line or "").split(" ")
    if len(words) < 3 or words[1].startswith("-"):
        return program
    return program._replace(names=(*program.names, f"{words[0]} {words[1]}"))


def _last(path: str) -> str:
    """The last part of a path; a login shell's `-bash` is bash."""
    return path.rpartition("/")[2].removeprefix("-")


def listed(program: Program, entries: Iterable[str]) -> str | None:
    """The first of `entries` that is exactly one of the program's known names, ignoring case; None if there is none.

    An entry longer than the kernel's short name also protects the process whose short name is its beginning. One with a
    blank also counts in the command line, where it may be the name of a script: `python3 /srv/my job.py`. A path also
    protects what another path of the same file names: the kernel gives the path of a program without symbolic links.
    """
    names = {name.casefold() for name in program.names}
    line = f" {program.line or ''} ".casefold().replace("/", " ")
    return next((entry for entry in entries if entry.casefold() in names or _comm(entry) in names
                 or (" " in entry and f" {entry.casefold()} " in line)
                 or (entry.startswith(("/", "~")) and _leads_to(entry, program.names))), None)


def whitelisted(program: Program, entries: Collection[str]) -> bool | None:
    """Is the program one of `entries`? None if it cannot be ruled out, because not all of its names are known."""
    if listed(program, entries) is not None:
        return True
    return None if entries and program.names_unread else False


def _leads_to(entry: str, names: Iterable[str]) -> bool:
    real = os.path.realpath(os.path.expanduser(entry))
    return any(os.path.realpath(name) == real for name in names if name.startswith("/"))


@functools.cache
def _comm(entry: str) -> str:
    """The kernel's short name of a program of this name: cut by bytes, decoded as a comm is."""
    return entry.encode()[:COMM_LIMIT].decode("utf-8", "backslashreplace").casefold()


PATTERN_LIMIT = 512
"""Characters of a pattern."""

BUDGET_S = 0.05
"""CPU time that all patterns of one rule may take in one tick, seconds."""

CACHED_PROGRAMS = 4096
"""Programs whose results are kept: more than the different command lines of a busy machine."""


class PatternError(ValueError):
    """A pattern that cannot be used."""


class _Interrupt(BaseException):
    """Raised by the timer inside of `re`. A BaseException, so that no `except Exception` on the way catches it."""


class Probe(NamedTuple):
    """One pattern and where it is searched: `names` in every name, `line` in the command line, `head` at the
    beginning of the command line. `text` is the pattern as written."""

    where: str
    pattern: re.Pattern[str]
    text: str

    def found(self, program: Program) -> bool | None:
        """Does it hit? None if that depends on something that could not be read."""
        if self.where == "names":
            if any(self.pattern.search(name) for name in program.names):
                return True
            return None if program.names_unread else False
        if program.line is None or program.line_unread:
            return None
        search = self.pattern.search if self.where == "line" else self.pattern.match
        return search(program.line) is not None


@dataclass(frozen=True, slots=True, eq=False)
class PatternSet:
    """The patterns of one condition. Compared by object: results are kept for each set."""

    probes: tuple[Probe, ...]

    @property
    def names_only(self) -> bool:
        """True when no pattern is searched in arguments."""
        return all(probe.where == "names" for probe in self.probes)

    def first(self, program: Program) -> str | None:
        """The first pattern that hits, None if none does. Takes unbounded time: see Patterns.hits."""
        return next((probe.text for probe in self.probes if probe.found(program)), None)

    def found(self, program: Program) -> bool | None:
        """Does any pattern hit? None if none is known to, and one may. Takes unbounded time: see Patterns.hits."""
        answer: bool | None = False
        for probe in self.probes:
            hit = probe.found(program)
            if hit:
                return True
            if hit is None:
                answer = None
        return answer


def compile_pattern(text: object) -> re.Pattern[str]:
    """One pattern, whose dots also stand for line feeds: the code of `sh -c` has lines. Raises PatternError."""
    if not isinstance(text, str):
        raise PatternError("a pattern must be a text")
    if not text.strip():
        raise PatternError("an empty pattern hits everything")
    if len(text) > PATTERN_LIMIT:
        raise PatternError(f"a pattern of {len(text)} characters; at most {PATTERN_LIMIT}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return re.compile(_trim(text), re.DOTALL)
    except (re.error, OverflowError, RecursionError) as error:
        raise PatternError(f"bad pattern {text!r}: {error}") from None


def _trim(text: str) -> str:
    """Without `.*` at either end, which changes nothing about whether a search finds something and costs a second
    pass over the text from every position: `.*_test.*` takes 5 ms on 4,096 characters, `_test` 3 us."""
    while text.startswith(".*") and text[2:3] not in ("?", "+", "*", "{"):
        text = text[2:]
    while (end := _FREE_END.search(text)) is not None:
        text = text[:end.start(1)]
    return text or ".*"


_FREE_END = re.compile(r"(?<!\\)(?:\\\\)*(\.\*)\Z")
"""`.*` at the end; after an odd number of backslashes its dot is literal."""


class Overrun(Exception):
    """The patterns took longer than their budget."""


class Patterns:
    """Evaluates pattern sets within the CPU budget of their rules and keeps the results.

    `disabled` maps a rule to the reason why its patterns are no longer evaluated. Off the main thread a search cannot
    be interrupted, so only results that are already known are given there.
    """

    def __init__(self, budget_s: float = BUDGET_S, cpu_clock: Callable[[], float] = time.thread_time) -> None:
        self.disabled: dict[str, str] = {}
        self._budget_s = budget_s
        self._clock = cpu_clock
        self._spent: dict[str, float] = {}
        self._known: OrderedDict[Program, dict[PatternSet, bool | None]] = OrderedDict()

    def new_tick(self) -> None:
        """Begin a new tick: every rule has its whole budget again."""
        if self._spent:
            self._spent.clear()

    def hits(self, rule: str, patterns: PatternSet, program: Program) -> bool | None:
        """Does any pattern hit the program? None if a name that could not be read may be hit, or if the search takes
        more than the rule's budget; the rule is then in `disabled`."""
        known = self._known.get(program)
        if known is None:
            known = self._known[program] = {}
            if len(self._known) > CACHED_PROGRAMS:
                self._known.popitem(last=False)
        if patterns not in known and rule not in self.disabled and _interruptible():
            try:
                known[patterns] = self._search(rule, patterns, program)
            except Overrun:
                self.disabled[rule] = (
                    f"its patterns took more than {1000 * self._budget_s:.0f} ms of CPU time in one tick")
        return known.get(patterns)

    def _search(self, rule: str, patterns: PatternSet, program: Program) -> bool | None:
        """Raises Overrun when the rule's budget for this tick is spent."""
        left = self._budget_s - self._spent.get(rule, 0.0)
        if left <= 0:
            raise Overrun
        began = self._clock()
        try:
            return self._bounded(left, patterns, program)
        finally:
            self._spent[rule] = self._spent.get(rule, 0.0) + self._clock() - began

    def _bounded(self, seconds: float, patterns: PatternSet, program: Program) -> bool | None:
        """The search; raises Overrun after `seconds` of the process's own CPU time in user mode."""
        if not _handled:
            # Once for the life of the process: nothing else here uses this signal, and setting it back and forth
            # costs five times what the timer does.
            _handled.append(signal.signal(signal.SIGVTALRM, _overrun))
        # The timer fires once. If it fires between the two handlers, the outer one takes it.
        try:
            try:
                _searching.append(program)
                signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
                return patterns.found(program)
            finally:
                _searching.clear()
        except _Interrupt:
            raise Overrun from None
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _interruptible() -> bool:
    """Signals reach the main thread only."""
    return threading.current_thread() is threading.main_thread()


_searching: list[Program] = []
"""The program that is searched at this moment, or none."""

_handled: list[object] = []
"""The handler that was installed before ours."""


def _overrun(_signal: int, _frame: FrameType | None) -> None:
    if _searching:
        raise _Interrupt
