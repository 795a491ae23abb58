"""The view status: whether rh-pipe runs, how fresh and how large its database is."""

from __future__ import annotations

import platform
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rogue_hunter import __version__, paths
from rogue_hunter.report import history, queries
from rogue_hunter.report.queries import Period, Source
from rogue_hunter.report.record_text import culprit_name
from rogue_hunter.report.render import Answer, Style, pairs
from rogue_hunter.report.sentences import ago, amount, cause, measure, moment, name, percent
from rogue_hunter.report.views.view import Asked
from rogue_hunter.schema import RECORDS
from rogue_hunter.store.prune import files_size
from rogue_hunter.stream.tick import Record, record
from rogue_hunter.text.errors import FOUND, OK
from rogue_hunter.text.format import clip, duration, path_text, size, visible

PAUSED_S = 60.0
"""How long a pause is shown in the one line."""
ONELINE = 60


def status(source: Source, asked: Asked) -> Answer:
    """The answer, of one record report_status. Works without a database too: nothing runs, then."""
    state, last, watch = source.state, source.last_tick, source.watch
    running = watch in ("running", "stale")
    pid = source.holder.pid
    started = state.get("started_at")
    seen = source.live.get("ts", last.get("ts"))
    degraded = source.silent or (source.live or state).get("degraded")
    if watch == "stale" and seen is not None:
        degraded = degraded or f"nothing was written for {duration(source.now - seen)}"
    midnight = datetime.fromtimestamp(source.now).replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
    found = record(
        "report_status", watch=watch, last_tick=seen, processes=last.get("processes"),
        last_tick_age_s=None if seen is None else round(max(0.0, source.now - seen), 3), running=running, pid=pid,
        started_at=started, stopped_at=None if running else state.get("stopped_at"),
        uptime_s=round(max(0.0, source.now - started), 3) if running and started is not None else None,
        hz=state.get("hz"), model=state.get("model"), ticks=state.get("ticks"),
        self_cpu_percent=last.get("self_cpu_percent"), self_memory_bytes=last.get("self_memory_bytes"),
        max_score=(source.live.get("history") or [last])[-1].get("max_score") if running else None,
        rogues=state.get("rogues") if running else None, unwaited=state.get("unwaited") if running else None,
        **(queries.totals(source.connection, midnight) if source.connection else {}),
        database=path_text(source.path), database_bytes=files_size(source.path) or None,
        degraded=degraded, dropped=(source.live or state).get("dropped"),
        answers=bool(source.live) if running else None, version=__version__, writer_version=state.get("version"),
        schema_version=_schema(source), sqlite_version=sqlite3.sqlite_version,
        python_version=platform.python_version(), config_file=_config_file(), **_recorder(state if running else {}))
    recent = history.pauses(source.connection, Period(source.now - PAUSED_S, source.now), 1) \
        if asked.part and source.connection else []
    return Answer([found], lambda look: f"{oneline(found, recent, look.now)}\n" if asked.part else _text(found, look),
                  single=True,
                  columns=[f.name for f in RECORDS["report_status"] if f.name != "rogues"],
                  code=FOUND if asked.exit_code and not _healthy(found) else OK)


def oneline(found: Record, pauses: Sequence[Record], now: float) -> str:
    """The state in at most ONELINE columns, safe for a terminal: the last pause while it is recent, else the highest
    score, with the process if it is one that is tracked."""
    if found["watch"] != "running" or "degraded" in found:
        return {"stopped": "rh: off", "busy": "rh: off", "stale": "rh: no answer"}.get(found["watch"], "rh: degraded")
    if pauses:
        last = pauses[0]
        by = f" by {culprit_name(last['culprits'][0])}" if last["culprits"] else ""
        return clip(f"rh: paused {duration(last['duration_s'])} for {last['cause']}{by}, {ago(last['end'], now)}",
                    ONELINE)
    worst = max(found.get("rogues") or (), key=lambda row: row.get("score") or 0, default=None)
    if worst is None or not worst.get("score"):
        return f"rh: {found.get('max_score', 0)} calm"
    much = amount(worst) or percent(worst.get(f"{cause(worst)}_share"))
    who = f"{worst.get('band', '')} {worst.get('command', '?')} {cause(worst)} {much}"
    return clip(f"rh: {worst['score']} {who}".rstrip(), ONELINE)


