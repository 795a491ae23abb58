"""Processes that are never signalled, whatever a rule or a person says.

Each guard is a pure function of one process that returns the reason for a refusal, or None. What a guard needs and
cannot know is a reason too. Nothing overrides a guard: there is no flag, and the function that sends signals cannot
bypass them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from rogue_hunter.reaper.process import Live, Me
from rogue_hunter.rules.model import Safety
from rogue_hunter.rules.program import listed
from rogue_hunter.sampling.lineage import SHELLS
from rogue_hunter.text.format import visible

OVERFLOW_UID = 65534
"""The id that every user outside of a user namespace has inside of it: it may be any user, root included
(/proc/sys/kernel/overflowuid)."""

LOGIN_PROGRAMS = SHELLS | {"login", "su", "sudo", "doas"}
"""What leads a session on a terminal: shells, and what stands between a terminal and its shell."""


class Refusal(NamedTuple):
    """Why a process is not signalled: a word of the action record's `refusals`, and a sentence."""

    code: str
    text: str


Guard = Callable[[Live, Me, Safety], str | None]


def _not_my_uid(p: Live, me: Me, safety: Safety) -> str | None:
    mine = set(me.uids)
    if len(mine) != 1:
        return "rogue-hunter itself runs with more than one user id"
    if not p.uids or set(p.uids) != mine:
        return f"its user ids are {', '.join(map(str, p.uids)) or 'unknown'}, not all {me.uids[0]}"
    if OVERFLOW_UID in mine:
        return f"user id {OVERFLOW_UID} stands for every user outside of the user namespace"
    return None


def _root(p: Live, me: Me, safety: Safety) -> str | None:
    return "one of its user ids is root's" if 0 in p.uids else None


def _low_pid(p: Live, me: Me, safety: Safety) -> str | None:
    least = safety.least_pid(own_namespace=me.own_pid_namespace)
    return f"its pid is below {least}" if p.pid < least else None


def _self(p: Live, me: Me, safety: Safety) -> str | None:
    return "it is rogue-hunter itself" if p.pid == me.pid else None


def _ancestor(p: Live, me: Me, safety: Safety) -> str | None:
    return "it is an ancestor of rogue-hunter" if p.pid in me.ancestors else None


def _session_leader(p: Live, me: Me, safety: Safety) -> str | None:
    if p.pid == me.session:
        return "it leads the session of rogue-hunter"
    names = {name.casefold() for name in p.program.names}
    if "tty" not in p.row or not names & LOGIN_PROGRAMS:
        return None
    if p.session is None:
        return "it is a shell with a terminal, and its session cannot be read"
    return f"it is the login shell of {p.row['tty']}" if p.pid == p.session else None


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


def _unreadable(p: Live, me: Me, safety: Safety) -> str | None:
    """Whether it is a shell, part of rogue-hunter or on the whitelist is only known from all of its names."""
    return None if p.kernel_thread else p.program.names_unread or None


GUARDS: dict[str, Guard] = {
    "not_my_uid": _not_my_uid, "root": _root, "low_pid": _low_pid, "self": _self, "ancestor": _ancestor,
    "session_leader": _session_leader, "rogue_hunter": _rogue_hunter, "kernel_thread": _kernel_thread,
    "thread": _thread, "whitelist": _whitelist, "unreadable": _unreadable,
}
"""Short name -> guard."""


def refusals(p: Live, me: Me, safety: Safety) -> tuple[Refusal, ...]:
    """Every reason not to signal the process; empty if there is none."""
    found = ((code, guard(p, me, safety)) for code, guard in GUARDS.items())
    return tuple(Refusal(code, words) for code, words in found if words is not None)
