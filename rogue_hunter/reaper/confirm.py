"""Asking a person on the terminal. Only a `y` or `yes` is a yes; end of input and anything else is a no."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from rogue_hunter.reaper.candidate import Candidate
from rogue_hunter.rules.model import PRIORITIES
from rogue_hunter.text.errors import USAGE, RogueHunterError
from rogue_hunter.text.format import clip, visible

SHOWN = 20
"""Candidates that are named one by one."""


class NoTerminal(RogueHunterError):
    """There is no terminal to ask on: --yes is needed."""

    code = USAGE


def question(candidates: Sequence[Candidate]) -> str:
    """What is about to be ended, for a person: one line each, then how many of each priority."""
    lines = [f"About to end {len(candidates)} process{'es' if len(candidates) != 1 else ''}:"]
    for c in candidates[:SHOWN]:
        lines.append(f"  {c.match['pid']:>7}  {clip(str(c.match.get('command', '')), 24):<24}  "
                     f"{visible(c.match['rule'])}: {clip(str(c.match.get('reason', '')), 80)}")
    if len(candidates) > SHOWN:
        lines.append(f"  and {len(candidates) - SHOWN} more")
    counts = [(p, sum(c.match.get("priority") == p for c in candidates)) for p in PRIORITIES]
    if any(n for _, n in counts):
        lines.append("  " + ", ".join(f"{p}: {n}" for p, n in counts if n))
    return "\n".join(lines) + "\nProceed? [y/N] "


def confirm_on_tty(candidates: Sequence[Candidate], path: str = "/dev/tty") -> bool:
    """Ask on the terminal, not on stdin, which carries records. Raises NoTerminal."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        raise NoTerminal("there is no terminal to ask on; --yes answers for you") from None
    with contextlib.closing(os.fdopen(fd, "rb+", buffering=0)) as tty:
        tty.write(question(candidates).encode("utf-8", "backslashreplace"))
        answer = b""
        while not answer.endswith(b"\n") and len(answer) < 64:
            more = tty.read(1)
            if not more:
                return False
            answer += more
    return answer.strip().lower() in (b"y", b"yes")
