"""Processes as the reaper sees them: read for the decision, and signalled so that a signal reaches only the one meant.

A pid is a number that the kernel reuses once its process is gone. A pidfd refers to the process itself: it was opened
before the process was read, and a signal through it reaches that process or none. No number is ever
given to kill(2) here; where there is no pidfd, nothing is signalled.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import selectors
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rogue_hunter.rules.patterns import Program, program_of
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Row

TERM, KILL, CONT = signal.SIGTERM, signal.SIGKILL, signal.SIGCONT


class Gone(Exception):
    """The process is gone."""


class NotAProcess(Exception):
    """The number is a thread's."""


class Unsupported(Exception):
    """The kernel cannot tie a signal to a process; the text says why."""


class Handle(Protocol):
    """One process; it stays that process when its pid is reused. `method` is a word of the action record's `method`."""

    method: str

    def send(self, number: int) -> float | None:
        """Send a signal. Returns the seconds between the last look at the process and the signal where the two are not
        tied together, else None. Raises Gone, PermissionError."""
        ...

    def gone(self) -> bool:
        """Has it ended? True also for one that waits to be collected by its parent."""
        ...

    def fileno(self) -> int:
        """A descriptor that is readable once it has ended; -1 where there is none and `gone` must be polled."""
        ...

    def close(self) -> None:
        """Give back what is held."""
        ...


class Pidfd:
    """Linux: the process behind a pidfd (pidfd_open since Linux 5.3). Raises Gone, NotAProcess, Unsupported."""

    method = "pidfd"

    def __init__(self, pid: int) -> None:
        if pid <= 1:
            raise Unsupported(f"{pid} is no process that may be signalled")
        try:
            self._fd = os.pidfd_open(pid)
        except ProcessLookupError:
            raise Gone from None
        except OSError as error:
            # A thread that leads no process: ENOENT (EINVAL before Linux 6.9).
            if error.errno in (errno.ENOENT, errno.EINVAL) and os.path.exists(f"/proc/{pid}"):
                raise NotAProcess from None
            if error.errno in (errno.ENOENT, errno.EINVAL):
                raise Gone from None
            raise Unsupported(f"pidfd_open: {error.strerror}") from None
        except AttributeError:
            raise Unsupported("this Python knows no pidfd_open") from None

    def send(self, number: int) -> float | None:
        try:
            signal.pidfd_send_signal(self._fd, number)
        except ProcessLookupError:
            raise Gone from None
        return None

    def gone(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(0))

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1