def _recorder(state: Mapping[str, Any]) -> dict[str, Any]:
    """The flight recorder of the running rh-pipe."""
    known = state.get("recorder") or {}
    if not known:
        return {}
    why = str(known.get("why") or "")
    more = None
    if why.startswith("no permission"):
        more = "sudo rh-service install --system, or kernel.perf_event_paranoid=0"
        if known.get("mode") == "off":
            more += "; for your own processes 2"
        if known.get("paranoid") is not None:
            why += f" (kernel.perf_event_paranoid is {known['paranoid']})"
    return {"recorder": known.get("mode"), "recorder_why": why or None, "recorder_more": more,
            "recorder_bytes": known.get("bytes") or None}


def _healthy(found: Record) -> bool:
    """True if rh-pipe runs and what it writes is fresh."""
    return found["watch"] == "running" and "degraded" not in found


def _schema(source: Source) -> int | None:
    if source.connection is None:
        return None
    version: int = source.connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _config_file() -> str | None:
    file = paths.config_file()
    return path_text(file) if file.exists() else None


def sentence(found: Record, now: float) -> str:
    """Whether rh-pipe runs, in one sentence."""
    watch, pid = found["watch"], found.get("pid")
    seen = "it has written no tick yet"
    if found.get("answers") and "last_tick" in found:
        seen = f"its last tick was {ago(found['last_tick'], now)}"
    elif "last_tick" in found:    # the state is written every 10 s, so this is no sign of a stall
        seen = f"its history was last written {ago(found['last_tick'], now)}"
    who = f" (pid {pid})" if pid else ""
    return {"running": f"rh-pipe is running{who} since {moment(found.get('started_at'), now)}; {seen}",
            "stale": f"rh-pipe holds the database{who} but does not write: {seen}",
            "busy": f"another command writes to the database{who}; no rh-pipe is running",
            "hub": f"From a hub; {seen}",
            "stopped": "rh-pipe is not running" + (f"; {seen}" if "last_tick" in found else "")}[watch]


def _text(s: Record, look: Style) -> str:
    oldest = f", the oldest of {moment(s['oldest_event'], look.now)}" if "oldest_event" in s else ""
    bytes_ = f", {size(s['database_bytes'])}" if "database_bytes" in s else ": none yet"
    records = {"system": "records all processes", "own": "records processes of this user"}.get(
        s.get("recorder", ""), "off")
    records += f", {size(s['recorder_bytes'])}" if "recorder_bytes" in s else ""
    recorder = [("recorder", records), ("  limited by", visible(s.get("recorder_why", ""))),
                ("  to get more", s.get("recorder_more", ""))]
    writer = str(s.get("writer_version", s["version"]))
    versions = (f"rogue-hunter {s['version']}", f"written by {visible(writer)}" if writer != s["version"] else "",
                f"SQLite {s['sqlite_version']}", f"Python {s['python_version']}")
    facts = [
        ("state", f"{s['watch']}: {sentence(s, look.now)}"),
        ("uptime", duration(s.get("uptime_s"))),
        ("beat", f"{s['hz']:g} Hz, {s.get('ticks', 0)} ticks, model {s.get('model')}" if "hz" in s else ""),
        ("processes", str(s.get("processes", ""))),
        ("rogues now", "; ".join(
            f"{name(r)} {look.band(str(r['score']), r.get('band'))} {cause(r)} {percent(r.get(cause(r) + '_share'))}"
            for r in (s.get("rogues") or ())[:3] if "score" in r)),
        ("zombies", visible(s.get("unwaited", ""))),
        ("own cost", f"{measure(s['self_cpu_percent'], '%')} of a core, {size(s.get('self_memory_bytes'))}"
         if "self_cpu_percent" in s else ""),
        ("events", f"{s['open_events']} open, {s['events_today']} today, {s['events_total']} in all{oldest}"
         if "events_total" in s else ""),
        ("database", visible(s["database"]) + bytes_),
        *(recorder if "recorder" in s else ()),
        ("degraded", visible(s.get("degraded", "no"))),
        ("dropped", f"{s['dropped']} records were lost" if s.get("dropped") else ""),
        ("versions", ", ".join(filter(None, versions))),
        ("configuration", visible(s.get("config_file", "none: the defaults"))),
    ]
    return pairs([fact for fact in facts if fact[1]], look)
