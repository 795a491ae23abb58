"""Metrics of ticks, matches and actions in the Prometheus text format: for a page on 127.0.0.1, or for a file.

Labels are rule, priority, outcome and cause, never a pid or a name that a process chose: otherwise any user could
create time series without limit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

from rogue_hunter import files
from rogue_hunter.rules.model import PRIORITIES
from rogue_hunter.schema.events import CAUSES
from rogue_hunter.schema.field import BANDS
from rogue_hunter.schema.sampling import TICK
from rogue_hunter.stream.tick import Record, Row, Tick

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

REQUEST_S = 5.0
"""A scraper that sends its request more slowly than this is cut off."""

EVENTS_MAX = 10_000
"""Open events whose band is remembered; the oldest is forgotten beyond that."""

REPEAT_S = 120.0
"""A match that was not repeated for this long has ended: it is printed each minute while it lasts."""

_GAUGES = {
    "processes_monitored": ("processes", "Processes seen in the last tick"),
    "processes_active": ("active", "Processes that ran in the last interval"),
    "processes_unreadable": ("unreadable", "Processes that cannot be read completely"),
    "max_score": ("max_score", "Highest score of the last tick"),
    "cpu_busy_cores": ("cpu_busy_cores", "CPU use of the machine, in cores"),
    "memory_available_bytes": ("memory_available_bytes", "Memory available without swapping"),
    "tick_late_seconds": ("late_s", "Lateness of the last tick"),
    "self_cpu_percent": ("self_cpu_percent", "CPU use of rogue-hunter itself, 100 = one core"),
    "self_memory_bytes": ("self_memory_bytes", "Memory of rogue-hunter itself"),
}
"""Metric -> field of the closing row, help. A field that is unknown has no sample."""

PRESSURES = tuple(field.name for field in TICK if field.name.startswith("pressure_"))
"""Fields of the closing row; a stream of a newer version may have more, of another form."""

_COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ticks": ("Ticks taken", ()),
    "errors": ("Readings or lines with errors", ()),
    "pauses": ("Pauses of the machine", ("cause",)),
    "pause_seconds": ("Length of all pauses", ("cause",)),
    "events": ("Events that reached the band or a higher one", ("band",)),
    "band_seconds": ("Time in which the highest score was in the band", ("band",)),
    "pressure_seconds": ("Time in which tasks waited (PSI)", ("resource", "kind")),
    "tick_late_seconds": ("Lateness of all ticks", ()),
    "oom_kills": ("Processes that the kernel killed for want of memory", ()),
    "matches": ("Matches that started", ("rule", "priority")),
    "actions": ("Actions and refusals of the reaper", ("rule", "outcome")),
    "processes_killed": ("Processes terminated by the reaper", ()),
    "cpu_recovered_percent": ("CPU use of terminated processes, 100 = one core", ()),
}
"""Counter -> help, labels."""


class Page(Protocol):
    """Called for the page at each scrape. May raise."""

    def render(self) -> bytes: ...


class Metrics:
    """Counts what goes by. `clock` is a monotonic one, seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics

        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second gauge for each counter, used by no query
        self._clock = clock
        self._began = clock()
        self._lock = threading.Lock()
        self._rogues: dict[tuple[str, int, int], tuple[str, float]] = {}
        self._levels: Row = {}
        registry = self.registry = CollectorRegistry(auto_describe=False)
        self._counters = {name: Counter(f"rogue_hunter_{name}", words, labels, registry=registry)
                          for name, (words, labels) in _COUNTERS.items()}
        self._highest: dict[str, int] = {}
        # A counter that appears with its first value has no increase in Prometheus: each begins at 0.
        for cause in CAUSES:
            self._counters["pauses"].labels(cause)
            self._counters["pause_seconds"].labels(cause)
        for band in BANDS[1:]:
            self._counters["events"].labels(band)
            self._counters["band_seconds"].labels(band)
        Gauge("rogue_hunter_uptime_seconds", "Time since counting began", registry=registry).set_function(
            lambda: self._clock() - self._began)
        self._detected = Gauge("rogue_hunter_rogue_processes_detected", "Processes that match a rule now", ["priority"],
                               registry=registry)
        self._bands = Gauge("rogue_hunter_processes_in_band", "Processes by band of their score", ["band"],
                            registry=registry)
        registry.register(_Levels(self))

    def observe(self, tick: Tick) -> None:
        """Count one tick and the records that came with it."""
        with self._lock:
            for record in tick.records:
                self._record(record)
            if tick.row is not None:
                self._counters["ticks"].inc()
                self._counters["errors"].inc(max(0, tick.row.get("errors", 0)))
                self._levels = tick.row
                self._count_time(tick)
                self._count_bands(tick)
                if not tick.partial:
                    gone = [key for key in self._rogues if key[1:] not in tick.processes]
                    for key in gone:
                        del self._rogues[key]

    def __call__(self, tick: Tick) -> Tick:
        """The same as a stage that changes nothing."""
        self.observe(tick)
        return tick

    def restore(self, levels: Row | None, ticks: int) -> None:
        """Set the last closing row and the number of ticks, from another source."""
        with self._lock:
            self._levels = levels or {}
            self._counters["ticks"].inc(max(0, ticks))

    def _count_time(self, tick: Tick) -> None:
        """Add what a scrape between two ticks would miss: seconds of pressure, of lateness, in each band."""
        row = tick.row or {}
        interval = row.get("interval_s", 0.0)
        self._counters["tick_late_seconds"].inc(max(0.0, row.get("late_s", 0.0)))
        self._counters["oom_kills"].inc(max(0, row.get("oom_kills", 0)))
        for name in PRESSURES:
            if name in row:
                self.add_pressure(name, row[name] / 1000 * interval)
        top = max(tick.scored, key=lambda key: tick.processes.get(key, {}).get("score", 0), default=None)
        band = tick.processes.get(top, {}).get("band") if top is not None else None
        if band in BANDS[1:]:
            self._counters["band_seconds"].labels(band).inc(max(0.0, interval))

    def add_pressure(self, field: str, seconds: float) -> None:
        """Add seconds to the counter of a field `pressure_RESOURCE_KIND_ms_per_s`."""
        _, resource, kind = field.split("_")[:3]
        self._counters["pressure_seconds"].labels(resource, kind).inc(max(0.0, seconds))

    def _count_bands(self, tick: Tick) -> None:
        counts = dict.fromkeys(BANDS[1:], 0)
        for key in tick.scored:
            band = tick.processes.get(key, {}).get("band")
            if band in counts:
                counts[band] += 1
        for band, count in counts.items():
            self._bands.labels(band).set(count)

    def _record(self, record: Record) -> None:
        """Count a record. An invalid record counts as an error: any program can write into a pipe."""
        try:
            self._count(record)
        except (KeyError, TypeError, ValueError):
            self._counters["errors"].inc()

    def _count(self, record: Record) -> None:
        kind = record.get("type")
        if kind == "match":
            key, priority = _identity(record), _word(record["priority"])
            if key not in self._rogues:
                self._counters["matches"].labels(_word(record["rule"]), priority).inc()
            self._rogues[key] = priority, self._clock()
        elif kind == "action":
            key, outcome = _identity(record), _word(record["outcome"])
            recovered = float(record.get("cpu_recovered_percent", 0.0))
            self._counters["actions"].labels(_word(record["rule"]), outcome).inc()
            self._counters["cpu_recovered_percent"].inc(max(0.0, recovered))
            if outcome in ("terminated", "killed"):
                self._counters["processes_killed"].inc()
                self._rogues.pop(key, None)
        elif kind == "pause":
            cause, seconds = _word(record.get("cause", "unknown")), float(record.get("duration_s", 0.0))
            self._counters["pauses"].labels(cause).inc()
            self._counters["pause_seconds"].labels(cause).inc(max(0.0, seconds))
        elif kind == "event":
            self._count_event(_word(record["event"]), _word(record["kind"]), _word(record["peak_band"]))
        elif kind == "error":
            self._counters["errors"].inc()

    def _count_event(self, event: str, kind: str, peak_band: str) -> None:
        """Count an event once in each band up to its peak."""
        before, now = self._highest.get(event, 0), BANDS.index(peak_band)
        for band in BANDS[before + 1:now + 1]:
            self._counters["events"].labels(band).inc()
        if kind == "exit":
            self._highest.pop(event, None)
        else:
            self._highest[event] = max(before, now)
            if len(self._highest) > EVENTS_MAX:
                del self._highest[next(iter(self._highest))]

    def levels(self) -> Row:
        """The closing row of the last tick."""
        return self._levels

    def render(self) -> bytes:
        """The page, in Prometheus' text format."""
        from prometheus_client import generate_latest

        with self._lock:
            now = self._clock()
            self._rogues = {k: v for k, v in self._rogues.items() if now - v[1] < REPEAT_S}
            for priority in PRIORITIES:
                self._detected.labels(priority).set(sum(p == priority for p, _ in self._rogues.values()))
            return generate_latest(self.registry)