class Stop:
    """A request to stop waiting, which wakes the waiting thread. Safe to set from a signal handler or another
    thread."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._set = False

    def set(self) -> None:
        """Stop."""
        self._set = True
        with contextlib.suppress(OSError):
            os.write(self._write, b"x")

    def __bool__(self) -> bool:
        return self._set

    def fileno(self) -> int:
        """A descriptor that is readable once it is set."""
        return self._read

    def close(self) -> None:
        """Give back the descriptors."""
        os.close(self._read)
        os.close(self._write)


KILL_WAIT_S = 3.0
"""How long a process may take to die of SIGKILL. One that sleeps uninterruptibly takes as long as the device it waits
for: then it survived, and this run is over after 8 s instead of hanging."""

QUICK_WAIT_S = 1.0
"""How long SIGTERM has where a rule names SIGKILL: it still comes first, so that children and files are let go."""

POLL_S = 0.05
"""Handles that cannot be waited on are polled this often, seconds."""


class Veto(Exception):
    """This signal must not be sent. `outcome` is what became of the process instead."""

    def __init__(self, outcome: str, text: str = "") -> None:
        super().__init__(text)
        self.outcome = outcome
        self.text = text


Guard = Callable[[int], None]
"""Called before every signal: reads the process again and writes the audit entry. Raises Veto, Gone."""


@dataclass(slots=True)
class Victim:
    """One process on its way. `term_wait_s` is the time that SIGTERM has, `kill` whether SIGKILL may follow.

    `outcome` is empty while it is not decided; `text` says more where there is more to say. `signals` were sent.
    """

    handle: Handle
    guard: Guard
    term_wait_s: float = 5.0
    kill: bool = True
    outcome: str = ""
    text: str = ""
    signals: list[str] = field(default_factory=list)
    wait_s: float = 0.0
    race_window_s: float | None = None
    began: float = 0.0
    deadline: float = 0.0


def escalate(victims: Sequence[Victim], stop: Stop, *, kill_wait_s: float = KILL_WAIT_S,
             clock: Callable[[], float] = time.monotonic) -> None:
    """Bring every victim to its outcome. Ends within the longest `term_wait_s` + `kill_wait_s`.

    When `stop` is set, or on Ctrl-C (which sets it), no further signal is sent to anybody: who has had SIGTERM and
    lives is `interrupted`, who has had nothing is too.
    """
    waiting: list[Victim] = []
    with selectors.DefaultSelector() as selector:
        selector.register(stop.fileno(), selectors.EVENT_READ, None)
        try:
            for victim in victims:
                if stop:
                    victim.outcome = "interrupted"
                elif _terminate(victim, clock):
                    waiting.append(victim)
                    if victim.handle.fileno() >= 0:
                        selector.register(victim.handle.fileno(), selectors.EVENT_READ, victim)
            while waiting and not stop:
                _wait(selector, waiting, clock)
                for victim in waiting:
                    if not stop:
                        _step(victim, clock, kill_wait_s)
                waiting = _unregister_done(selector, waiting)
        except KeyboardInterrupt:
            stop.set()
        for victim in victims:
            if not victim.outcome:
                gone = bool(victim.signals) and victim.handle.gone()
                _done(victim, _ended(victim) if gone else "interrupted", clock)


def _terminate(victim: Victim, clock: Callable[[], float]) -> bool:
    """SIGTERM, and SIGCONT so that a stopped process can obey. True when there is something to wait for."""
    victim.began = clock()
    if not _send(victim, TERM, clock):
        return False
    try:
        victim.handle.send(CONT)
        victim.signals.append("SIGCONT")
    except (Gone, PermissionError):
        pass  # it has obeyed already
    victim.began = clock()
    victim.deadline = victim.began + victim.term_wait_s
    return True


def _send(victim: Victim, number: int, clock: Callable[[], float]) -> bool:
    try:
        victim.guard(number)
        window = victim.handle.send(number)
    except Gone:
        _done(victim, _ended(victim), clock)
    except Veto as veto:
        _done(victim, veto.outcome, clock, veto.text)
    except PermissionError:
        _done(victim, "refused", clock, "the kernel does not permit it")
    else:
        victim.signals.append(signal.Signals(number).name)
        if window is not None:
            victim.race_window_s = max(window, victim.race_window_s or 0.0)
        return True
    return False


def _ended(victim: Victim) -> str:
    """What a process that is gone died of, as far as we had a part in it."""
    return "killed" if "SIGKILL" in victim.signals else "terminated" if victim.signals else "already_gone"


def _wait(selector: selectors.BaseSelector, waiting: Sequence[Victim], clock: Callable[[], float]) -> None:
    """Wait until a process ended, the next deadline, or a stop."""
    left = min(victim.deadline for victim in waiting) - clock()
    if any(victim.handle.fileno() < 0 for victim in waiting):
        left = min(left, POLL_S)
    selector.select(max(0.0, left))


def _step(victim: Victim, clock: Callable[[], float], kill_wait_s: float) -> None:
    """What comes next for one victim."""
    if victim.handle.gone():
        _done(victim, _ended(victim), clock)
    elif clock() >= victim.deadline:
        if "SIGKILL" in victim.signals:
            _done(victim, "survived", clock, "it has not died of SIGKILL")
        elif not victim.kill:
            _done(victim, "survived", clock, "it has not obeyed SIGTERM, and its rule allows no SIGKILL")
        elif _send(victim, KILL, clock):
            victim.deadline = clock() + kill_wait_s


def _done(victim: Victim, outcome: str, clock: Callable[[], float], text: str = "") -> None:
    victim.outcome, victim.text = outcome, text
    victim.wait_s = clock() - victim.began if victim.signals else 0.0


def _unregister_done(selector: selectors.BaseSelector, waiting: Sequence[Victim]) -> list[Victim]:
    for victim in waiting:
        if victim.outcome and victim.handle.fileno() >= 0:
            selector.unregister(victim.handle.fileno())
    return [victim for victim in waiting if not victim.outcome]


ANCESTORS_MAX = 1000
"""A chain of parents is never this long; with a broken /proc the search must end."""


class Unreadable(Exception):
    """Something that a decision needs may not be read; the text says what."""


@dataclass(frozen=True, slots=True)
class Live:
    """One process now.

    `row` holds the fields of a process record that need one reading (no rates). `uids` are real, effective, saved
    and file system user. `leader` is the process that the pid's thread belongs to; the pid itself unless it is a
    thread's. `session` is the pid of the session's leader, 0 if that is outside of the pid namespace, None if unknown.
    `age_s` is measured on the clock that start times count on, so setting the wall clock does not change it.
    `located` is `program` with the whole path of a script.
    """

    key: Key
    row: Row
    uids: tuple[int, ...]
    leader: int
    session: int | None = 0
    kernel_thread: bool = False
    age_s: float = 0.0
    program: Program = field(default=Program((), ""))
    located: Program = field(default=Program((), ""))

    @property
    def pid(self) -> int:
        """The process id."""
        return self.key[0]

    @property
    def dead(self) -> bool:
        """Exited, and its parent has not waited for it."""
        return self.row.get("state") == "defunct" and self.row.get("threads", 1) <= 1


@dataclass(frozen=True, slots=True)
class Me:
    """The process that sends the signals. `uids` are real, effective and saved user; `ancestors` every parent up
    to the first process; `session` the leader of the session; `own_pid_namespace` whether pids are those of a
    container, where the system's processes have no low ones. Processes that started up to `hidden_before` (clock ticks)
    may be ancestors too: one of these is hidden from this user (hidepid of proc(5)), so what is above it is unknown."""

    pid: int
    uids: tuple[int, ...]
    ancestors: frozenset[int]
    session: int
    own_pid_namespace: bool = False
    hidden_before: int = 0


class Machine(Protocol):
    """Processes of this machine that can be read and signalled."""

    def boot_id(self) -> str:
        """Identity of this boot."""
        ...

    def open(self, pid: int) -> Handle:
        """Open a handle of a process. Raises Gone, NotAProcess, Unsupported."""
        ...

    def read(self, pid: int) -> Live:
        """Read a process. Raises Gone, Unreadable."""
        ...

    def me(self) -> Me:
        """The process that asks, with its ancestors."""
        ...

    def ends_with(self, pid: int) -> list[int]:
        """The processes that the kernel ends with this one: those of the pid namespace of which it is the first."""
        ...

    def bundle(self, pid: int) -> Row:
        """What the process is doing, as evidence; what cannot be read is left out. Never raises."""
        ...


def live(key: Key, row: Row, uids: tuple[int, ...], argv: Sequence[str] = (), directory: str = "",
         **more: object) -> Live:
    """A Live with the names of `row`. Rules see the arguments as they are (`argv`): what protects a process may lie
    under the masks that cover secrets in a row. For the whitelist a script has its whole path below the working
    `directory`; not for rules, whose patterns rh-pipe searches on its main thread only, in the names of the row."""
    seen = {**row, "cmdline": " ".join(argv)} if argv and "cmdline" in row else row
    return Live(key, row, uids, program=program_of(seen), located=program_of(seen, directory), **more)  # type: ignore[arg-type]


def my_uids() -> tuple[int, ...]:
    """Real, effective and, where the system reports it, saved user id."""
    return os.getresuid() if hasattr(os, "getresuid") else (os.getuid(), os.geteuid())
