"""Reports of stacks: every real one is read in full, and what is odd in them stays data."""

from __future__ import annotations

import io
import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from rogue_hunter.capture.reports import spindump
from rogue_hunter.capture.reports.decode import named, size, timestamp
from rogue_hunter.capture.reports.detect import parse_file
from rogue_hunter.capture.reports.spindump_lines import state_of, thread_line, wait_of
from tests.tools.spindump import check, fixture, of, parsed, samples


@pytest.mark.parametrize("path", samples("spindump/*"))
def test_every_real_report_is_counted_as_grep_counts(path: Path) -> None:
    """Processes, threads and waits of a real report are as many as an independent search of its lines finds."""
    data = path.read_bytes()
    records = parsed(data)
    assert len(of(records, "spindump_process")) == len(re.findall(rb"^Process:", data, re.M))
    threads = of(records, "spindump_thread")
    assert len(threads) == len(re.findall(rb"^ +Thread (?:0x|<)", data, re.M))
    assert sum(t["thread_id"].startswith("0x") for t in threads) == len(re.findall(rb"^.*Thread 0x.*$", data, re.M))
    waits = of(records, "spindump_blocker")
    assert len(waits) == len(re.findall(rb"blocked by ", data))
    assert sum("on_pid" in w for w in waits) == len(re.findall(rb"blocked by [^\n]*\[[0-9]+\]", data))
    (report,) = of(records, "spindump_report")
    assert report["blockers"] == len(waits) and report["threads"] == len(threads)
    assert not of(records, "error")


