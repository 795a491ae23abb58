"""Processes that are never signalled, not even on request, and how many of the others may be.

Each guard is a pure function of one process that returns the reason for a refusal, or None. What a guard needs and
cannot know is a reason too. Nothing overrides a guard: there is no flag, and the function that sends signals cannot
bypass them.

The number of kills is limited: so many in one run, so many an hour for each rule, and none after a failure. What was
spent is read from the audit file, which is the one record that every reaper writes, so two of them share one budget
and a restart forgets nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rogue_hunter.reaper.process import Live, Me
from rogue_hunter.rules.model import Safety
from rogue_hunter.rules.patterns import listed
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


def _low_pid(p: Live, me: Me, safety: Safety) -> str | None:
    least = safety.least_pid(own_namespace=me.own_pid_namespace)
    return f"its pid is below {least}" if p.pid < least else None


def _ancestor(p: Live, me: Me, safety: Safety) -> str | None:
    if p.pid in me.ancestors:
        return "it is an ancestor of rogue-hunter"
    return "it may be an ancestor of rogue-hunter: one of these is hidden" if p.key[1] <= me.hidden_before else None


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


def _whitelist(p: Live, me: Me, safety: Safety) -> str | None:
    entry = listed(p.located, safety.whitelist)
    return f"{visible(entry)} is on the whitelist" if entry is not None else None


GUARDS: dict[str, Guard] = {
    "not_my_uid": _not_my_uid,
    "root": lambda p, me, safety: "one of its user ids is root's" if 0 in p.uids else None,
    "low_pid": _low_pid,
    "self": lambda p, me, safety: "it is rogue-hunter itself" if p.pid == me.pid else None,
    "ancestor": _ancestor,
    "session_leader": _session_leader,
    "rogue_hunter": _rogue_hunter,
    "kernel_thread": lambda p, me, safety: "it is a kernel thread" if p.kernel_thread else None,
    "thread": lambda p, me, safety: f"it is a thread of process {p.leader}" if p.leader != p.pid else None,
    "whitelist": _whitelist,
    # Whether it is a shell, part of rogue-hunter or on the whitelist is only known from all of its names.
    "unreadable": lambda p, me, safety: None if p.kernel_thread else p.program.names_unread or None,
}
"""Short name -> guard."""


def refusals(p: Live, me: Me, safety: Safety) -> tuple[Refusal, ...]:
    """Every reason not to signal the process; empty if there is none."""
    found = ((code, guard(p, me, safety)) for code, guard in GUARDS.items())
    return tuple(Refusal(code, words) for code, words in found if words is not None)


HOUR_S = 3600.0

NOTE_LIMIT = 4096
"""Bytes of the note that are read; ours are a line."""

MANUAL = "manual"
"""The rule of what a person named by pid. It has no hourly budget: the person is there."""


class Budget:
    """What is left to the run `run`. `entries` are the audit entries of the last hour: a run that takes longer
    (rh-pipe) has its budget for each hour."""

    def __init__(self, entries: Iterable[Mapping[str, Any]] = (), run: str = "") -> None:
        spent = [e for e in entries if e.get("kind") == "intent"]
        self._run = sum(e.get("run") == run for e in spent)
        self._hour = Counter(str(e.get("rule")) for e in spent)

    def refusal(self, rule: str, safety: Safety) -> Refusal | None:
        """Why this rule may terminate no further process now; None if it may."""
        if self._run >= safety.max_per_run:
            return Refusal("over_budget", f"the limit of {safety.max_per_run} processes a run is reached "
                                          "(safety.max_per_run)")
        if rule != MANUAL and self._hour[rule] >= safety.max_per_rule_per_hour:
            return Refusal("over_budget", f"the limit of {safety.max_per_rule_per_hour} processes an hour is reached "
                                          f"for rule {rule} (safety.max_per_rule_per_hour)")
        return None

    def spend(self, rule: str) -> None:
        """One process was signalled."""
        self._run += 1
        self._hour[rule] += 1


def _file(state_dir: Path) -> Path:
    return state_dir / "disarmed"


def disarm(state_dir: Path, why: str) -> None:
    """From now on nothing is ended without a person: a kill failed, so something is not as believed."""
    with contextlib.suppress(OSError):
        fd = os.open(_file(state_dir), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(visible(why) + "\n")


def disarmed(state_dir: Path) -> str | None:
    """Why nothing is ended without a person; None when it may be."""
    try:
        # Anything of this name disarms, also a fifo, which is not waited for.
        fd = os.open(_file(state_dir), os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            return os.read(fd, NOTE_LIMIT).decode("utf-8", "replace").strip() or "a kill failed"
        finally:
            os.close(fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"the note that disarms cannot be read: {error.strerror}"  # it may say that a kill failed


def rearm(state_dir: Path) -> bool:
    """A person has looked. False when there was nothing to lift."""
    try:
        _file(state_dir).unlink()
    except FileNotFoundError:
        return False
    return True
