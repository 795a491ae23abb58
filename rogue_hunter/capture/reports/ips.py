"""Diagnostic reports in JSON (.ips): crashes, memory kills (JetsamEvent), panics and stackshots.

The first line is one JSON object about the file, the rest another one. What a report is follows from the keys of the
second, not from the number `bug_type` or the file's name. A panic's stackshot holds every process, its threads, and
what each waits for (`waitInfo`): these become the records of a spindump, so the wait graph reads them.

The text is read as a whole: 4 MB is a large one, and no more than MAX_BYTES are read.

Crashes in the text form of before macOS 12, and ResetCounter reports, are tables of keys.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from rogue_hunter.capture.reports.decode import (
    NAME_LIMIT,
    TEXT_LIMIT,
    Keys,
    int_of,
    keyed,
    loads,
    named,
    named_as,
    one,
    plain,
    text,
    text_of,
    time_of,
    timestamp,
    whole,
)
from rogue_hunter.schema.capture import MAX_FRAMES
from rogue_hunter.stream.tick import Record, record

MAX_BYTES = 1 << 25
MAX_WAITS = 20_000

_WAIT = re.compile(r"thread ([0-9]{1,20}): (.{1,1024})$", re.DOTALL)
_HEX = re.compile(r"\s*\b(?:0x)?[0-9a-f]{7,16}\b", re.IGNORECASE)
_BY_THREAD = re.compile(r"(?:owned by|held by|blocked on|thread) (?:thread )?(?:0x)?([0-9]{1,20})\b")
_BY_PID = re.compile(r"\bpid ([0-9]{1,10})\b")
_OWNER = re.compile(r"\(owner ([0-9]{1,20})\b")
_HOPS = re.compile(r"\bhops: ?([0-9]{1,6})")
_OWNED = re.compile(r",? (?:owned by|held by|with unknown owner|owner|blocked on).*$")
_STATES = (("TH_IDLE", "idle"), ("TH_UNINT", "uninterruptible"), ("TH_SUSP", "suspended"), ("TH_WAIT", "sleeping"),
           ("TH_RUN", "running"))

Json = Mapping[str, Any]


def _number(value: object) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e18
    return float(value) if known else None  # type: ignore[arg-type]


def _dict(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _pages(value: object, page: int) -> int | None:
    count = int_of(value)
    return count * page if count is not None and 0 <= count < 2**63 // max(page, 1) else None


def header_of(line: bytes) -> Json | None:
    """The object of the first line of an .ips file, None for any other line."""
    if not line.startswith(b"{") or b'"bug_type"' not in line:
        return None
    try:
        return _dict(loads(line)) or None
    except (ValueError, RecursionError):
        return None


def common(head: Json) -> dict[str, Any]:
    """Fields of the first line that the text after it may lack."""
    return {name: value for name, value in (
        ("ts", time_of(head.get("timestamp"))), ("os_version", text_of(head.get("os_version"))),
        ("command", text_of(head.get("app_name") or head.get("name"), NAME_LIMIT))) if value is not None}


def parse(head: Json, lines: Iterable[bytes], capture: str | None = None) -> Iterator[Record]:
    """The records of the report after the first line. A report that cannot be read is an `error` record that names
    its kind."""
    data = bytearray()
    for line in lines:
        if data and (following := header_of(line)) is not None:
            yield from _parsed(head, bytes(data), capture)
            head, data = following, bytearray()
            continue
        data += line
        if len(data) > MAX_BYTES:
            yield _error(head, f"more than {MAX_BYTES >> 20} MB of JSON")
            return
    yield from _parsed(head, bytes(data), capture)


def _parsed(head: Json, data: bytes, capture: str | None) -> Iterator[Record]:
    try:
        body = _dict(loads(data))
    except (ValueError, RecursionError) as error:
        yield _error(head, f"cut short or damaged JSON ({str(error)[:100]})")
        return
    if "processByPid" not in body and isinstance(body.get("macOSProcessedStackshotData"), str):
        body = {**_nested(body["macOSProcessedStackshotData"]), **body}
    if "processByPid" in body or "panicString" in body or "macOSPanicString" in body:
        yield from _stackshot(head, body, capture)
    elif isinstance(body.get("processes"), list):
        yield from _jetsam(head, body, capture)
    elif "exception" in body or "termination" in body or ("procName" in body and "threads" in body):
        yield _crash(head, body, capture)
    elif "boot_faults" in body or "bootFaults" in body:
        words = faults(str(body.get("boot_faults") or body.get("bootFaults")))
        yield reset_record(capture, words, ts=common(head).get("ts"))
    else:
        yield _error(head, "none of the kinds that are read: crash, memory kill, panic, stackshot, resource limit")


def _nested(encoded: str) -> Json:
    """The stackshot within a panic of macOS: base64 of JSON, which may be compressed with bzip2; empty if it is neither
    (of a panic within a panic there is only a sentence)."""
    import bz2  # only Macs write such reports

    try:
        data = binascii.a2b_base64(encoded[:MAX_BYTES])
        return _dict(loads(bz2.BZ2Decompressor().decompress(data, MAX_BYTES) if data.startswith(b"BZh") else data))
    except (ValueError, OSError, EOFError, RecursionError):
        return {}


def _error(head: Json, words: str) -> Record:
    kind = text_of(head.get("bug_type"), 16)
    return record("error", stage="forensics",
                  message=f"a diagnostic report (.ips{f', bug_type {kind}' if kind else ''}): {words}")


# -- memory kills ------------------------------------------------------------------------------------------------------

_MEMORY = {"free": "free", "active": "active", "inactive": "inactive", "wired": "wired", "anonymous": "anonymous",
           "file_backed": "fileBacked", "purgeable": "purgeable"}


def _jetsam(head: Json, body: Json, capture: str | None) -> Iterator[Record]:
    memory = _dict(body.get("memoryStatus"))
    page = int_of(memory.get("pageSize")) or int_of(body.get("pageSize")) or 16384
    victims: list[dict[str, Any]] = []
    made = 0
    for each in _list(body["processes"]):
        if not isinstance(each, dict):
            continue
        made += 1
        fields = {"pid": int_of(each.get("pid")), "command": text_of(each.get("name"), NAME_LIMIT),
                  "memory_bytes": _pages(each.get("rpages"), page), "reason": text_of(each.get("reason"), 256)}
        if fields["reason"] and len(victims) < 64:
            victims.append({k: v for k, v in fields.items() if v is not None})
        yield record("jetsam_process", capture=capture, process=made, **fields,
                     memory_peak_bytes=_pages(each.get("lifetimeMax"), page), cpu_seconds=_number(each.get("cpuTime")),
                     states=[s for s in map(text_of, _list(each.get("states"))[:16]) if s] or None,
                     coalition=int_of(each.get("coalition")), uuid=text_of(each.get("uuid"), 64))
    counts = _dict(memory.get("memoryPages"))
    yield record(
        "jetsam_report", capture=capture, ts=time_of(body.get("date")) or common(head).get("ts"),
        reason=victims[0]["reason"] if victims else text_of(body.get("reason"), 256), victims=victims or None,
        largest_process=text_of(body.get("largestProcess"), NAME_LIMIT), page_bytes=page,
        **{f"{name}_bytes": _pages(counts.get(key), page) for name, key in _MEMORY.items()},
        compressor_bytes=_pages(memory.get("compressorSize"), page), os_version=_system(head, body),
        hardware=text_of(body.get("product")), processes=made)


def _system(head: Json, body: Json) -> str | None:
    known = body.get("osVersion")
    if isinstance(known, dict):
        parts = [text_of(known.get("train")), f"({known['build']})"[:64] if text_of(known.get("build")) else None]
        return " ".join(p for p in parts if p) or None
    return text_of(known) or text_of(body.get("build")) or text_of(head.get("os_version"))


# -- crashes -----------------------------------------------------------------------------------------------------------

def _crash(head: Json, body: Json, capture: str | None) -> Record:
    exception, end, bundle = (_dict(body.get(name)) for name in ("exception", "termination", "bundleInfo"))
    at = int_of(body.get("faultingThread"))
    threads = _list(body.get("threads"))
    thread = _dict(threads[at]) if at is not None and 0 <= at < len(threads) else \
        next((each for each in threads if isinstance(each, dict) and each.get("triggered") is True), {})
    images = [text_of(_dict(each).get("name"), 128) for each in _list(body.get("usedImages"))[:10_000]]
    why = [text_of(end.get("namespace"), 64), f"code {end['code']}"[:64] if isinstance(end.get("code"), int) else None,
           text_of(end.get("indicator"), 256), *(text_of(r, 256) for r in _list(end.get("reasons"))[:4]),
           *(text_of(r, 256) for r in _list(end.get("details"))[:4])]
    return record(
        "crash_report", capture=capture, ts=time_of(body.get("captureTime")) or common(head).get("ts"),
        pid=int_of(body.get("pid")),
        command=text_of(body.get("procName") or head.get("app_name") or head.get("name"), NAME_LIMIT),
        path=text_of(body.get("procPath")),
        identifier=text_of(bundle.get("CFBundleIdentifier") or head.get("bundleID")),
        version=text_of(bundle.get("CFBundleShortVersionString") or head.get("app_version")),
        parent_pid=int_of(body.get("parentPid")), parent_command=text_of(body.get("parentProc"), NAME_LIMIT),
        responsible_pid=int_of(body.get("responsiblePid")),
        responsible_command=text_of(body.get("responsibleProc"), NAME_LIMIT),
        uid=int_of(body.get("userID")), start_ts=time_of(body.get("procLaunch")),
        exception=text_of(exception.get("type"), 128), signal=text_of(exception.get("signal"), 64),
        termination=", ".join(w for w in why if w)[:TEXT_LIMIT] or None, thread=at,
        thread_name=text_of(thread.get("name") or thread.get("queue"), NAME_LIMIT),
        frames=[_frame(_dict(f), images) for f in _list(thread.get("frames"))[:MAX_FRAMES]] or None,
        os_version=_system(head, body), hardware=text_of(body.get("modelCode")))


def _frame(frame: Json, images: list[str | None]) -> str:
    at = int_of(frame.get("imageIndex"))
    image = images[at] if at is not None and 0 <= at < len(images) else None
    return f"{text_of(frame.get('symbol'), 120) or '???'} ({image or '???'})"


# -- panics and stackshots ---------------------------------------------------------------------------------------------

def _stackshot(head: Json, body: Json, capture: str | None) -> Iterator[Record]:
    by_pid = _dict(body.get("processByPid"))
    owners: dict[str, int] = {}
    names: dict[int, str] = {}
    for key, each in by_pid.items():
        pid = int_of(_dict(each).get("pid"))
        pid = int_of(key) if pid is None else pid
        if pid is not None:
            names[pid] = text_of(_dict(each).get("procname"), NAME_LIMIT) or "?"
            owners.update((thread, pid) for thread in _dict(_dict(each).get("threadById")))
    threads = waits = edges = 0
    for number, (key, value) in enumerate(by_pid.items(), 1):
        each = _dict(value)
        pid = int_of(each.get("pid"))
        pid = int_of(key) if pid is None else pid
        name = names.get(pid, "?") if pid is not None else "?"
        yield _task(number, pid, name, each, capture)
        own = dict(islice(_waits(each), MAX_WAITS))
        for thread_id, thread in _dict(each.get("threadById")).items():
            threads += 1
            yield _thread(number, pid, name, thread_id, _dict(thread), own.get(thread_id), capture)
        for thread_id, words in own.items():
            waits += 1
            made = _blocker(number, pid, name, thread_id, words, owners, names, capture)
            edges += "on_pid" in made
            yield made
    panic = text_of(body.get("panicString") or body.get("macOSPanicString"), 8192)
    first = panic.strip().splitlines()[0][:TEXT_LIMIT] if panic and panic.strip() else None
    yield record(
        "spindump_report", capture=capture, format="stackshot", data_source="stackshot",
        event="panic" if panic else "stackshot", ts=time_of(body.get("date")) or common(head).get("ts"),
        reason=first or text_of(body.get("reason")), os_version=_system(head, body),
        hardware=text_of(body.get("product")), steps=1 if by_pid else None, processes=len(by_pid), threads=threads,
        threads_aggregated=0, blockers=waits, edges=edges, lines=1, complete=True if by_pid else None,
        problems=None if by_pid else ["no list of processes: the stackshot is in binary form only"])


def _task(number: int, pid: int | None, name: str, each: Json, capture: str | None) -> Record:
    cpu = [n for n in (_number(each.get("userTimeTask")), _number(each.get("systemTimeTask"))) if n is not None]
    flags = _list(each.get("flags"))
    return record(
        "spindump_process", capture=capture, process=number, pid=pid, command=name,
        memory_bytes=int_of(each.get("residentMemoryBytes")), cpu_seconds=round(sum(cpu), 6) if cpu else None,
        pageins_total=int_of(each.get("pageIns")), faults_total=int_of(each.get("pageFaults")),
        threads_listed=len(_dict(each.get("threadById"))), suspended=True if "suspended" in flags else None,
        defunct=True if "zombie" in flags else None, sudden_termination="Dirty" if "dirty" in flags else None)


def _thread(number: int, pid: int | None, name: str, thread_id: str, thread: Json, wait: str | None,
            capture: str | None) -> Record:
    states = [s for s in _list(thread.get("state")) if isinstance(s, str)]
    cpu = [n for n in (_number(thread.get("userTime")), _number(thread.get("systemTime"))) if n is not None]
    event = _list(thread.get("waitEvent"))
    state = next((word for flag, word in _STATES if flag in states), None)
    return record(
        "spindump_thread", capture=capture, process=number, pid=pid, command=name, thread_id=thread_id[:64],
        thread_name=text_of(thread.get("name"), NAME_LIMIT),
        queue=text_of(thread.get("dispatch_queue_label"), NAME_LIMIT),
        state="blocked" if wait and state == "sleeping" and _holder(wait) else state,
        samples=1, priority=int_of(thread.get("schedPriority")), base_priority=int_of(thread.get("basePriority")),
        cpu_seconds=round(sum(cpu), 6) if cpu else None, qos=text_of(thread.get("qosEffective"), 64),
        blocked_by=wait, wchan=hex(event[1]) if len(event) == 2 and isinstance(event[1], int) and event[1] else None)


def _waits(each: Json) -> Iterator[tuple[str, str]]:
    for name in ("turnstileInfo", "waitInfo"):  # the second is the more exact, and replaces the first
        for line in _list(each.get(name)):
            if isinstance(line, str) and (found := _WAIT.match(line)) and not found[2].startswith("none"):
                yield found[1], found[2]


def _holder(words: str) -> re.Match[str] | None:
    return _BY_PID.search(words) or _BY_THREAD.search(words) or _OWNER.search(words)


def _blocker(number: int, pid: int | None, name: str, thread_id: str, words: str, owners: Mapping[str, int],
             names: Mapping[int, str], capture: str | None) -> Record:
    """One `waitInfo`: `semaphore port 0x.. owned by pid 6`, `unknown type 17 (owner 6, ..)`."""
    by_pid, by_thread, owner = _BY_PID.search(words), _BY_THREAD.search(words), _OWNER.search(words)
    on_pid = int_of(by_pid[1]) if by_pid else None
    on_thread = by_thread[1] if by_thread and by_thread[1] in owners else None
    if owner and on_pid is None and on_thread is None and int(owner[1]):
        # The number is a thread's or a process's; the stackshot lists all of both.
        on_thread = owner[1] if owner[1] in owners else None
        on_pid = None if on_thread or int(owner[1]) not in names else int(owner[1])
    if on_pid is None and on_thread is not None:
        on_pid = owners[on_thread]
    hops = _HOPS.search(words)
    kind = _HEX.sub("", _OWNED.sub("", words.split(" (", 1)[0])).strip(" ,")
    if words.startswith(("blocked on", "turnstile")):
        kind = "turnstile"
    named = {"on_pid": on_pid, "on_command": names.get(on_pid, "?"), "on_thread_id": on_thread} \
        if on_pid is not None else {"on_what": words[:NAME_LIMIT]}
    return record(
        "spindump_blocker", capture=capture, process=number, pid=pid, command=name, thread_id=thread_id[:64],
        blocked_by=kind[:NAME_LIMIT] or "unknown", **named,
        on_self=True if on_thread == thread_id else None, hops=max(1, int(hops[1])) if hops else 1, samples=1,
        certainty="proven", detail=words[:TEXT_LIMIT])


# -- tables of keys ---------------------------------------------------------------------------------------------------

_CRASHED = re.compile(rb"Thread ([0-9]{1,9}) Crashed:+ *(.*)$")
_FRAME = re.compile(rb"[0-9]{1,9}\s{1,8}(\S(?:.{0,256}?\S)?)\s+0x[0-9a-fA-F]{1,16} (.{1,1024})$")
_OFFSET = re.compile(rb" \+ [0-9]{1,20}(?: \(.*\))?$")


def _process(value: bytes) -> dict[str, Any]:
    who = named(value)
    return {"command": who.command or None, "pid": who.pid}


def _exception(value: bytes) -> dict[str, Any]:
    kind, _, signal = value.rstrip(b" )").partition(b" (")
    return {"exception": plain(kind), "signal": plain(signal)}


def faults(value: str) -> list[str]:
    """`btn_rst,finger_reset force_off` as words."""
    return [word[:64] for word in re.split(r"[,\s]+", value[:1024]) if word][:32]


CRASH: Keys = {
    b"Process": _process, b"Path": one("path", plain), b"Identifier": one("identifier", plain),
    b"Version": one("version", plain), b"Parent Process": named_as("parent"), b"Responsible": named_as("responsible"),
    b"User ID": one("uid", whole), b"Date/Time": one("ts", timestamp), b"Launch Time": one("start_ts", timestamp),
    b"OS Version": one("os_version", plain), b"Hardware Model": one("hardware", plain),
    b"Model": one("hardware", plain), b"Crashed Thread": one("thread", whole), b"Exception Type": _exception,
    b"Termination Reason": one("termination", plain), b"Termination Signal": one("termination", plain),
}
RESET: Keys = {
    b"Date": one("ts", timestamp), b"Date/Time": one("ts", timestamp), b"Reset count": one("reset_count", whole),
    b"Boot faults": one("boot_faults", lambda value: faults(text(value))), b"OS Version": one("os_version", plain),
    b"Hardware Model": one("hardware", plain),
}


def text_crash(lines: Iterable[bytes], capture: str | None = None,
               known: dict[str, Any] | None = None) -> Iterator[Record]:
    """The crash_report of a crash in text form: its keys, and the stack of the thread that crashed."""
    fields: dict[str, Any] = dict(known or {})
    frames: list[str] = []
    inside = images = False
    line = b"\n"
    for line in lines:
        bare = line[:16384].rstrip()
        if found := _CRASHED.match(bare):
            inside = True
            fields.setdefault("thread", int(found[1]))
            name = text(found[2].removeprefix(b"Dispatch queue: "), NAME_LIMIT)
            fields["thread_name"] = name or None
        elif inside and (found := _FRAME.match(bare)):
            if len(frames) < MAX_FRAMES:
                frames.append(text(_OFFSET.sub(b"", found[2]) + b" (" + found[1] + b")", 160))
        elif inside:
            inside = False
        else:
            keyed(bare, CRASH, fields)
            images = images or bare == b"Binary Images:"
    yield record("crash_report", capture=capture, **fields, frames=frames or None)
    if not images and not line.endswith(b"\n"):
        yield record("error", stage="forensics", message="a crash report that was cut off")


def text_reset(lines: Iterable[bytes], capture: str | None = None,
               known: dict[str, Any] | None = None) -> Iterator[Record]:
    """The reset_report of a ResetCounter file."""
    fields: dict[str, Any] = {}
    for line in lines:
        keyed(line, RESET, fields)
    yield reset_record(capture, **{"boot_faults": [], **(known or {}), **fields})


def reset_record(capture: str | None, boot_faults: list[str], **fields: Any) -> Record:
    """The record of these boot faults: whether the power button or a watchdog was the reason follows from them."""
    return record("reset_report", capture=capture, boot_faults=boot_faults, **fields,
                  forced=any(word.startswith(("btn_", "force_off", "finger_reset")) for word in boot_faults) or None,
                  watchdog=any("wdog" in word for word in boot_faults) or None)
