"""One process of macOS between two readings: its last counters, its row. Pure: it is handed bytes already decoded."""

from __future__ import annotations

from typing import Any

from rogue_hunter.host.macos.decode import Task, Usage, Who
from rogue_hunter.host.macos.fields import (
    NO_TASK_YET,
    NOTHING,
    YOUNGEST_S,
    identity_fields,
    rate_fields,
    state_fields,
    total_fields,
)
from rogue_hunter.host.macos.reading import Look
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Row


class Process:
    """State kept between ticks.

    `pulse` is what the cheap reading of a tick gave last; as long as it gives the same, nothing was counted. `settled`:
    the row already is that of a process at rest. `usage` is None for a process that may not be read.
    `place` is its place in its gate, -1 for none; `read_ns` is when it was read, or was last seen at rest.
    `extra` holds what the worker found out; it is added to the row as it comes. `start_shift_s` is by how much the wall
    clock was set since the process started: the kernel keeps the start time of then.
    """

    __slots__ = ("delay_since_ns", "delay_ticks", "extra", "gpu", "key", "place", "pulse", "rates", "read_ns",
                 "refresh_ns", "row", "settled", "start_shift_s", "task", "thread_state", "usage", "who")

    def __init__(self, look: Look, now_ns: int) -> None:
        self.who = who = look.who
        self.key: Key = (who.pid, who.start_us or 0)
        self.pulse = look.pulse
        self.usage = usage = look.usage
        self.task = look.task
        self.place = -1
        self.read_ns = now_ns
        self.refresh_ns = 0
        self.settled = usage is None
        self.row: Row = {}
        self.rates: dict[str, Any] = {}
        self.extra: dict[str, Any] = {}
        self.gpu: dict[str, Any] = {}
        self.thread_state: str | None = None
        self.start_shift_s = 0.0
        self.delay_ticks = _delay(usage)
        self.delay_since_ns = now_ns

    @property
    def restless(self) -> bool:
        """Was a thread running or ready to run at the last look? Then it may have gone to sleep since, uncounted."""
        return self.task is not None and self.task.running > 0

    def outdated_by(self, usage: Usage) -> bool:
        """True when new counters show another identity or task. Memory taken from a process at rest or a late write of
        its data change only counters."""
        before = self.usage
        return before is None or _life(usage) != _life(before)

    def begin_rates(self, age_s: float, interval_s: float, tick_s: float) -> bool:
        """Rates at first sight: over its own lifetime if that began within the interval, else unknown. Says whether
        it is known to have run."""
        if self.usage is None or not YOUNGEST_S <= age_s <= interval_s:
            return False
        self.rates = rate_fields(self.usage, self.task, NOTHING, NO_TASK_YET, age_s, tick_s)
        if self.delay_ticks is not None:
            self.rates["run_delay_ms_per_s"] = round(self.delay_ticks * tick_s * 1000 / age_s, 2)
        return self.usage.cpu_ticks > 0

    def advance(self, who: Who, usage: Usage, task: Task | None, now_ns: int, tick_s: float) -> bool:
        """Take the next reading; returns whether the process ran since the last one. Called for a process at rest too:
        its rates become 0."""
        before = self.usage
        seconds = (now_ns - self.read_ns) / 1e9
        if before is None or usage.start_abstime != before.start_abstime or seconds <= 0:
            # Counters of another kind of beginning: nothing can be subtracted.
            self.rates = {}
            self.delay_ticks, self.delay_since_ns = _delay(usage), now_ns
            ran = False
        else:
            ran = (usage.cpu_ticks, usage.runnable_ticks) != (before.cpu_ticks, before.runnable_ticks)
            # A defunct process has no task any more; what the task had counted is kept.
            self.rates = rate_fields(usage, task or self.task, before, self.task, seconds, tick_s)
            if (rate := self._delay_rate(usage, task, usage.cpu_ticks != before.cpu_ticks, now_ns, tick_s)) is not None:
                self.rates["run_delay_ms_per_s"] = rate
        if ran:
            self.thread_state = None
        self.settled = not ran and usage == before and not (task is not None and task.running > 0)
        self.who, self.usage, self.task, self.read_ns = who, usage, task, now_ns
        return ran

    def _delay_rate(self, usage: Usage, task: Task | None, used_cpu: bool, now_ns: int, tick_s: float) -> float | None:
        """Run delay of the interval, ms/s.

        Runnable time minus CPU time. The kernel counts a thread's CPU time as it goes, but its runnable time only when
        it blocks or its quantum ends (10 ms; xnu, thread_block and thread_quantum_expire): the difference dips and
        catches up, so its highest value so far is used. A thread that waits for a CPU through several ticks is
        counted all at once when it runs; that wait is spread over the ticks in which it was ready and used nothing.
        """
        delay = _delay(usage)
        if delay is None or self.delay_ticks is None:
            return None
        rate = 0.0
        if delay > self.delay_ticks:
            rate = round((delay - self.delay_ticks) * tick_s * 1e12 / (now_ns - self.delay_since_ns), 2)
            self.delay_ticks, self.delay_since_ns = delay, now_ns
        elif used_cpu or task is None or task.running == 0:
            self.delay_since_ns = now_ns
        return rate

    def compose(self, user: str | None, terminal: str | None, tick_s: float) -> Row:
        """The row as it should be now."""
        row: Row = identity_fields(self.who)
        row["start_ticks"] = self.key[1]
        if self.start_shift_s and "start_time" in row:
            row["start_time"] = round(row["start_time"] + self.start_shift_s, 6)
        if user is not None:
            row["user"] = user
        row.update(self.extra)
        if terminal is not None:
            row["tty"] = terminal
        row.update(state_fields(self.who, self.task, self.thread_state))
        if self.usage is not None:
            row.update(total_fields(self.usage, self.task, tick_s))
            if self.delay_ticks is not None:
                row["run_delay_seconds_total"] = round(self.delay_ticks * tick_s, 6)
            row.update(self.rates)
        row.update(self.gpu)
        return row


def _life(usage: Usage) -> tuple[object, ...]:
    return (usage.cpu_ticks, usage.runnable_ticks, usage.start_abstime, usage.exit_abstime, usage.uuid)


def _delay(usage: Usage | None) -> int | None:
    if usage is None or usage.runnable_ticks is None:
        return None
    return max(0, usage.runnable_ticks - usage.cpu_ticks)