def _identity(record: Record) -> tuple[str, int, int]:
    """The process of a record. Raises KeyError, TypeError, ValueError."""
    return _word(record["boot_id"]), int(record["pid"]), int(record["start_ticks"])


def _word(value: object) -> str:
    """The value of a label. Raises TypeError."""
    if not isinstance(value, str):
        raise TypeError
    return value


class _Levels:
    """Gauges of the last tick. They are created at each scrape, so that an unknown value has no sample instead of 0."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Any]:
        """The metric families."""
        from prometheus_client.core import GaugeMetricFamily

        row = self._metrics.levels()
        for name, (field, words) in _GAUGES.items():
            if field in row:
                yield GaugeMetricFamily(f"rogue_hunter_{name}", words, value=row[field])
        pressures = {name: row[name] for name in PRESSURES if name in row}
        if pressures:
            family = GaugeMetricFamily("rogue_hunter_pressure_ratio", "Part of the time in which tasks waited",
                                       labels=["resource", "kind"])
            for field, value in sorted(pressures.items()):
                _, resource, kind = field.split("_")[:3]
                family.add_metric([resource, kind], value / 1000)
            yield family


def write_textfile(page: Page, path: Path) -> None:
    """Write the page atomically to a file for the textfile collector of node_exporter. Raises OSError."""
    files.replace(path, page.render(), mode=0o644)  # the collector runs as another user


class Server:
    """Serves the page on 127.0.0.1 only. `port` 0 chooses a free one; raises OSError if the port is in use."""

    def __init__(self, page: Page, port: int = 9090, path: str = "/metrics") -> None:
        asked = page

        class Handler(_Handler):
            page, where = asked, path

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, name="metrics", daemon=True)

    @property
    def port(self) -> int:
        """The port of the server."""
        return int(self._http.server_address[1])

    def start(self) -> None:
        """Start to answer requests, in a background thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the server."""
        if self._thread.is_alive():
            self._http.shutdown()
            self._thread.join(REQUEST_S)
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    """Answers GET of one path. A request for another host name is DNS rebinding by a web page, and refused."""

    page: Page
    where = "/metrics"
    timeout = REQUEST_S
    server_version = "rogue-hunter"
    sys_version = ""

    def handle(self) -> None:
        """Answer the requests of a connection. A client that goes away before its answer is no error."""
        with suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        """Answer a GET."""
        host = self.headers.get("Host", "").rsplit(":", 1)[0]
        if host not in ("127.0.0.1", "localhost", "[::1]"):
            self.send_error(403, "only for this machine")
        elif self.path.split("?", 1)[0] != self.where:
            self.send_error(404)
        else:
            try:
                body = self.page.render()
            except Exception as error:  # for example a missing database; the next scrape may find it
                self.send_error(503, type(error).__name__)
                return
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged."""
