"""Who is never signalled, whatever a rule or a person says.

Each guard is a pure question about one process; a process for which one of them has an answer is left alone. Nothing
overrides a guard: there is no flag, and the function that sends has no way around them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from rogue_hunter.reaper.process import Live, Me
from rogue_hunter.rules.model import MIN_PID, Safety
from rogue_hunter.rules.program import listed
from rogue_hunter.text.format import visible

NOBODY = 65534
"""What every user outside of a user namespace looks like inside of it: it may be anybody, root included."""

SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "mksh", "ash", "fish", "tcsh", "csh", "nu", "elvish", "pwsh",
                    "login", "su", "sudo"})


class Refusal(NamedTuple):
    """Why a process is left alone: a word of the action record's `refusals`, and a sentence."""

    code: str
    text: str


Guard = Callable[[Live, Me, Safety], str | None]


def _not_my_uid(p: Live, me: Me, safety: Safety) -> str | None:
    mine = set(me.uids)
    if len(mine) != 1:
        return "rogue-hunter itself runs with more than one user id"
    if not p.uids or set(p.uids) != mine:
        return f"its user ids are {', '.join(map(str, p.uids)) or 'unknown'}, not all {me.uids[0]}"
    if NOBODY in mine:
        return f"user {NOBODY} stands for everybody outside of a user namespace"
    return None


def _root(p: Live, me: Me, safety: Safety) -> str | None:
    return "one of its user ids is root's" if 0 in p.uids else None


def _low_pid(p: Live, me: Me, safety: Safety) -> str | None:
    least = max(MIN_PID, safety.min_pid)
    return f"pid {p.pid} is below {least}" if p.pid < least else None


def _self(p: Live, me: Me, safety: Safety) -> str | None:
    return "it is rogue-hunter itself" if p.pid == me.pid else None


def _ancestor(p: Live, me: Me, safety: Safety) -> str | None:
    return "rogue-hunter runs below it" if p.pid in me.ancestors else None


def _session_leader(p: Live, me: Me, safety: Safety) -> str | None:
    if p.pid == me.session:
        return "it leads the session that rogue-hunter runs in"
    names = {name.casefold() for name in p.program.names}
    if p.pid == p.session and "tty" in p.row and names & SHELLS:
        return f"it is the shell of a session on {p.row['tty']}"
    return None


def _rogue_hunter(p: Live, me: Me, safety: Safety) -> str | None:
    for name in p.program.names:
        last = os.path.basename(name)
        if last.startswith("rh-") or last.partition(".")[0] == "rogue_hunter":
            return f"it is part of rogue-hunter ({visible(last)})"
    return None


def _kernel_thread(p: Live, me: Me, safety: Safety) -> str | None:
    return "it is a kernel thread" if p.kernel_thread else None


def _thread(p: Live, me: Me, safety: Safety) -> str | None:
    return f"it is a thread of process {p.leader}" if p.leader != p.pid else None


def _whitelist(p: Live, me: Me, safety: Safety) -> str | None:
    entry = listed(p.program, safety.whitelist)
    return f"{visible(entry)} is on the whitelist" if entry is not None else None


GUARDS: dict[str, Guard] = {
    "not_my_uid": _not_my_uid, "root": _root, "low_pid": _low_pid, "self": _self, "ancestor": _ancestor,
    "session_leader": _session_leader, "rogue_hunter": _rogue_hunter, "kernel_thread": _kernel_thread,
    "thread": _thread, "whitelist": _whitelist,
}
"""Short name -> question."""


def refusals(p: Live, me: Me, safety: Safety) -> tuple[Refusal, ...]:
    """Every reason to leave the process alone; empty when there is none."""
    found = ((code, guard(p, me, safety)) for code, guard in GUARDS.items())
    return tuple(Refusal(code, words) for code, words in found if words is not None)