@pytest.mark.slow
@pytest.mark.parametrize("path", samples("spindump/macos-*"))
def test_a_truncated_real_report_is_reported_and_read_up_to_its_end(path: Path) -> None:
    """Cut anywhere inside of a process, a report ends with an error, and its records are a beginning of the whole's."""
    data = path.read_bytes()
    whole = [p.get("pid") for p in of(parsed(data), "spindump_process")]
    starts = [m.start() for m in re.finditer(rb"^Process:", data, re.M)]
    for at in (len(starts) // 3, len(starts) // 2, len(starts) - 2):
        records = parsed(data[: starts[at] + 400])
        assert of(records, "error"), at
        assert [p.get("pid") for p in of(records, "spindump_process")] == whole[: at + 1]


def test_header() -> None:
    """Keys of the header become fields with their units; others are kept as they stand."""
    (report,) = of(parsed(fixture("heavy.txt")), "spindump_report")
    wanted = {
        "ts": 1893549845.25, "end_ts": 1893549855.25, "report_version": "67", "format": "heavy", "event": "hang",
        "duration_s": 10.0, "unresponsive_s": 3.0, "steps": 1000, "interval_ms": 10.0, "cpus": 8, "pid": 501,
        "memory_total_bytes": 16 << 30, "page_bytes": 16384, "awake_s": 2001.0, "processes": 4, "threads": 4,
        "threads_aggregated": 1, "blockers": 3, "edges": 3, "complete": True, "architecture": "arm64e",
    }
    assert {name: report[name] for name in wanted} == wanted
    assert "since_wake_s" not in report
    assert report["frames"] == ["psynch_mtxcontinue (pthread)", "main (Editor)", "start (dyld)"]
    assert report["sections"] == ["Kextstat", "Raw Instantaneous FPS"]


def test_processes() -> None:
    """Names, flags, sizes and notes of processes."""
    editor, indexer, worker, ghost = of(parsed(fixture("heavy.txt")), "spindump_process")
    assert (editor["command"], editor["display_name"], editor["pid"]) == ("Editor", "The Editor", 501)
    assert editor["memory_before_bytes"] == 6416 << 10
    assert editor["memory_peak_bytes"] == 12 << 20
    assert editor["notes"][0].startswith("Unresponsive")
    assert editor["responsible_pid"] == 501 and editor["threads"] == 3 and editor["threads_listed"] == 2
    assert indexer["unique_pid"] == 90210 and indexer["memory_bytes"] == round(60.25 * 2**30)
    assert worker["suspended"] is True and worker["execed_from"] == "xpcproxy"
    assert worker["memory_bytes"] == 5548 * 16384 and worker["cpu_seconds"] == 0.001
    assert ghost["defunct"] is True and ghost["parent_command"] == "UNKNOWN" and "parent_pid" not in ghost


def test_threads() -> None:
    """States are weighed in samples; names may look like counts."""
    main, group, index, stopped = of(parsed(fixture("heavy.txt")), "spindump_thread")
    assert main["main"] is True and main["queue"] == '"com.apple.main-thread"(1)'
    assert (main["state"], main["blocked_samples"], main["running_samples"]) == ("blocked", 990, 10)
    assert (main["priority"], main["priority_high"], main["base_priority"]) == (46, 47, 46)
    assert main["frames"][:2] == ["psynch_mtxcontinue (pthread)", "__psynch_mutexwait (libsystem_kernel.dylib)"]
    assert main["frames"][2] == "-[Doc save] (Editor.swift:31,1 in Editor)"
    assert group["thread_id"] == "0xa2,0xa3" and group["samples"] == 1400 and "main" not in group
    assert index["thread_name"] == "index (5 samples (1-5)" and index["samples"] == 1000
    assert stopped["state"] == "suspended" and stopped["last_ran_s"] == 1223.247


def test_a_thread_comes_before_its_waits_and_after_its_process() -> None:
    """Parents come first, so that they can be stored in one pass."""
    kinds = [(r["type"], r["process"]) for r in parsed(fixture("heavy.txt")) if "process" in r]
    assert kinds[:5] == [("spindump_process", 1), ("spindump_thread", 1), ("spindump_blocker", 1),
                         ("spindump_thread", 1), ("spindump_blocker", 1)]


def test_frames_only_of_whom_they_are_wanted() -> None:
    """`frames_of` decides by pid."""
    records = list(parse_file(io.BytesIO(fixture("heavy.txt")), frames_of=lambda pid: pid == 502))
    assert [t["pid"] for t in of(records, "spindump_thread") if "frames" in t] == [502]
    assert all("leaf" in t for t in of(records, "spindump_thread"))


@pytest.mark.parametrize(("words", "kind", "pid", "name", "thread", "hops"), [
    ("turnstile waiting for A B (C) [1] thread 0x2", "turnstile", 1, "A B", "0x2", 1),
    ("turnstile with priority 92 waiting for W [176] thread 0x3e2", "turnstile", 176, "W", "0x3e2", 1),
    ("turnstile waiting for l [374] thread 0xa8f after 3 hops", "turnstile", 374, "l", "0xa8f", 3),
    ("turnstile waiting for W [389] after 2 hops", "turnstile", 389, "W", None, 2),
    ("unfair lock owned by a [12] thread 0x4", "unfair lock", 12, "a", "0x4", 1),
    ("krwlock for writing owned by V [51245] thread 0xc0b24", "krwlock for writing", 51245, "V", "0xc0b24", 1),
    ("queue processed by Activity Monitor [643] thread 0x51bd", "queue", 643, "Activity Monitor", "0x51bd", 1),
    ("wait4 on zsh [55]", "wait4", 55, "zsh", None, 1),
    ("waitpid, for process make [9]", "waitpid", 9, "make", None, 1),
    ("semaphore owned by x [3]", "semaphore", 3, "x", None, 1),
    ("mach_msg send on port 0x1 name 0x3 owned by Foo Bar [12]", "mach_msg send on port 0x1 name 0x3", 12, "Foo Bar",
     None, 1),
    ("turnstile waiting for thread 0xce8dc4", "turnstile", None, None, "0xce8dc4", 1),
    ("turnstile waiting for kernel_task [0] thread 0x1", "turnstile", 0, "kernel_task", "0x1", 1),
    ("turnstile waiting for Z [8] (suspended) (zombie)", "turnstile", 8, "Z", None, 1),
    ("turnstile waiting for evil [3] owned by [4] [77] thread 0x9", "turnstile", 77, "evil [3] owned by [4]", "0x9", 1),
    ("anything [12]", "unknown", 12, "anything", None, 1),
    ("pthread mutex with unknown owner", "pthread mutex with unknown owner", None, None, None, 1),
    ("", "unknown", None, None, None, 1),
])
def test_waits(words: str, kind: str, pid: int | None, name: str | None, thread: str | None, hops: int) -> None:
    """Kind, holder and hops of what follows `blocked by`."""
    wait = wait_of(words.encode())
    assert (wait.kind, wait.on_pid, wait.on_command, wait.on_thread_id, wait.hops) == (kind, pid, name, thread, hops)


def test_a_wait_for_itself_and_one_without_a_holder() -> None:
    """`this thread` is the waiter; a port without an owner is described by its text."""
    assert wait_of(b"turnstile waiting for this thread - part of a deadlock")[4:8] == (True, None, 1, True)
    port = wait_of(b'turnstile UNKNOWN waiting for receive port name "c.d" in domain 1, mach_msg receive on port x')
    assert port.on_pid is None and port.on_what is not None and port.on_what.startswith('receive port name "c.d"')


@pytest.mark.parametrize(("frame", "words", "first", "last"), [
    (b"  *12  f + 1 (k + 2) [0xff] (running)\n", {b"running"}, None, None),
    (b"  *12  f + 1 (k + 2) [0xff] (running, p-core)\r\n", {b"running", b"p-core"}, None, None),
    (b"  *12  f + 1 (k + 2) [0xff] (suspended, blocked by wait4 on z [1]) 3-14\n", {b"suspended"}, 3, 14),
    (b"  *12  f [0x1] (x) + 1 (k + 2) [0xff] (runnable) 3\n", {b"runnable"}, 3, 3),
    (b"  IORWLockWrite + 180 (suspended, blocked by krwlock owned by V [5] thread 0xc0b24)\n", {b"suspended"}, None,
     None),
])
def test_states(frame: bytes, words: set[bytes], first: int | None, last: int | None) -> None:
    """The bracket behind the address, in all its forms."""
    state = state_of(frame)
    assert state is not None and (set(state.words), state.first, state.last) == (words, first, last)


def test_a_frame_without_a_state() -> None:
    """A range of samples alone is no state."""
    assert state_of(b"  12  main (x) + 1 (a + 2) [0xff] 1-12\n") is None


@pytest.mark.parametrize(("line", "wanted"), [
    (b'  Thread 0xf1970    DispatchQueue "com.apple.main-thread"(1)',
     ("0xf1970", None, '"com.apple.main-thread"(1)', None)),
    (b"  Thread 0x4eb9             DispatchQueue 1           1001 samples (1-1001)     priority 4 (base 4)",
     ("0x4eb9", None, "1", 1001)),
    (b"  Thread <multiple>         DispatchQueue 50          3 samples (823-831)       priority 4 (base 4)",
     ("<multiple>", None, "50", 3)),
    (b'  Thread 0x1    DispatchQueue none,"a b"(2)    Thread name "x" (changed)    1 sample (9)    priority 4',
     ("0x1", "x", 'none,"a b"(2)', 1)),
])
def test_thread_lines(line: bytes, wanted: tuple[str, str | None, str | None, int | None]) -> None:
    """Id, name, queue and samples; each may be missing."""
    found = thread_line(line)
    assert tuple(found.get(name) for name in ("thread_id", "thread_name", "queue", "samples")) == wanted


@pytest.mark.parametrize(("data", "command", "display", "pid"), [
    (b"Core Audio Driver (eqMac.driver (com.example.helper) [512]", "Core Audio Driver (eqMac.driver",
     "com.example.helper", 512),
    (b"System Settings [1250]", "System Settings", None, 1250),
    (b"a [1] [2]", "a [1]", None, 2),
    (b"UNKNOWN", "UNKNOWN", None, None),
    (b"(only) [3]", "(only)", None, 3),
    (b"x (Foo (Bar)) [4] (suspended) (zombie)", "x", "Foo (Bar)", 4),
    (b"bell\x07\xff [5]", "bell\x07\\xff", None, 5),
])
def test_names(data: bytes, command: str, display: str | None, pid: int | None) -> None:
    """A name holds anything."""
    found = named(data)
    assert (found.command, found.display, found.pid) == (command, display, pid)


@pytest.mark.parametrize(("data", "wanted"), [
    (b"4668 KB", 4668 << 10), (b"16  B", 16), (b"55.62 MB", round(55.62 * 2**20)), (b"3 pages", 12288),
    (b"nothing", None), (b"9" * 5000 + b" KB", None), (b"999999999999999 TB", None),
])
def test_sizes(data: bytes, wanted: int | None) -> None:
    """Units are powers of 1024; nonsense is unknown."""
    assert size(data) == wanted


@pytest.mark.parametrize(("data", "wanted"), [
    (b"1970-01-01 01:00:01.5 +0100", 1.5), (b"1969-12-31 19:00:02 -0500", 2.0), (b"1970-01-01T00:00:03Z", 3.0),
    (b"2016-12-31 23:59:60 +0000", 1483228800.0), (b"2030-13-01 00:00:00 +0000", None), (b"2030-01-01 00:00:00", None),
    (b"0000-01-01 00:00:00 +0000", None), (b"2030-01-01 00:00:00 +9999", None),
])
def test_times(data: bytes, wanted: float | None) -> None:
    """A time needs its zone; an impossible one is unknown."""
    assert timestamp(data) == wanted


@pytest.mark.parametrize("change", [
    lambda d: d.replace(b"\n", b"\r\n"),
    lambda d: b"\xef\xbb\xbf" + d,
    lambda d: b"Sampling all processes for 10 seconds\n" * 30 + d,
    lambda d: b'{"bug_type":"228","app_name":"Editor"}\n' + d,
    lambda d: b"".join(b"    " + line if line.strip() else line for line in d.splitlines(keepends=True)),
    lambda d: d + b"Spindump binary format\n" + bytes(range(256)) * 50,
    lambda d: d.replace(b"DispatchQueue", b"x" * 200_000, 1),
])
def test_a_report_that_was_handled_by_others(change: object) -> None:
    """Line ends, byte order marks, other output before, indentation, a blob behind, lines without measure."""
    records = parsed(change(fixture("heavy.txt")))  # type: ignore[operator]
    assert [len(of(records, f"spindump_{k}")) for k in ("process", "thread", "blocker", "report")] == [4, 4, 3, 1]


def test_a_report_without_indentation() -> None:
    """A form that strips every line: processes, threads and waits are still counted."""
    thread = b"  Thread 0x%d  1 sample (1)\n  <thread QoS default>\n  1  f + 1 (k + 2) [0xff] (blocked by wait4 on z [1]) 1\n\n"
    two = b"Report Version: 35.1\n\nProcess:  a [7]\n\n" + thread % 1 + thread % 2 + b"  Binary Images:\n    0x1 - 0x2 a\n"
    for data, threads, waits in ((fixture("heavy.txt"), 4, 3), (fixture("deadlock.spin"), 3, 3), (two, 2, 2)):
        for form in (data, b"\n".join(line.strip() for line in data.splitlines()) + b"\n"):
            records = parsed(form)
            assert (len(of(records, "spindump_thread")), len(of(records, "spindump_blocker"))) == (threads, waits)


def test_one_that_ended_before_the_first_sample() -> None:
    """A zombie without threads has no binary images: the report is whole, and the tables behind it are no keys of it."""
    data = b"Report Version: 67\n\nProcess:  a [1]\n\n  Thread 0x1  1 sample (1)\n\n  Binary Images:\n     0x1 - 0x2  a\n\n" \
           b"Process:  sh [2]\nNote:     Terminated (zombie)\n\n"
    for tail, sections in ((b"", None), (b"IO Size Histogram:\n  Begin End\n", ["IO Size Histogram"])):
        records = parsed(data + tail)
        (report,) = of(records, "spindump_report")
        assert (report["complete"], report.get("sections")) == (True, sections) and not of(records, "error")


@pytest.mark.parametrize("end", [b"", b"   ", b"\t"])
def test_blanks_at_the_end_do_not_cut_a_report(end: bytes) -> None:
    """The line feed of the last line may be lost, or be followed by the indentation of a missing line."""
    (report,) = of(parsed(fixture("deadlock.spin") + end), "spindump_report")
    assert report["complete"] is True


def test_cut_at_every_byte() -> None:
    """No cut makes a traceback, and each gives no more than the whole has."""
    data = fixture("deadlock.spin")
    for at in range(0, len(data), 7):
        records = parsed(data[:at])
        assert len(of(records, "spindump_process")) <= 3 and records


def test_two_reports_in_one_file() -> None:
    """The second begins at its date; each has its own numbers."""
    records = parsed(fixture("heavy.txt") + fixture("deadlock.spin"))
    assert [r["processes"] for r in of(records, "spindump_report")] == [4, 3]
    assert of(records, "spindump_process")[4]["process"] == 1


def test_the_same_pid_twice_and_threads_without_a_process() -> None:
    """A process that calls exec is listed twice; a pasted part has threads without a process."""
    records = parsed(b"Report Version: 60\nProcess:  xpcproxy [7]\n\n  Thread 0x1  1 sample (1)\n\n"
                     b"Process:  gamed [7]\n\n  Thread 0x1  1 sample (2)\n")
    assert [(p["process"], p["pid"], p["command"]) for p in of(records, "spindump_process")] == \
        [(1, 7, "xpcproxy"), (2, 7, "gamed")]
    part = parsed(b"  Thread 0x1    3 samples (1-3)\n  3  main + 1 (x + 2) [0x3] (running)\n")
    (thread,) = of(part, "spindump_thread")
    assert (thread["process"], thread["state"]) == (0, "running")


@pytest.mark.parametrize(("data", "words"), [
    (b"", "empty"), (b"\x1f\x8b\x08aaaa", "gzip"), (b"\0\1\2\3" * 100, "binary"), (b"hello\nworld\n", "not a spindump"),
    (b'{"bug_type":"210"}\n{}\n', ".ips"), (b"bplist00", "property list"),
])
def test_what_is_no_report_is_refused_in_one_line(data: bytes, words: str) -> None:
    """One error record that says what the file is instead."""
    (error,) = parsed(data)
    assert error["type"] == "error" and words in error["message"] and "\n" not in error["message"]


@pytest.mark.slow
def test_a_report_is_not_held_in_memory() -> None:
    """A report six times as long takes no more memory."""
    block = b"Process:  p [%d]\n\n  Thread 0x%x    9 samples (1-9)    priority 4 (base 4)\n" + \
        b"  9  start + 1 (dyld + 1) [0x1]\n" * 40 + \
        b"   *9  x + 1 (kernel + 1) [0x2] (blocked by turnstile waiting for q [1] thread 0x1)\n  Binary Images:\n\n\n"

    def lines(count: int) -> Iterator[bytes]:
        yield b"Report Version: 60\n"
        for i in range(count):
            yield from (block % (i, i)).splitlines(keepends=True)

    def peak(count: int) -> int:
        tracemalloc.start()
        try:
            seen = sum(r["type"] == "spindump_process" for r in spindump.parse(lines(count)))
            assert seen == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(240) < peak(40) + 100_000


@pytest.mark.slow
def test_a_process_with_threads_without_end_is_given_out_in_parts() -> None:
    """What is held back of one process is bounded."""
    data = b"Process:  p [1]\n" + b"  Thread 0x1    1 sample (1)\n" * (spindump_pending() + 5)
    records = check(spindump.parse(data.splitlines(keepends=True)))
    assert records[0]["type"] == "spindump_process" and len(of(records, "spindump_thread")) == spindump_pending() + 5


def spindump_pending() -> int:
    """The bound."""
    from rogue_hunter.capture.reports.spindump import MAX_PENDING

    return MAX_PENDING


SECTION = b"""
Custom Output:
Process:         tool [5]
Path:            /usr/bin/tool
Load Address:    0x1
Code Type:       ARM64
Parent Process:  launchd [1]

Date/Time:       2030-01-02 03:04:05.250 +0100
Launch Time:     2030-01-02 03:04:00.250 +0100
Report Version:  7
Analysis Tool:   /usr/bin/heap
Invalid connection: com.apple.coresymbolicationd
  Thread 0x9    3 samples (1-3)
    All zones: 3 nodes
"""


def test_what_another_tool_printed_into_a_section() -> None:
    """A section may hold the output of heap(1), with lines of a process and of a date: they open nothing. A report
    after it is read."""
    whole = fixture("deadlock.spin").rstrip() + b"\n"
    for data, reports in ((whole + SECTION, 1), (whole + SECTION + fixture("heavy.txt"), 2)):
        records = parsed(data)
        assert not of(records, "error")
        first = of(records, "spindump_report")[0]
        assert (first["processes"], first["complete"], first["sections"]) == (3, True, ["Custom Output"])
        assert len(of(records, "spindump_report")) == reports
        assert len(of(records, "spindump_process")) == 3 + 4 * (reports - 1)


@pytest.mark.parametrize("tail", [b"Spindump binary format\n" + b"YnBsaXN0MDDU" * 900, b"Spindump binary format",
                                  b"Spindump binary format\nProcess:\n  Thread 0x1\nUUID:\n"])
def test_a_report_that_ends_in_its_binary_form_is_whole(tail: bytes) -> None:
    """The marker ends the text, also without tables before it and without a last line feed; the blob is not read."""
    for data, processes in ((fixture("deadlock.spin").rstrip() + b"\n\n", 3), (fixture("heavy.txt"), 4)):
        records = parsed(data + tail)
        (report,) = of(records, "spindump_report")
        assert (report["complete"], report["binary"], report["processes"]) == (True, True, processes)
        assert not of(records, "error")
    assert [r["processes"] for r in of(parsed(fixture("heavy.txt") + tail + b"\n" + fixture("deadlock.spin")),
                                       "spindump_report")] == [4, 3]
    header = fixture("deadlock.spin").split(b"Process:")[0]
    (report, error) = parsed(header + tail)
    assert report["complete"] is False and "binary form" in error["message"]


@pytest.mark.parametrize(("line", "cpu", "idle", "cycles"), [
    (b"cpu time <0.001", 0.001, None, None), (b"cpu time 0.091s (163.6M cycles, 121.9M instructions, 1.34c/i)", 0.091,
                                              None, 163_600_000),
    (b"cpu time 0.5", 0.5, None, None), (b"idle time 4.750s (952.7M cycles)", None, 4.75, 952_700_000),
    (b"idle time <0.001", None, 0.001, None), (b"cpu time <0.001 (407.1K cycles, 91.3K instructions, 4.46c/i)", 0.001,
                                               None, 407_100),
])
def test_times_of_a_thread(line: bytes, cpu: float | None, idle: float | None, cycles: int | None) -> None:
    """Reports of version 25 print `<0.001` without a unit."""
    made = thread_line(b"Thread 0x1    9 samples (1-9)    priority 31 (base 31)    " + line)
    assert tuple(made.get(name) for name in ("cpu_seconds", "idle_seconds", "cycles")) == (cpu, idle, cycles)


def test_idle_threads_of_the_kernel() -> None:
    """The idle thread of a CPU is idle although the report says running; together they say how busy the machine was."""
    idle = b"".join(b"  Thread 0x%d    Thread name \"idle #%d\"    10 samples (1-10)    priority 0 (base 0)    idle time "
                    b"%ds\n  *10  x + 1 (kernel + 1) [0x1] (running)\n\n" % (n, n, 8 + n) for n in range(2))
    data = b"Report Version: 60\nDuration: 10.00s\nSteps: 10\nActive cpus: 2\n\nProcess: kernel_task [0]\n\n" + idle + \
        b"  Binary Images:\n    0x1 - 0x2 a\n"
    records = parsed(data)
    assert [t["state"] for t in of(records, "spindump_thread")] == ["idle", "idle"]
    assert all("running_samples" not in t for t in of(records, "spindump_thread"))
    (report,) = of(records, "spindump_report")
    assert (report["idle_seconds"], report["cpu_busy_cores"]) == (17.0, 0.3)
    (some,) = of(parsed(data.replace(b"cpus: 2", b"cpus: 4")), "spindump_report")
    assert "cpu_busy_cores" not in some


def test_notes() -> None:
    """Suspended for one sample of ten is not suspended; a process that did not respond, and threads left out."""
    def process(note: bytes) -> dict[str, object]:
        data = b"Report Version: 60\nProcess: a [1]\nNum samples: 10 (1-10)\nNote: " + note + b"\n\n  Thread 0x1  10 samples (1-10)\n"
        return of(parsed(data), "spindump_process")[0]

    once, always = process(b"Suspended for 1 sample"), process(b"Suspended for 10 samples")
    assert ("suspended" not in once, once["suspended_samples"], always["suspended"]) == (True, 1, True)
    assert process(b"Unresponsive for 2 seconds before sampling")["unresponsive_s"] == 2.0
    assert process(b"Unresponsive")["unresponsive"] is True
    assert process(b"16 idle work queue threads omitted")["idle_threads_omitted"] == 16


def test_what_hunters_want_of_the_header() -> None:
    """Counters, thermal pressure, vnodes and disk space are fields; so are the identity and state of a process."""
    head = b"Report Version: 60\nDuration: 10.00s\nDuration Sampled: 9.50s\nTotal CPU Time: 10.444s (18.6G cycles, " \
        b"47.8G instructions, 0.39c/i)\nAdvisory levels: Battery -> 2, ThermalPressure -> 1\n" \
        b"Free disk space: 1.00 GB/2.00 GB, low\nVnodes Available: 80.18% (1/2)\n\nProcess: a [1]\n" \
        b"Codesigning ID: com.a\nTeam ID: T\nIs First Party: Yes\nSudden Term: Tracked (allows idle exit)\n" \
        b"CPU Time: 0.159s (280.9M cycles, 169.1M instructions, 1.66c/i)\n\n  Thread 0x1  1 sample (1)\n"
    records = parsed(head)
    report, process = of(records, "spindump_report")[0], of(records, "spindump_process")[0]
    wanted = {"sampled_s": 9.5, "cycles": 18_600_000_000, "instructions": 47_800_000_000,
              "cycles_per_instruction": 0.39, "thermal_pressure": 1, "disk_free_bytes": 1 << 30,
              "disk_total_bytes": 2 << 30, "vnodes_available_percent": 80.18}
    assert {name: report.get(name) for name in wanted} == wanted
    own = {"codesigning_id": "com.a", "team_id": "T", "first_party": True, "cycles": 280_900_000,
           "sudden_termination": "Tracked (allows idle exit)", "cycles_per_instruction": 1.66}
    assert {name: process.get(name) for name in own} == own
