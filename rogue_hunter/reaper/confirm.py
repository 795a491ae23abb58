"""Ask for confirmation on the terminal. Only `y` or `yes` confirms; end of input and anything else declines."""

from __future__ import annotations

import contextlib
import os
import textwrap
from collections.abc import Callable, Sequence

from rogue_hunter.reaper.candidate import Candidate
from rogue_hunter.rules.model import PRIORITIES
from rogue_hunter.stream.tick import Row
from rogue_hunter.text.errors import USAGE, RogueHunterError
from rogue_hunter.text.format import clip, duration, size, visible

SHOWN = 20
"""Processes that are listed one by one."""

PICKED = 40
"""Processes that can be chosen from: a terminal has not many more lines."""


_VERBS = {"kill": "terminate", "renice": "lower the priority of", "stop": "stop for a time",
          "freeze": "freeze for a time"}


class NoTerminal(RogueHunterError):
    """There is no terminal to ask on: --yes is needed."""

    code = USAGE


def question(candidates: Sequence[Candidate]) -> str:
    """What will be terminated: for each process the command line, then what it uses and why it matched; then
    how many there are of each priority."""
    verbs = dict.fromkeys(_VERBS[c.action.type] for c in candidates)
    lines = [f"About to {' or '.join(verbs)} {len(candidates)} process{'es' if len(candidates) != 1 else ''}:"]
    for c in candidates[:SHOWN]:
        lines += [*_described(c), *_wrapped(f"{visible(c.match['rule'])}: {clip(str(c.match.get('reason', '')), 100)}")]
    if len(candidates) > SHOWN:
        lines.append(f"  and {len(candidates) - SHOWN} more")
    counts = [(p, sum(c.match.get("priority") == p for c in candidates)) for p in PRIORITIES]
    if any(n for _, n in counts):
        lines.append("  " + ", ".join(f"{p}: {n}" for p, n in counts if n))
    return "\n".join(lines) + "\nProceed? [y/N] "


def proof_question(candidates: Sequence[Candidate]) -> str:
    """What will be stopped for an experiment."""
    lines = ["About to stop and continue this process several times, for 0.2 s each:"]
    for c in candidates:
        lines += _described(c)
    return "\n".join(lines) + "\nProceed? [y/N] "


def _described(c: Candidate) -> list[str]:
    return [*_wrapped(clip(_command(c), 100), f"  {c.match['pid']:>7}  "), *_wrapped(_facts(c))]


def _wrapped(text: str, first: str = "") -> list[str]:
    """A text as lines of 80 columns at most, below each other; `first` is before the first."""
    indent = " " * 11
    return textwrap.wrap(text, 79, initial_indent=first or indent, subsequent_indent=indent)


def _command(c: Candidate) -> str:
    """The command line, after the short name where that is another."""
    row = c.match if c.live is None else c.live.row
    name, line = str(row.get("command", "?")), row.get("cmdline")
    return f"[{name}]" if not line else line if name in line else f"{name}: {line}"


def _facts(c: Candidate) -> str:
    """User, CPU, memory, age, parent and terminal, as far as they are known."""
    row = c.match if c.live is None else c.live.row
    age_s = c.match.get("age_s") if c.live is None else c.live.age_s
    cpu, total = c.match.get("cpu_percent"), row.get("cpu_seconds_total")
    return ", ".join(filter(None, (
        f"user {visible(str(row.get('user', row.get('uid', 'unknown'))))}",
        f"CPU {cpu:.0f} %" if cpu is not None else
        f"CPU {100 * total / age_s:.0f} % over its life" if total is not None and age_s else "",
        f"memory {size(row['memory_bytes'])}" if "memory_bytes" in row else "",
        f"age {duration(age_s)}" if age_s is not None else "",
        f"parent {clip(c.parent, 24) + ' ' if c.parent else ''}[{row['ppid']}]" if "ppid" in row else "",
        visible(str(row["tty"])) if "tty" in row else "no terminal")))


def confirm_on_tty(candidates: Sequence[Candidate], path: str = "/dev/tty",
                   words: Callable[[Sequence[Candidate]], str] = question) -> bool:
    """Ask on the terminal, not on standard input, which carries records. `words` makes the question. Raises
    NoTerminal."""
    return _asked(words(candidates), path).lower() in ("y", "yes")


def pick_on_tty(rows: Sequence[Row], path: str = "/dev/tty") -> list[Row]:
    """Show the processes with a number each and have a person choose: `1 3-5`, `all`, nothing. Raises NoTerminal."""
    shown = rows[:PICKED]
    lines = [f"{n:>3}  {row['pid']:>7} {row.get('cpu_percent', 0.0):>6.1f} % {size(row.get('memory_bytes')):>9}  "
             f"{clip(str(row.get('cmdline') or row.get('command', '?')), 100)}" for n, row in enumerate(shown, 1)]
    more = [f"     and {len(rows) - len(shown)} more: give a longer text"] if len(rows) > len(shown) else []
    answer = _asked("\n".join([*lines, *more, "Which? (numbers, as 1 3-5; all; nothing) "]), path)
    return [shown[n - 1] for n in numbers(answer, len(shown))]


def numbers(answer: str, last: int) -> list[int]:
    """The numbers from 1 to `last` that an answer names, in order; none for an answer that is not understood."""
    if answer.lower() == "all":
        return list(range(1, last + 1))
    found: set[int] = set()
    for word in answer.replace(",", " ").split():
        first, dash, end = word.partition("-")
        if not (first.isdecimal() and (end.isdecimal() or not dash)):
            return []
        found.update(range(int(first), int(end or first) + 1) if int(end or first) <= last else [])
    return sorted(n for n in found if 1 <= n <= last)


def _asked(text: str, path: str) -> str:
    """The line that a person answers on the terminal; empty at its end. Raises NoTerminal."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        raise NoTerminal("there is no terminal to ask on; use --yes to skip the question") from None
    with contextlib.closing(os.fdopen(fd, "rb+", buffering=0)) as tty:
        tty.write(text.encode("utf-8", "backslashreplace"))
        answer = b""
        while not answer.endswith(b"\n") and len(answer) < 64:
            more = tty.read(1)
            if not more:
                return ""
            answer += more
    return answer.decode("utf-8", "replace").strip()
