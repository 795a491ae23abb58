"""The text of a capture, or of a report in a file, made from its records; stacks as collapsed lines and speedscope."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rogue_hunter import __version__
from rogue_hunter.capture.blame import blame, suspects
from rogue_hunter.capture.logs import KERNEL_FACTS
from rogue_hunter.capture.reports.collect import timeline
from rogue_hunter.capture.wait_graph import Blame, Root
from rogue_hunter.report.render import Style, pairs, table
from rogue_hunter.report.sentences import measure, moment, percent
from rogue_hunter.stream.tick import Record
from rogue_hunter.text.format import clip, duration, size, visible


def blame_lines(answer: Blame, limit: int = 10, suspects: Sequence[Record] = ()) -> Iterator[str]:
    """The result for people: one to three lines for each of the first `limit` roots, one for each suspect; control
    characters are escaped."""
    if not answer.roots:
        yield "no blocker found"
    yield from (visible(_suspect_line(each)) for each in suspects)
    for rank, root in enumerate(answer.roots[:limit], 1):
        yield from map(visible, _root_lines(rank, root))
    if answer.roots:
        deepest = max(answer.roots, key=lambda root: root.hops)
        if deepest.hops > answer.roots[0].hops:
            yield visible(f"the longest chain of all, {deepest.hops} hops, ends at {_process(deepest)}")
    if len(answer.roots) > limit:
        yield f"{len(answer.roots) - limit} more"
    if answer.unnamed:
        yield f"{count(answer.unnamed, 'wait')} without a known process"
    if answer.observers:
        yield f"left out: {count(answer.observers, 'wait')} of programs that make such reports"
    if answer.roots and answer.steps:
        yield f"samples are added up over threads; the report has {answer.steps} steps"


_STATES = {"running": "running in", "runnable": "waiting for a CPU in", "uninterruptible": "stuck in"}


def _suspect_line(each: Record) -> str:
    """`Editor [501] did not respond for 3.0s: its main thread was waiting in f (lib) for 990 of 1000 samples; ...`"""
    seen = f" for {each['samples']} of {each['of_samples']} samples" if "samples" in each else ""
    of = f" on a machine of {size(each['memory_total_bytes'])}" if each.get("memory_total_bytes") else ""
    words = "; ".join(filter(None, (
        f"its main thread was {_STATES.get(each.get('state', ''), 'waiting in')} {each['leaf']}{seen}"
        if "leaf" in each else "",
        f"CPU time {each['cpu_seconds']:.3g} s of {each['sampled_s']:.3g} s sampled"
        if each.get("cpu_seconds") and each.get("sampled_s") else "",
        f"memory {size(each['memory_bytes'])}{of}" if each.get("memory_bytes") else "")))
    lasted = f" for {duration(each['unresponsive_s'])}" if "unresponsive_s" in each else ""
    why = {"unresponsive": f"did not respond{lasted}", "target": "is the subject of the report",
           "cpu": "used most CPU time", "memory": "holds most memory"}[each["reason"]]
    return f"{each['command']} [{each.get('pid', '?')}] {why}" + (f": {words}" if words else "")


def _root_lines(rank: int, root: Root) -> Iterator[str]:
    """A root: what it blocks, the longest chain that ends at it, and what it waits for itself."""
    if root.cycle:
        word = "deadlock" if root.certain else "possible deadlock"
        yield f"{rank}. {word}: {' -> '.join([*root.cycle, root.cycle[0]])}"
        yield f"   {count(root.waiters, 'thread')} in it or blocked by it"
    else:
        threads = f" thread {', '.join(root.threads[:3])}" if root.threads else ""
        more = f" and {len(root.threads) - 3} more" if len(root.threads) > 3 else ""
        own = f", {root.samples:.6g} with its own" if root.samples > root.foreign_samples else ""
        yield (f"{rank}. {_process(root)}{threads}{more} blocks {count(root.waiters, 'thread')} of "
               f"{count(root.processes, 'other process')}: {root.foreign_samples:.6g} samples{own}")
    if root.chain and not (root.cycle and root.hops < len(root.cycle)):
        guess = ", guessed in part" if root.guessed else ""
        yield f"   longest chain, {count(root.hops, 'hop')}{guess}: {' -> '.join(root.chain)}"
    if root.waits_for:
        yield f"   itself waiting in {root.waits_for}"


def _process(root: Root) -> str:
    return f"{root.command} [{root.node[0] if root.node[0] >= 0 else '?'}]"


def count(number: int, thing: str) -> str:
    """`1 thread`, `2 threads`, `2 other processes`."""
    return f"{number} {thing}" + ("" if number == 1 else "es" if thing.endswith("s") else "s")


GRAVE = frozenset({"error", "fault", "emerg", "alert", "crit", "err", "warning"})
"""Levels of log entries that are shown first."""

_CALM = ("sleeping", "idle")
_PROCESSES, _LOG, _FRAMES = 12, 5, 8
"""How many of each a summary shows."""


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], look: Style, *, right: str,
           drop: str = "", optional: Sequence[str] = ()) -> str:
    """A table without colours, in which every cell is escaped: records may come from any file. Columns of `optional`
    are left out if they are empty."""
    keep = [i for i, head in enumerate(heads) if head not in optional or any(row[i] for row in rows)]
    heads = [heads[i] for i in keep]
    return table(heads, [[visible(row[i]) for i in keep] for row in rows], look, right=right,
                 drop=" ".join(head for head in drop.split() if head in heads))


def _pairs(facts: Sequence[tuple[str, str]], look: Style) -> str:
    return pairs([(name, visible(words)) for name, words in facts], look)


def of(records: Iterable[Record], kind: str) -> list[Record]:
    """The records of one type."""
    return [each for each in records if each["type"] == kind]


def status_words(own: Record) -> str:
    """`ok`, or why there is no more: `skipped 3: debounce`; harmless."""
    if own["status"] != "skipped":
        return visible(own["status"])
    return visible(f"skipped {own.get('skipped', 1)}: {own.get('reason', '')}")


def capture_text(own: Record, children: Sequence[Record], look: Style) -> str:
    """The capture at a glance: who asked, how it went, who holds up whom, who did what, what was logged."""
    lines = [f"Capture {own['id']}, {visible(own['capture'])}" if "id" in own else f"Capture {visible(own['capture'])}",
             _asked(own, look)]
    if own["status"] == "skipped":
        return "\n".join([*lines, *_left_out(own)]) + "\n"
    facts = [("parts", ", ".join(f"{k.removesuffix('_status').replace('_', ' ')} {v}" for k, v in own.items()
                                 if k.endswith("_status")))]
    facts += [("pressure", words)] if (words := _pressure(own)) else []
    facts += [("problem", str(p)) for p in own.get("problems", ())]
    facts += [("raw file", f"{own['raw_path']} ({size(own.get('raw_bytes'))})")] if "raw_path" in own else []
    lines += [_pairs([f for f in facts if f[1]], look).rstrip("\n")]
    for context in of(children, "buffer_context"):
        lines += ["", _before(context, look)]
    lines += ["", blame_text(children).rstrip("\n")]
    stacks = of(children, "stack")
    if stacks:
        lines += ["", "On the CPUs while it was made, and in the second before:" if "capture" in stacks[0] and
                  "pause" not in stacks[0] else "On the CPUs during the pause:", top_text(stacks, look).rstrip("\n")]
    processes = of(children, "spindump_process")
    if processes:
        lines += ["", _processes(processes, of(children, "spindump_thread"), look).rstrip("\n")]
    lines += _log_part(of(children, "log_entry"), look)
    return "\n".join(lines) + "\n"


def _asked(own: Record, look: Style) -> str:
    who = f"{clip(str(own.get('command') or '?'), 40)} (pid {own['pid']})" if "pid" in own else ""
    about = {"event": "for an event", "pause": "for a pause"}.get(own["trigger"], "asked for")
    about += f"{', first' if own['trigger'] == 'pause' else ' of'} {who}" if who else ""
    took = f", took {duration(own['duration_s'])}" if "duration_s" in own else ""
    return f"{status_words(own)}, {moment(own['ts'], look.now)}, {about}{took}"


def _left_out(own: Record) -> list[str]:
    names = [f"{clip(str(t.get('command') or '?'), 40)} (pid {t.get('pid')})" for t in own.get("targets", ())
             if isinstance(t, dict)]
    return [f"of {', '.join(names)}"] if names else []


def _pressure(own: Record) -> str:
    parts = []
    for name in ("cpu", "memory", "io"):
        known = [f"{kind} {own[key]:g} %" for kind in ("some", "full")
                 if own.get(key := f"pressure_{name}_{kind}_percent") is not None]
        parts += [f"{name} {', '.join(known)}"] if known else []
    return "; ".join(parts)


def _before(context: Record, look: Style) -> str:
    ticks, lasted = context["sample_count"], context["ts"] - context.get("first_ts", context["ts"])
    span = f"the {duration(lasted)} before it, {ticks} ticks" if ticks > 1 else "the tick that asked for it"
    rows = [[str(c.get("score", "")), str(c.get("band", "")), str(c.get("dominant_resource", "")),
             measure(c.get("cpu_percent"), "%"), size(c.get("memory_bytes")), str(c.get("pid", "")),
             str(c.get("command", ""))] for c in context.get("culprits", ()) if isinstance(c, dict)]
    head = f"In {span}:"
    made = _table(["PEAK", "BAND", "CAUSE", "CPU", "MEMORY", "PID", "COMMAND"], rows, look, right="PEAK CPU MEMORY PID",
                  drop="BAND MEMORY CAUSE PID")
    return f"{head}\n{made}".rstrip("\n") if rows else head + " no process stood out"


def blame_text(records: Iterable[Record]) -> str:
    """Which process blocks which, the one that blocks most first, and the processes that the report points at."""
    held = list(records)
    return "\n".join(blame_lines(blame(held), suspects=list(suspects(held)))) + "\n"


def _processes(processes: Sequence[Record], threads: Sequence[Record], look: Style) -> str:
    states: dict[int, dict[str, int]] = {}
    for thread in threads:
        counts = states.setdefault(thread["process"], {})
        counts[thread.get("state", "?")] = counts.get(thread.get("state", "?"), 0) + 1
    # Processes that ran or blocked another one come first, then by the CPU time used.
    order = sorted(processes, key=lambda p: (p.get("role") != "culprit", not _busy(states.get(p["process"], {})),
                                             -(p.get("cpu_seconds") or 0.0)))
    rows = [[str(p.get("pid", "")), str(p.get("role", "")), _state_words(states.get(p["process"], {})),
             str(p.get("threads", p.get("threads_listed", ""))), measure(p.get("cpu_seconds"), "s"),
             size(p.get("memory_bytes")), str(p.get("open_files", "")),
             str(p["command"]) + (" (not responding)" if p.get("unresponsive") is True else "")]
            for p in order[:_PROCESSES]]
    heads = ["PID", "ROLE", "THREADS SEEN", "THREADS", "CPU-TIME", "MEMORY", "FILES", "COMMAND"]
    made = _table(heads, rows, look, right="PID THREADS CPU-TIME MEMORY FILES", drop="FILES MEMORY THREADS CPU-TIME",
                  optional=("ROLE", "FILES"))
    return made + (f"... and {len(order) - _PROCESSES} more processes\n" if len(order) > _PROCESSES else "")


def _busy(states: dict[str, int]) -> bool:
    return any(state not in _CALM for state in states)


def _state_words(states: dict[str, int]) -> str:
    order = sorted(states.items(), key=lambda item: (item[0] in _CALM, -item[1]))
    return ", ".join(f"{n} {state}" for state, n in order)


def threads_text(threads: Sequence[Record], look: Style, limit: int = 0) -> str:
    """A table of threads: what each did, in which call and where, and by whom it was blocked."""
    if not threads:
        return "No threads.\n"
    order = sorted(threads, key=lambda t: (t.get("state") in _CALM, t["process"])) if limit else list(threads)
    shown = order[:limit] if limit else order
    rows = [[str(t.get("pid", "")), str(t["thread_id"]), str(t.get("state", "")), _samples(t),
             clip(str(t.get("leaf") or t.get("wchan") or ""), 32), clip(str(t.get("syscall", "")), 28),
             clip(str(t.get("thread_name") or t.get("queue") or t.get("command") or ""), 24),
             str(t.get("blocked_by", ""))] for t in shown]
    heads = ["PID", "THREAD", "STATE", "SAMPLES", "IN", "SYSCALL", "NAME", "BLOCKED BY"]
    made = _table(heads, rows, look, right="PID THREAD SAMPLES", drop="SAMPLES THREAD",
                  optional=("SYSCALL", "BLOCKED BY"))
    return made + (f"... and {len(order) - len(shown)} more: -n 0 shows all\n" if len(order) > len(shown) else "")


def _samples(thread: Record) -> str:
    """`3 of 3` in its state, where it is known how many were."""
    count = thread.get(f"{thread.get('state')}_samples")
    return f"{count}/{thread['samples']}" if count is not None and "samples" in thread else str(
        thread.get("samples", ""))


def logs_text(entries: Sequence[Record], look: Style, limit: int = 0) -> str:
    """A table of log entries in the order of time; when not all fit, the last ones."""
    if not entries:
        return "No log entries.\n"
    shown = entries[-limit:] if limit else entries
    rows = [[moment(e.get("ts"), look.now), str(e.get("level", "")), str(e["source"]), str(e.get("pid", "")),
             clip(str(e.get("command") or e.get("sender") or ""), 24), str(e.get("message", ""))] for e in shown]
    made = _table(["AT", "LEVEL", "LOG", "PID", "BY", "MESSAGE"], rows, look, right="PID", drop="PID BY LOG")
    return (f"... {len(entries) - len(shown)} earlier: -n 0 shows all\n" if len(entries) > len(shown) else "") + made


def _log_part(entries: Sequence[Record], look: Style) -> list[str]:
    if not entries:
        return []
    grave = [e for e in entries if e.get("level") in GRAVE or e.get("kind") in KERNEL_FACTS]
    head = f"{len(entries)} log entries, {len(grave)} of them warnings or worse" + (
        f"; the last {min(_LOG, len(grave))}:" if grave else "")
    return ["", head] + ([logs_text(grave[-_LOG:], look).rstrip("\n")] if grave else [])


def report_text(records: Sequence[Record], look: Style) -> str:
    """A report that was read from a file, or a log, at a glance."""
    parts = []
    told = list(timeline(each for each in records if each["type"] != "spindump_report"))
    if told:
        parts.append(timeline_text(told, look))
    for each in (*of(records, "resource_report"), *of(records, "crash_report")):
        if each.get("frames"):
            title = "Heaviest stack" if each["type"] == "resource_report" else "Stack of the thread that crashed"
            frames = [f"  {clip(str(frame), look.width - 2)}" for frame in each["frames"][:_FRAMES]]
            parts.append("\n".join([f"{title}, innermost frame first:", *frames]) + "\n")
    sampled, held = of(records, "resource_process"), of(records, "jetsam_process")
    if sampled:
        rows = [[str(p.get("pid", "")), str(p.get("samples", "")), measure(p.get("samples_percent"), "%"),
                 measure(p.get("cpu_seconds"), "s"), size(p.get("memory_bytes")), clip(str(p.get("command", "")), 24),
                 str(p.get("leaf", ""))] for p in sampled[:_PROCESSES]]
        parts.append(_table(["PID", "SAMPLES", "SHARE", "CPU-TIME", "MEMORY", "COMMAND", "MOSTLY IN"], rows, look,
                            right="PID SAMPLES SHARE CPU-TIME MEMORY", drop="CPU-TIME MEMORY SAMPLES"))
    if held:
        order = sorted(held, key=lambda p: (not p.get("reason"), -(p.get("memory_bytes") or 0)))
        rows = [[str(p.get("pid", "")), size(p.get("memory_bytes")), size(p.get("memory_peak_bytes")),
                 measure(p.get("cpu_seconds"), "s"), ", ".join(map(str, p.get("states", ()))), str(p.get("reason", "")),
                 str(p.get("command", ""))] for p in order[:_PROCESSES]]
        parts.append(_table(["PID", "MEMORY", "PEAK", "CPU-TIME", "STATES", "KILLED", "COMMAND"], rows, look,
                            right="PID MEMORY PEAK CPU-TIME", drop="CPU-TIME PEAK STATES"))
    tasks = of(records, "task")
    if tasks:
        rows = [[str(p.get("pid", "")), measure(p.get("cpu_percent"), "%"), measure(p.get("wakeups_per_s"), ""),
                 measure(p.get("cpu_seconds"), "s"), size(p.get("memory_bytes")), str(p["command"])]
                for p in sorted(tasks, key=_load)[:_PROCESSES]]
        parts.append(_table(["PID", "CPU", "WAKEUPS/S", "CPU-TIME", "MEMORY", "COMMAND"], rows, look,
                            right="PID CPU WAKEUPS/S CPU-TIME MEMORY", drop="CPU-TIME MEMORY WAKEUPS/S",
                            optional=("CPU", "WAKEUPS/S", "CPU-TIME", "MEMORY")))
    for report in of(records, "spindump_report"):
        parts.append(_report(report, look))
    processes = of(records, "spindump_process")
    if processes:
        parts.append(_processes(processes, of(records, "spindump_thread"), look))
    if of(records, "spindump_blocker") or list(suspects(records)):
        parts.append(blame_text(records))
    entries = of(records, "log_entry")
    if entries:
        parts.append("\n".join(_log_part(entries, look)[1:]) + "\n")
    return "\n".join(parts)


def _load(task: Record) -> tuple[float, float]:
    """The order of tasks: those that use most CPU first, by what their program prints of it."""
    return -(task.get("cpu_percent") or 0.0), -(task.get("cpu_seconds") or 0.0)


def _report(report: Record, look: Style) -> str:
    who = f"{clip(str(report.get('command') or '?'), 40)} (pid {report.get('pid', '?')})"
    made = [("report", f"{report.get('file', '')} {report.get('format', '')}, version "
                       f"{report.get('report_version', '?')}".strip()),
            ("about", ", ".join(str(w) for w in (report.get("event"), who if "command" in report else "",
                                                 report.get("reason")) if w)),
            ("at", moment(report.get("ts"), look.now)), ("machine", ", ".join(str(w) for w in (
                report.get("os_version"), report.get("hardware"), report.get("architecture")) if w)),
            ("sampled", ", ".join(w for w in (
                duration(report.get("duration_s")), f"{report['steps']} steps" if "steps" in report else "",
                f"CPU time {duration(report['cpu_seconds'])}" if "cpu_seconds" in report else "") if w)),
            ("holds", ", ".join(count(report[k], w) for k, w in (
                ("processes", "process"), ("threads", "thread"), ("blockers", "wait"))) + (
                f", {report['edges']} of them naming the process waited for" if report["blockers"] else "")),
            ("not whole" if report.get("complete") is False else "note",
             "; ".join(map(str, report.get("problems", ()))))]
    return _pairs([(name, words) for name, words in made if words], look)


def timeline_text(lines: Sequence[Record], look: Style) -> str:
    """What several reports tell, as one table in the order of time, the newest first."""
    if not lines:
        return "No report with a time.\n"
    rows = [[moment(t["ts"], look.now), t["what"], str(t.get("pid", "")),
             clip(str(t.get("file", "")).rsplit("/", 1)[-1], 32), str(t.get("command", "")), str(t.get("detail", ""))]
            for t in lines]
    return _table(["TIME", "WHAT", "PID", "FILE", "COMMAND", "DETAIL"], rows, look, right="PID", drop="FILE PID")


FRAMES = 8
"""Frames of a stack that a line of text shows, the innermost ones."""
SPEEDSCOPE = "https://www.speedscope.app/file-format-schema.json"


def collapsed_text(stacks: Iterable[Record]) -> str:
    """One line a stack, `frame;frame;frame samples`, the outermost first: the input of flame graph programs."""
    counts: Counter[str] = Counter()
    for each in stacks:
        counts[visible(each["stack"])] += each["samples"]
    return "".join(f"{stack} {samples}\n" for stack, samples in counts.most_common())


def speedscope(stacks: Sequence[Record], name: str) -> dict[str, Any]:
    """A speedscope file: a sampled profile of everything, and one of each CPU. Weights are samples."""
    frames: dict[str, int] = {}
    profiles: list[dict[str, Any]] = []
    cpus = sorted({each["cpu"] for each in stacks if "cpu" in each})
    for cpu in [None, *(cpus if len(cpus) > 1 else ())]:
        chosen = [each for each in stacks if cpu is None or each.get("cpu") == cpu]
        weights = [each["samples"] for each in chosen]
        samples = [[frames.setdefault(frame, len(frames)) for frame in visible(each["stack"]).split(";")]
                   for each in chosen]
        profiles.append({"type": "sampled", "name": name if cpu is None else f"{name}, CPU {cpu}", "unit": "none",
                         "startValue": 0, "endValue": sum(weights), "samples": samples, "weights": weights})
    return {"$schema": SPEEDSCOPE, "shared": {"frames": [{"name": frame} for frame in frames]}, "profiles": profiles,
            "name": name, "activeProfileIndex": 0, "exporter": f"rogue-hunter {__version__}"}


def top_text(stacks: Sequence[Record], look: Style, limit: int = 5) -> str:
    """A table of the most frequent stacks, their innermost frames first."""
    counts: Counter[tuple[int | None, str]] = Counter()
    for each in stacks:
        counts[each.get("pid"), visible(each["stack"])] += each["samples"]
    total = counts.total()
    rows = []
    # What was not kept apart comes last, however much it is.
    for (pid, stack), samples in sorted(counts.items(), key=lambda one: (one[0][0] is None, -one[1]))[:limit]:
        root, *frames = stack.split(";")
        inner = frames[::-1]
        words = " < ".join(inner[:FRAMES]) + (" < ..." if len(inner) > FRAMES else "")
        rows.append([percent(samples / total), "" if pid is None else str(pid), root, words or root])
    return table(["SAMPLES", "PID", "PROCESS", "STACK, INNERMOST FIRST"], rows, look, right="SAMPLES PID", drop="PID")
