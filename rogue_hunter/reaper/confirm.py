"""Ask for confirmation on the terminal. Only `y` or `yes` confirms; end of input and anything else declines."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from rogue_hunter.reaper.candidate import Candidate
from rogue_hunter.rules.model import PRIORITIES
from rogue_hunter.text.errors import USAGE, RogueHunterError
from rogue_hunter.text.format import clip, duration, size, visible

SHOWN = 20
"""Processes that are listed one by one."""


class NoTerminal(RogueHunterError):
    """There is no terminal to ask on: --yes is needed."""

    code = USAGE


def question(candidates: Sequence[Candidate]) -> str:
    """What will be terminated: for each process the command line, then what it uses and why it matched; then
    how many there are of each priority."""
    lines = [f"About to terminate {len(candidates)} process{'es' if len(candidates) != 1 else ''}:"]
    for c in candidates[:SHOWN]:
        lines.append(f"  {c.match['pid']:>7}  {clip(_command(c), 100)}")
        lines.append(f"           {_facts(c)}")
        lines.append(f"           {visible(c.match['rule'])}: {clip(str(c.match.get('reason', '')), 100)}")
    if len(candidates) > SHOWN:
        lines.append(f"  and {len(candidates) - SHOWN} more")
    counts = [(p, sum(c.match.get("priority") == p for c in candidates)) for p in PRIORITIES]
    if any(n for _, n in counts):
        lines.append("  " + ", ".join(f"{p}: {n}" for p, n in counts if n))
    return "\n".join(lines) + "\nProceed? [y/N] "


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
    parts = [f"user {visible(str(row.get('user', row.get('uid', 'unknown'))))}"]
    if cpu is not None:
        parts.append(f"CPU {cpu:.0f} %")
    elif total is not None and age_s:
        parts.append(f"CPU {100 * total / age_s:.0f} % over its life")
    if "memory_bytes" in row:
        parts.append(f"memory {size(row['memory_bytes'])}")
    if age_s is not None:
        parts.append(f"age {duration(age_s)}")
    if "ppid" in row:
        parts.append(f"parent {clip(c.parent, 24) + ' ' if c.parent else ''}[{row['ppid']}]")
    parts.append(visible(str(row["tty"])) if "tty" in row else "no terminal")
    return ", ".join(parts)


def confirm_on_tty(candidates: Sequence[Candidate], path: str = "/dev/tty") -> bool:
    """Ask on the terminal, not on standard input, which carries records. Raises NoTerminal."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        raise NoTerminal("there is no terminal to ask on; use --yes to skip the question") from None
    with contextlib.closing(os.fdopen(fd, "rb+", buffering=0)) as tty:
        tty.write(question(candidates).encode("utf-8", "backslashreplace"))
        answer = b""
        while not answer.endswith(b"\n") and len(answer) < 64:
            more = tty.read(1)
            if not more:
                return False
            answer += more
    return answer.strip().lower() in (b"y", b"yes")
