"""The capture stage: events that reach the forensics band and pauses in, captures out.

Nothing slow happens on the beat. A background thread waits for one capture at a time, which another process makes
(rogue_hunter.capture.worker); its records leave with a later tick. A request that comes while a capture is being made,
for a trouble that was just captured, or beyond a budget is skipped, not queued: evidence must be taken at the moment
of the trouble. Skipped requests are counted and reported in `capture` records with the status `skipped`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rogue_hunter.capture.request import Capturer, Parts, Request, Target, capture_record, new_capture_key
from rogue_hunter.config.options import Config, Forensics
from rogue_hunter.schema.field import BANDS, Key
from rogue_hunter.stream.tick import Recent, Record, Row, Tick, record
from rogue_hunter.worker import Worker

HOUR_S = 3600.0
SAVED_S = 60.0
"""Seconds for which unused CPU budget is saved up: 0.6 s of CPU at 1 %. A capture of a quiet machine uses 0.1 s."""
MAX_NAMED = 20
"""Processes that a record of skipped requests names."""
MAX_TROUBLES = 10_000
"""Troubles whose captures are counted; a storm of short-lived ones must not fill the memory."""


@dataclass(slots=True)
class Budget:
    """The captures of the last hour, by the caller's clock (seconds), and the CPU time they may still use.

    A trouble is named by the unit or command that is blamed, by the cause of a pause, or by both; a request may be
    about several. `saved_s` is CPU time: it grows by
    `cpu_percent` of the time that passes, up to SAVED_S of it, and falls by what captures use. A capture may begin
    when half of the most that can be saved is there.
    """

    made: deque[float] = field(default_factory=deque)
    by_trouble: dict[str, list[float]] = field(default_factory=dict)
    saved_s: float | None = None
    at: float = 0.0

    def refuses(self, troubles: Sequence[tuple[str, ...]], now: float, settings: Forensics) -> str | None:
        """The reason why no capture of these troubles may be made now; None if one may."""
        self.charge(0.0, now, settings)
        while self.made and self.made[0] <= now - HOUR_S:
            self.made.popleft()
        if self.made and now - self.made[-1] < settings.debounce_s:
            return "debounce"
        times = [[t for name in names for t in self._times(name, now)] for names in troubles]
        if times and all(now - max(each, default=-HOUR_S) < settings.same_trouble_s for each in times):
            return "same_trouble"
        if times and all(len(each) >= settings.per_identity_per_hour for each in times):
            return "identity_budget"
        if len(self.made) >= settings.per_hour:
            return "hour_budget"
        most = settings.cpu_percent / 100 * SAVED_S
        return "cpu_budget" if most and (self.saved_s or 0.0) < most / 2 else None

    def _times(self, name: str, now: float) -> list[float]:
        """When a trouble of this name was captured in the last hour."""
        times = self.by_trouble.get(name, ())
        return [t for t in times if t > now - HOUR_S]

    def charge(self, cpu_s: float, now: float, settings: Forensics) -> None:
        """Captures have used so much CPU time since the last call."""
        rate = settings.cpu_percent / 100
        most = rate * SAVED_S
        saved = most if self.saved_s is None else min(most, self.saved_s + rate * max(0.0, now - self.at))
        self.saved_s, self.at = saved - cpu_s, now

    def begin(self, troubles: Sequence[tuple[str, ...]], now: float) -> None:
        """A capture of these troubles begins."""
        self.made.append(now)
        if len(self.by_trouble) >= MAX_TROUBLES:
            self.by_trouble = {k: t for k, t in self.by_trouble.items() if t and t[-1] > now - HOUR_S}
        for name in {name for names in troubles for name in names}:
            if len(self.by_trouble) < MAX_TROUBLES or name in self.by_trouble:
                self.by_trouble[name] = [*self._times(name, now), now]


@dataclass(slots=True)
class Skipped:
    """Requests that were skipped, by reason, until they are reported. `since`: the time of the first."""

    count: dict[str, int] = field(default_factory=dict)
    named: dict[str, dict[Key, Target]] = field(default_factory=dict)
    first: dict[str, Request] = field(default_factory=dict)
    since: float | None = None

    def add(self, reason: str, request: Request, now: float) -> None:
        """Count one more."""
        self.count[reason] = self.count.get(reason, 0) + 1
        self.first.setdefault(reason, request)
        if self.since is None:
            self.since = now
        named = self.named.setdefault(reason, {})
        if request.culprit is not None and len(named) < MAX_NAMED:
            named.setdefault(request.culprit.key, request.culprit)

    def report(self) -> list[Record]:
        """One capture record for each reason; the tally begins again."""
        records = []
        for reason, count in self.count.items():
            first = self.first[reason]
            targets = [{"pid": t.key[0], "start_ticks": t.key[1], "command": t.command, "outcome": "skipped"}
                       for t in self.named[reason].values()]
            records.append(record(
                "capture", ts=round(first.ts, 3), capture=first.capture, trigger=first.trigger, status="skipped",
                reason=reason, skipped=count, event=first.event if count == 1 else None,
                pause=first.pause if count == 1 else None, boot_id=first.boot_id,
                targets=targets or None))
        self.count.clear()
        self.named.clear()
        self.first.clear()
        self.since = None
        return records


REPORT_SKIPPED_S = 10.0
"""Seconds after which skipped requests are reported at the latest."""
CANCEL_S = 0.5
"""Seconds that a cancelled capture has to answer."""
RECORDS_PER_TICK = 100
"""Records of a capture that leave with one tick: storing one takes 40 us, and a report of a Mac has 2,200."""
RING_TICKS = 60
MAX_TIME = 1e11
"""Epoch seconds from which a time stamp is nonsense (year 5138)."""
NAME_LIMIT = 1024
CONTEXT_PROCESSES = 10
"""Processes of the ring that a buffer_context names."""
_CONTEXT_FIELDS = ("score", "band", "cpu_percent", "memory_bytes", "disk_bytes_per_s", "run_delay_ms_per_s",
                   "dominant_resource", "state")

Job = tuple[Request, Record | None]
"""A request and its buffer_context."""


class Captures:
    """The stage that adds captures to the ticks.

    An `event` record of kind enter, band or peak in `band` or above requests a capture, and so does a `pause`.
    """

    def __init__(self, settings: Forensics, capturer: Capturer, clock: Callable[[], float] = time.monotonic, *,
                 band: str = "critical", boot_id: str | None = None, own_pid: int | None = None,
                 finish_s: float | None = None, cpu_seconds: Callable[[], float] = lambda: 0.0,
                 worker: Callable[[str, Callable[[Job], list[Record]]], Worker[Job, list[Record]]] = Worker) -> None:
        """`clock`: monotonic seconds, for all limits. `boot_id`: the boot that captures are made of, if the ticks may
        be of another one or missing; events of another boot are not captured. `own_pid`: events of children of this
        process are ignored, as those of rows marked `own` are, so that captures do not capture their own making.
        `finish_s`: how long `close` waits for a capture that is being made; by default its timeout. `cpu_seconds`: CPU
        time that captures have used so far, for the CPU budget. `worker`: makes the background thread.
        """
        self.settings = settings
        self._band = band
        self._capturer = capturer
        self._clock = clock
        self._own_ring: deque[tuple[Row, Mapping[Key, Row]]] = deque(maxlen=RING_TICKS)
        self._recent: Recent = ()
        self._given_boot_id = self._boot_id = boot_id
        self._own_pid = own_pid
        self._finish_s = finish_s
        self._cpu_seconds = cpu_seconds
        self._cpu_charged = cpu_seconds()
        self._worker = worker("rh-captures", self._work)
        self._budget = Budget()
        self._skipped = Skipped()
        self._waiting: deque[Record] = deque()
        self._rows: Mapping[Key, Row] = {}
        self._scored: set[Key] = set()
        self.cancel = threading.Event()
        """Set it to cancel the capture that is being made."""

    def configure(self, config: Config) -> None:
        """Use these settings from the next request on."""
        self.settings = config.forensics
        self._band = config.bands_of(config.scoring.model).forensics

    def __call__(self, tick: Tick) -> Tick:
        """The tick with records of captures that are done."""
        if tick.row is not None:
            self._boot_id = self._given_boot_id or tick.row.get("boot_id", self._boot_id)
            self._rows, self._scored, self._recent = tick.processes, tick.scored, tick.recent
            if not tick.recent:  # no track stage before this one
                rows = {key: tick.processes[key] for key in tick.scored if key in tick.processes}
                self._own_ring.append((tick.row, rows))
        if tick.records and self.settings.enabled:
            request = self._request(tick.records)
            if request is not None:
                self._begin(request)
        new = self._finished()
        if new:
            tick.records = [*tick.records, *new]
        return tick

    def close(self) -> list[Record]:
        """The last records. Waits for a capture that is being made, then cancels it; the cancelled capture is reported
        as failed."""
        if not self._worker.wait(self.settings.timeout_s if self._finish_s is None else self._finish_s):
            self.cancel.set()
            self._worker.wait(CANCEL_S)
        self._collect()
        self.cancel.set()
        return [*self._waiting, *self._skipped.report()]

    def abort(self) -> None:
        """Cancel the capture that is being made."""
        self.cancel.set()

    # -- requests ------------------------------------------------------------------------------------------------------

    def _request(self, records: Iterable[Record]) -> Request | None:
        """One request for all of one tick: the first event or pause names it, all of them add targets."""
        first: Record | None = None
        targets: dict[Key, Target] = {}
        troubles: list[tuple[str, ...]] = []
        level = BANDS.index(self._band)
        for each in records:
            culprits = self._culprits(each, level)
            if culprits is None:
                continue
            for culprit in culprits:
                key = _identity(culprit)
                if key is not None:
                    targets.setdefault(key, Target(key, _text(culprit.get("command")) or ""))
            troubles.append(_names(each, culprits))
            first = first or each
        if first is None:
            return None
        ts = first.get("ts", first.get("end", first.get("start")))
        # In a pipeline any program may have written this record.
        ts = float(ts) if isinstance(ts, int | float) and 0 <= ts < MAX_TIME else time.time()
        ordered = list(targets.values())
        chosen = [t if i == 0 else Target(t.key, t.command, "rogue") for i, t in enumerate(ordered)]
        chosen += [t for t in self._highest(len(targets)) if t.key not in targets]
        limit = self.settings.targets + (1 if ordered else 0)
        return Request(new_capture_key(ts), ts, "pause" if first["type"] == "pause" else "event",
                       tuple(chosen[:limit]), _text(first.get("event")), _text(first.get("boot_id")) or self._boot_id,
                       _text(first.get("pause")), tuple(troubles))

    def _culprits(self, each: Record, level: int) -> list[dict[str, Any]] | None:
        """The processes that a record blames; None if the record requests no capture."""
        if each.get("type") == "pause":
            found = each.get("culprits")
            culprits = found if isinstance(found, list) else []
            return [culprit for culprit in culprits if isinstance(culprit, dict) and not culprit.get("own")]
        if each.get("type") != "event" or each.get("kind") not in ("enter", "band", "peak"):
            return None
        band = each.get("band")
        if not isinstance(band, str) or band not in BANDS or BANDS.index(band) < level or _identity(each) is None:
            return None
        own = each.get("own") or (self._own_pid and each.get("ppid") == self._own_pid)
        return None if own else [each]

    def _highest(self, more: int) -> list[Target]:
        """The processes with the highest scores of the last tick: as many as targets are configured, and `more`."""
        rows = [(self._rows[key].get("score", 0), key) for key in self._scored
                if key in self._rows and not self._rows[key].get("own")]
        rows.sort(key=lambda pair: (-pair[0], pair[1]))
        return [Target(key, self._rows[key].get("command") or "", "rogue")
                for _, key in rows[: self.settings.targets + more]]

    # -- captures ------------------------------------------------------------------------------------------------------

    def _begin(self, request: Request) -> None:
        """Start the capture, or count it as skipped."""
        now = self._clock()
        if request.boot_id is not None and self._boot_id is not None and request.boot_id != self._boot_id:
            reason: str | None = "other_boot"
        elif self._worker.pending:
            reason = "busy"
        else:
            total = self._cpu_seconds()
            self._budget.charge(total - self._cpu_charged, now, self.settings)
            self._cpu_charged = total
            reason = self._budget.refuses(request.troubles, now, self.settings)
        if reason is not None:
            self._skipped.add(reason, request, now)
            return
        self._budget.begin(request.troubles, now)
        self._worker.submit((request, _context(self._recent or self._own_ring, request)))

    def _work(self, job: Job) -> list[Record]:
        """In the background thread: make the capture. One that fails is reported and must not end the pipe."""
        request, context = job
        try:
            records = self._capturer(request, self.cancel)
            if not records:
                raise RuntimeError("the capture has no records")
        except Exception as error:
            problem = Parts({}, [f"{type(error).__name__}: {error}"])
            records = [capture_record(request, problem, "unknown", 0.0, ())]
        return [records[0], context, *records[1:]] if context else records

    def _finished(self) -> list[Record]:
        """Some records of a capture that is done, and skipped requests when it is time to report them."""
        self._collect()
        waiting = self._waiting
        new = [waiting.popleft() for _ in range(min(RECORDS_PER_TICK, len(waiting)))]
        since = self._skipped.since
        if since is not None and (new or self._clock() - since >= REPORT_SKIPPED_S):
            new += self._skipped.report()
        return new

    def _collect(self) -> None:
        for records in self._worker.collect():
            self._waiting.extend(records)


def _text(value: object) -> str | None:
    return value[:NAME_LIMIT] if isinstance(value, str) else None


def _names(each: Record, culprits: list[dict[str, Any]]) -> tuple[str, ...]:
    """The names of the trouble in a record: the unit or command of its culprit, and a pause's cause."""
    names = [_text(c.get("unit")) or _text(c.get("command")) for c in culprits[:1]]
    if each["type"] == "pause":
        names.append(f"pause: {_text(each.get('cause'))}")
    return tuple(name for name in names if name)


def _identity(culprit: Mapping[str, Any]) -> Key | None:
    """The identity of a culprit: (pid, start), from its own fields or from `identity` in either of its forms."""
    pid, start = culprit.get("pid"), culprit.get("start_ticks")
    identity = culprit.get("identity")
    if isinstance(identity, dict):
        pid, start = identity.get("pid", pid), identity.get("start_ticks", start)
    elif isinstance(identity, list | tuple) and len(identity) >= 2:
        pid, start = identity[-2], identity[-1]
    return (pid, start) if isinstance(pid, int) and isinstance(start, int) else None


def _context(ticks: Iterable[tuple[Row, Mapping[Key, Row]]], request: Request) -> Record | None:
    """The buffer_context of a request: the processes with the highest scores in the ring; None for an empty ring."""
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
