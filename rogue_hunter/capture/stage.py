"""The stage: events that reach the forensics band and pauses in, captures out. Nothing slow happens on the beat.

One thread waits for one capture at a time; what was made goes out with the next tick. The capture itself is made by
another process (rogue_hunter.capture.worker): a thread that parses a report would take the interpreter from the
beat at each of its system calls. A request that comes too soon,
beyond the budget or while a capture is being made is not queued but counted, and said in a `capture` record with the
status `skipped`: evidence is worth something at the moment it is asked for, not a minute later.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rogue_hunter.capture.limits import Budget, Skipped
from rogue_hunter.capture.platform import new_capture_key
from rogue_hunter.capture.request import Capturer, Parts, Request, Target, capture_record
from rogue_hunter.capture.settings import ForensicsSettings
from rogue_hunter.schema.field import BANDS, Key
from rogue_hunter.stream.tick import Record, Row, Tick, record

SAY_SKIPPED_S = 10.0
"""Seconds after which skipped requests are said at the latest."""
CANCEL_S = 0.5
"""Seconds in which a capture that is cancelled may still say so."""
SLICE = 100
"""Records of a capture that go out with one tick: storing one takes 40 us, and a report of a Mac has 2,200."""
RING_TICKS = 60
TIME_END = 1e11
"""Epoch seconds that no calendar has: what is later is no time."""
NAME_LIMIT = 1024
CONTEXT_PROCESSES = 10
"""Processes of the ring that a buffer_context names."""
_CONTEXT_FIELDS = ("score", "band", "cpu_percent", "memory_bytes", "disk_bytes_per_s", "run_delay_ms_per_s",
                   "dominant_resource", "state")

Ring = Callable[[], Iterable[tuple[Row, Mapping[Key, Row]]]]
"""The last ticks, oldest first: closing row and selected rows. `rogue_hunter.tracking.ring.Ring.ticks` is one."""
Start = Callable[[Callable[[], None]], object]


def start_thread(work: Callable[[], None]) -> object:
    """Run `work` in a daemon thread."""
    thread = threading.Thread(target=work, name="rh-forensics", daemon=True)
    thread.start()
    return thread


@dataclass(slots=True)
class _State:
    settings: ForensicsSettings
    capturer: Capturer
    clock: Callable[[], float]
    start: Start
    ring: Ring
    budget: Budget = field(default_factory=Budget)
    skipped: Skipped = field(default_factory=Skipped)
    done: deque[list[Record]] = field(default_factory=deque)
    made: threading.Event = field(default_factory=threading.Event)
    waiting: deque[Record] = field(default_factory=deque)
    cancel: threading.Event = field(default_factory=threading.Event)
    busy: bool = False
    boot_id: str | None = None
    own_pid: int | None = None
    rows: Mapping[Key, Row] = field(default_factory=dict)
    scored: set[Key] = field(default_factory=set)


def forensics(ticks: Iterator[Tick], settings: ForensicsSettings, capturer: Capturer,
              clock: Callable[[], float] = time.monotonic, *, band: str = "critical", ring: Ring | None = None,
              start: Start = start_thread, finish_s: float | None = None, boot_id: str | None = None,
              own_pid: int | None = None, live: Callable[[], tuple[ForensicsSettings, str]] | None = None,
              ) -> Iterator[Tick]:
    """Add captures to the ticks.

    An `event` record of kind enter, band or peak in `band` or above asks for a capture, and so does a `pause`. `clock`
    (seconds, never backward) is what debounce and budgets count on. `ring` gives what went on before; without one the
    stage keeps the scored rows of the last ticks. `boot_id` is the boot that captures are made of, when the ticks may
    be of another one or are left out; what happened in another one is not captured. Events of children of `own_pid`
    are passed over: the maker of captures would be its own subject. `live` gives settings and band as they are now,
    where they may change.

    At the end of the input a capture under way is waited for, at most `finish_s` seconds (default: the timeout of a
    capture), then cancelled, which it still says; when the stage is closed early it is cancelled without a word.
    """
    own: deque[tuple[Row, Mapping[Key, Row]]] = deque(maxlen=RING_TICKS)
    state = _State(settings, capturer, clock, start, ring or (lambda: list(own)), boot_id=boot_id, own_pid=own_pid)
    try:
        for tick in ticks:
            if tick.row is not None:
                state.boot_id = boot_id or tick.row.get("boot_id", state.boot_id)
                state.rows, state.scored = tick.processes, tick.scored
                if ring is None:
                    own.append((tick.row, {key: tick.processes[key] for key in tick.scored if key in tick.processes}))
            if tick.records:
                if live is not None:
                    state.settings, band = live()
                request = _request(state, tick.records, BANDS.index(band)) if state.settings.enabled else None
                if request is not None:
                    _follow(state, request)
            if state.busy or state.waiting or state.skipped.since is not None:
                new = _finished(state)
                if new:
                    tick.records = [*tick.records, *new]
            yield tick
        last = _last_words(state, state.settings.timeout_s if finish_s is None else finish_s)
        if last:
            yield Tick(records=last)
    finally:
        state.cancel.set()


def _request(state: _State, records: Iterable[Record], level: int) -> Request | None:
    """One request for everything in one tick: the first event or pause gives its name, all give targets."""
    first: Record | None = None
    targets: dict[Key, Target] = {}
    for each in records:
        kind = each.get("type")
        if kind == "event" and each.get("kind") in ("enter", "band", "peak") and _reaches(each.get("band"), level) \
                and not (state.own_pid and each.get("ppid") == state.own_pid):
            if _identity(each) is None:
                continue
            who: Iterable[object] = (each,)
        elif kind == "pause":
            culprits = each.get("culprits")
            who = culprits if isinstance(culprits, list) else ()
        else:
            continue
        for one in who:
            key = _identity(one)
            if key is not None and isinstance(one, dict):
                targets.setdefault(key, Target(key, _text(one.get("command")) or ""))
        first = first or each
    if first is None:
        return None
    ts = first.get("ts", first.get("end", first.get("start")))
    # In a pipeline this was written by anybody.
    ts = float(ts) if isinstance(ts, int | float) and 0 <= ts < TIME_END else time.time()
    ordered = list(targets.values())
    chosen = [t if i == 0 else Target(t.key, t.command, "rogue") for i, t in enumerate(ordered)]
    chosen += [t for t in _rogues(state, len(targets)) if t.key not in targets]
    limit = state.settings.targets + (1 if ordered else 0)
    return Request(new_capture_key(ts), ts, "pause" if first["type"] == "pause" else "event", tuple(chosen[:limit]),
                   _text(first.get("event")), _text(first.get("boot_id")) or state.boot_id, _text(first.get("pause")))


def _text(value: object) -> str | None:
    return value[:NAME_LIMIT] if isinstance(value, str) else None


def _reaches(band: object, level: int) -> bool:
    return isinstance(band, str) and band in BANDS and BANDS.index(band) >= level


def _identity(culprit: object) -> Key | None:
    if not isinstance(culprit, dict):
        return None
    pid, start = culprit.get("pid"), culprit.get("start_ticks")
    identity = culprit.get("identity")
    if isinstance(identity, dict):
        pid, start = identity.get("pid", pid), identity.get("start_ticks", start)
    elif isinstance(identity, list | tuple) and len(identity) >= 2:
        pid, start = identity[-2], identity[-1]
    return (pid, start) if isinstance(pid, int) and isinstance(start, int) else None


def _rogues(state: _State, beside: int) -> list[Target]:
    """The processes with the highest scores of the last tick, enough of them to leave `beside` out."""
    rows = [(state.rows[key].get("score", 0), key) for key in state.scored if key in state.rows]
    rows.sort(key=lambda pair: (-pair[0], pair[1]))
    best = rows[: state.settings.targets + beside]
    return [Target(key, state.rows[key].get("command") or "", "rogue") for _, key in best]


def _follow(state: _State, request: Request) -> None:
    """Begin the capture, or count it as skipped."""
    now = state.clock()
    reason = None
    if request.boot_id is not None and state.boot_id is not None and request.boot_id != state.boot_id:
        reason = "other_boot"
    elif state.busy:
        reason = "busy"
    reason = reason or state.budget.refuses(request.culprit, now, state.settings)
    if reason is not None:
        state.skipped.add(reason, request, now)
        return
    state.budget.spend(request.culprit, now)
    state.busy = True
    context = _context(state.ring(), request)
    capturer, done, made, cancel = state.capturer, state.done, state.made, state.cancel

    def failed(error: Exception) -> list[Record]:
        """One capture that fails must not end the pipe; it is said like any other that brought nothing."""
        parts = Parts({}, [f"{type(error).__name__}: {error}"])
        return [capture_record(request, parts, "unknown", 0.0, ())]

    def work() -> None:
        try:
            records = capturer(request, cancel)
            if not records:
                raise RuntimeError("the capture has no records")
        except Exception as error:
            records = failed(error)
        done.append([records[0], context, *records[1:]] if context else records)
        made.set()

    made.clear()
    try:
        state.start(work)
    except RuntimeError as error:  # no thread to be had
        done.append(failed(error))
        made.set()


def _context(ticks: Iterable[tuple[Row, Mapping[Key, Row]]], request: Request) -> Record | None:
    """What the ring held: the processes with the highest scores, and when."""
    held = list(ticks)
    if not held:
        return None
    best: dict[Key, Row] = {}
    for _, rows in held:
        for key, row in rows.items():
            if row.get("score", 0) >= best.get(key, {}).get("score", 0):
                best[key] = row
    ranked = sorted(best.items(), key=lambda item: (-item[1].get("score", 0), item[0]))[:CONTEXT_PROCESSES]
    culprits: list[dict[str, Any]] = [
        {"pid": key[0], "start_ticks": key[1], "command": row.get("command", ""),
         **{name: row[name] for name in _CONTEXT_FIELDS if name in row}} for key, row in ranked]
    last = held[-1][0].get("ts", request.ts)
    return record("buffer_context", capture=request.capture, ts=last, first_ts=held[0][0].get("ts"),
                  sample_count=len(held), peak_score=culprits[0].get("score") if culprits else None, culprits=culprits)


def _finished(state: _State) -> list[Record]:
    """Records of a capture that is done, a slice at a time, and what was skipped when it is time to say so."""
    if state.done:
        state.waiting.extend(state.done.popleft())
        state.busy = False
    waiting = state.waiting
    new = [waiting.popleft() for _ in range(min(SLICE, len(waiting)))]
    if state.skipped.since is not None and (new or state.clock() - state.skipped.since >= SAY_SKIPPED_S):
        new = [*new, *state.skipped.say()]
    return new


def _last_words(state: _State, wait_s: float) -> list[Record]:
    if state.busy and not state.made.wait(wait_s):
        state.cancel.set()
        state.made.wait(CANCEL_S)
    for records in state.done:
        state.waiting.extend(records)
    return [*state.waiting, *state.skipped.say()]
