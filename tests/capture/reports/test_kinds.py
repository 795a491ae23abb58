"""Each kind of macOS report as records: every field of a fixture, and of the real samples."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from rogue_hunter.capture.blame import blame, suspects
from rogue_hunter.capture.reports.detect import read, reports
from tests.tools.spindump import FIXTURES, SAMPLES, Record, binary_report, check, of, parsed, samples

MAC = FIXTURES / "mac"


def mac(start: str) -> list[Record]:
    """The records of the fixture whose name begins so, checked; none of them is an error."""
    (path,) = MAC.glob(f"{start}*")
    records = check(read(io.BufferedReader(io.BytesIO(path.read_bytes()))))  # type: ignore[arg-type]
    assert not of(records, "error")
    return records


def has(record: Record, **fields: object) -> None:
    """These fields have these values; None: the field is absent."""
    assert {name: record.get(name) for name in fields} == fields


def test_wakeups() -> None:
    """A report of wakeups: its sentence in numbers, its processes with their samples and stacks."""
    records = mac("Crawler")
    (report,) = of(records, "resource_report")
    has(report, event="wakeups", action_taken="none", pid=4711, command="Crawler", identifier="com.example.crawler",
        team_id="TEAM000000", coalition='"com.example.crawler"(18177)', parent_pid=1, parent_command="launchd",
        amount=45001.0, unit="wakeups", over_s=18.0, average=2450.0, limit=150.0, limit_over_s=300.0, steps=9,
        duration_s=250.65, sampled_s=241.2, ts=1893591125.126, end_ts=1893591375.779, processes=2, cpus=8,
        path="/Applications/Crawler.app/Contents/MacOS/Crawler", thermal_pressure=1, vnodes_available_percent=80.18,
        advisory_levels={"Battery": 3, "User": 2, "ThermalPressure": 1, "Combined": 2},
        frames=["tick (Crawler)", "thread_start (libsystem_pthread.dylib)"])
    assert report["disk_free_bytes"] == round(369.53 * 2**30)
    crawler, helper = of(records, "resource_process")
    has(crawler, process=1, pid=4711, command="Crawler", display_name="The Crawler", samples=6, samples_percent=67.0,
        cpu_seconds=3.5, cycles=3_200_000_000, instructions=15_400_000_000, cycles_per_instruction=0.21,
        pageins_total=556, user_idle_samples=1, user_active_samples=5, battery_samples=4, ac_samples=2,
        primary_state="Frontmost App, Non-Suppressed, User mode, Effective Thread QoS Default", leaf="tick (Crawler)",
        memory_before_bytes=round(104.77 * 2**20), memory_bytes=round(111.86 * 2**20))
    has(helper, process=2, pid=4712, samples_percent=33.0, leaf="start (libdyld.dylib)")


def test_cpu_and_writes() -> None:
    """The other two limits; a report with a first line in JSON, as on iOS."""
    (cpu,) = of(mac("Burner"), "resource_report")
    has(cpu, event="cpu usage", action_taken="Process killed", amount=90.0, unit="cpu_seconds", over_s=91.0,
        average=99.0, limit=50.0, limit_over_s=180.0, processes=0)
    (writes,) = of(mac("Writer"), "resource_report")
    has(writes, event="disk writes", amount=2147.53e6, unit="bytes", over_s=11286.0, average=190_280.0, limit=24_860.0,
        limit_over_s=86400.0, step_bytes=10.49e6, command="Writer", processes=1)


@pytest.mark.parametrize(("line", "wanted"), [
    ("CPU:  144s cpu time over 173 seconds (83% cpu average), exceeding limit of 80% cpu over 180 seconds",
     (144.0, "cpu_seconds", 173.0, 83.0, 80.0, 180.0)),
    ("CPU:  90 seconds cpu time over 168 seconds (54% cpu average), exceeding limit of 50%",
     (90.0, "cpu_seconds", 168.0, 54.0, None, None)),
    ("Writes:  1073.74 MB of file backed memory dirtied over 8588 seconds, exceeding limit of 12.43 KB per second over "
     "86400 seconds", (1073.74e6, "bytes", 8588.0, None, 12_430.0, 86400.0)),
    ("Writes:  137.44 GB of file backed memory dirtied over 10720 seconds (12.82 MB per second average), exceeding "
     "limit of 1590.73 KB per second over 86400 seconds",
     (137.44e9, "bytes", 10720.0, 12.82e6, 1_590_730.0, 86400.0)),
    ("Wakeups:  737 wakeups per second for 62 seconds", (None, "wakeups", 62.0, 737.0, None, None)),
])
def test_forms_of_the_sentence(line: str, wanted: tuple[object, ...]) -> None:
    """Versions 18 to 72 differ in the words; an average or a limit may be missing."""
    (report,) = parsed(f"Data Source: Microstackshots\n{line}\n".encode())
    got = [report.get(k) for k in ("amount", "unit", "over_s", "average", "limit", "limit_over_s")]
    assert got == [pytest.approx(value) if isinstance(value, float) else value for value in wanted]


@pytest.mark.parametrize("path", samples("diag/*cpu*"))
def test_a_real_report_of_cpu_usage(path: Path) -> None:
    """macOS 12.4, shortened."""
    (report,) = parsed(path.read_bytes())
    has(report, type="resource_report", event="cpu usage", pid=3820, command="ExampleApp", amount=90.0, average=99.0,
        limit=50.0, over_s=91.0, limit_over_s=180.0, steps=52, sampled_s=83.95, team_id="TEAM000000",
        thermal_pressure=0, frames=["start (dyld)"], report_version="35.1", hardware="MacBookPro18,1")


@pytest.mark.parametrize("path", samples("diag/*wakeups*"))
def test_a_real_report_of_wakeups(path: Path) -> None:
    """macOS 11.0.1, shortened: the heaviest stack ends at its blank line."""
    process, report = parsed(path.read_bytes())
    has(report, event="wakeups", pid=18956, command="Google Chrome", average=180.0, limit=150.0, amount=45001.0,
        end_ts=1613394605.779, frames=[
            "ChromeMain (Google Chrome Framework)", "ChromeMain (Google Chrome Framework)",
            "_pthread_start (libsystem_pthread.dylib)", "thread_start (libsystem_pthread.dylib)"])
    has(process, type="resource_process", pid=18956, samples=9, samples_percent=100.0, battery_samples=9, ac_samples=0,
        leaf="main (Google Chrome)", memory_before_bytes=round(104.77 * 2**20))


@pytest.mark.parametrize("path", samples("misc/*microstackshots*"))
def test_a_real_report_of_power(path: Path) -> None:
    """A report of microstackshots without a limit has its processes all the same."""
    records = parsed(path.read_bytes())
    (report,) = of(records, "resource_report")
    has(report, event="powerstats", processes=2, steps=2, unit=None)
    assert [p["command"] for p in of(records, "resource_process")] == ["Activity Monitor", "opendirectoryd"]
    assert [p["samples_percent"] for p in of(records, "resource_process")] == [50.0, 50.0]


def test_sample() -> None:
    """sample(1): the process, its threads with queue, name and heaviest stack, what was on top."""
    records = mac("Editor")
    (process,) = of(records, "spindump_process")
    has(process, pid=501, command="Editor Helper (Renderer)", identifier="com.example.editor", parent_command="launchd",
        memory_bytes=round(122.1 * 2**20), memory_peak_bytes=round(1.5 * 2**30), architecture="ARM64")
    main, named, pooled = of(records, "spindump_thread")
    has(main, main=True, thread_id="16614993", samples=2449, leaf="__psynch_mutexwait (libsystem_kernel.dylib)",
        queue="DispatchQueue_1: com.apple.main-thread  (serial)", thread_name=None, frames=[
            "__psynch_mutexwait (libsystem_kernel.dylib)", "main (Editor Helper (Renderer))", "start (dyld)"])
    has(named, main=None, thread_id="588763", thread_name="IOThread", queue=None, leaf="kevent64 (libsystem_kernel.dylib)")
    has(pooled, thread_name="worker", queue="DispatchQueue_<multiple>")
    (report,) = of(records, "spindump_report")
    has(report, format="sample", pid=501, steps=2449, duration_s=3.0, interval_ms=1.0, threads=3, complete=True,
        ts=1893600000.109, top=[{"frame": "kevent64 (libsystem_kernel.dylib)", "samples": 2449},
                                {"frame": "__psynch_mutexwait (libsystem_kernel.dylib)", "samples": 2400}])
    (suspect,) = suspects(records)
    has(suspect, reason="target", pid=501, leaf="__psynch_mutexwait (libsystem_kernel.dylib)", of_samples=2449)


@pytest.mark.parametrize("path", samples("sample/*"))
def test_a_real_sample(path: Path) -> None:
    """macOS 12.4: a program that hangs in a mutex."""
    process, thread, report = parsed(path.read_bytes())
    has(process, pid=1828, command="SingleThreadHangingTest", parent_pid=1822, memory_bytes=676 << 10,
        memory_peak_bytes=680 << 10)
    has(thread, samples=2449, leaf="__psynch_mutexwait (libsystem_kernel.dylib)")
    assert len(thread["frames"]) == 6
    has(report, steps=2449, complete=True, top=[{"frame": "__psynch_mutexwait (libsystem_kernel.dylib)", "samples": 2449}])


def test_a_sample_that_was_cut() -> None:
    """It is reported, and the readable part is kept."""
    data = (MAC / "Editor_2030-01-02-170000_test.sample.txt").read_bytes()
    records = parsed(data[: data.index(b"Total number")])
    assert [e["message"][:24] for e in of(records, "error")] == ["the report is incomplete"]
    assert len(of(records, "spindump_thread")) == 3
    both = parsed(data + data)
    assert len(of(both, "spindump_report")) == 2 and len(of(both, "spindump_thread")) == 6


def test_jetsam() -> None:
    """The victim is the process with a reason, not the largest one; pages are bytes."""
    records = mac("JetsamEvent")
    (report,) = of(records, "jetsam_report")
    has(report, largest_process="node", reason="vm-compressor-space-shortage", processes=3, ts=1893603600.12,
        page_bytes=16384, free_bytes=4275 * 16384, anonymous_bytes=225891 * 16384, compressor_bytes=541951 * 16384,
        victims=[{"pid": 800, "command": "suggestd", "reason": "vm-compressor-space-shortage",
                  "memory_bytes": 700 * 16384}])
    node = of(records, "jetsam_process")[0]
    has(node, pid=4624, memory_bytes=190_000 * 16384, memory_peak_bytes=200_000 * 16384, cpu_seconds=1223.5,
        states=["frontmost"], coalition=633, reason=None)


def test_crashes() -> None:
    """A crash in JSON and one in text."""
    (crash,) = mac("Crashy")
    has(crash, type="crash_report", pid=321, command="Crashy", identifier="com.example.crashy", parent_command="launchd",
        exception="EXC_BAD_ACCESS", signal="SIGSEGV", termination="SIGNAL, code 11, Segmentation fault: 11", thread=1,
        thread_name="com.apple.main-thread", frames=["boom (Crashy)", "??? (???)"], os_version="macOS 99.1 (99A1)",
        ts=1893607200.1234, start_ts=1893607140.0, uid=501)
    (older,) = mac("Older")
    has(older, type="crash_report", pid=322, command="Older", exception="EXC_CRASH", signal="SIGABRT", parent_pid=1,
        termination="Namespace SIGNAL, Code 0x6", thread=0, ts=1893608100.5, uid=501,
        frames=["__pthread_kill (libsystem_kernel.dylib)", "main (com.example.older)"])


def test_panic() -> None:
    """A panic's stackshot: every process and thread, and its waits as a graph."""
    records = mac("panic-full")
    (report,) = of(records, "spindump_report")
    has(report, format="stackshot", event="panic", processes=5, threads=8, blockers=5, edges=4, ts=1893610800.0)
    assert "no checkins from watchdogd in 92 seconds" in report["reason"]
    app = of(records, "spindump_process")[3]
    has(app, pid=9, command="app", cpu_seconds=1.75, memory_bytes=1 << 20, pageins_total=2, faults_total=10)
    states = {t["thread_id"]: t["state"] for t in of(records, "spindump_thread")}
    assert states == {"100": "running", "101": "sleeping", "600": "blocked", "700": "uninterruptible",
                      "913": "blocked", "908": "blocked", "914": "sleeping", "990": "blocked"}
    waits = {w["thread_id"]: (w["blocked_by"], w.get("on_pid"), w.get("on_thread_id"), w["hops"])
             for w in of(records, "spindump_blocker")}
    assert waits == {"600": ("kernel mutex", 7, "700", 1), "913": ("semaphore port", 6, None, 1),
                     "908": ("unknown type 17", 6, None, 1), "914": ("mach_msg receive on port set", None, None, 1),
                     "990": ("turnstile", 6, "600", 2)}
    root = blame(records).roots[0]
    assert (root.command, root.node) == ("diskd", (7, "700")) and root.processes == 3


def test_reset() -> None:
    """Who held the power button is not known; that it was held is."""
    (reset,) = mac("ResetCounter")
    has(reset, type="reset_report", boot_faults=["btn_rst", "finger_reset", "force_off"], forced=True, watchdog=None,
        reset_count=1, ts=1893614395.12)


def test_logs_as_text() -> None:
    """Three styles of log show; the kernel's own facts are tagged, and only the kernel's."""
    hit, failed, kill, liar = mac("log-2030-01-02-220000")
    has(hit, kind="limit_hit", about_pid=4711, about_command="Crawler", pid=0, command="kernel", level="default",
        thread_id="0x1a2b", ts=1893618000.123456)
    has(failed, level="error", command="syncd", sender="SyncKit", subsystem="com.example.sync", category="net", pid=88)
    assert failed["message"] == "cannot connect: token=***\nsecond line"
    has(kill, kind="jetsam_kill", about_pid=800, about_command="suggestd")
    has(liar, kind=None, about_pid=None, command="liar")
    excess, error, activity = mac("log-2030-01-02-220100")
    has(excess, kind="limit_hit", about_pid=4711, about_command=None, ts=None, level="default")
    has(error, level="error", message="cannot connect", sender="SyncKit", thread_id="0x1a2c")
    has(activity, kind="activity", command="Some App", pid=90)
    burning, other = mac("log-2030-01-02-220200")
    has(burning, kind="limit_hit", about_pid=99, about_command="Burner", ts=1893618120.123456)
    has(other, level="error", subsystem="com.example.sync", message="cannot connect")


def test_powermetrics() -> None:
    """Columns by their titles, a name with a number, the processes that ended; no row of all or of a coalition."""
    crawler, window, dead, again, helper = mac("powermetrics")
    has(crawler, type="task", source="powermetrics", process=1, pid=4711, command="Crawler 12 Helper", cpu_percent=98.55,
        wakeups_per_s=2450.61, energy_impact=2053.47, ts=1893618175.0, end_ts=1893618180.0, duration_s=5.0)
    assert (window["pid"], dead["command"], dead.get("pid")) == (178, "DEAD_TASKS", None)
    has(again, pid=4711, command="Crawler 12 Helper", cpu_percent=89.99, energy_impact=1999.0, wakeups_per_s=None)
    has(helper, pid=4712, process=2)


def test_top() -> None:
    """Each sample has its own columns."""
    crawler, window, _, again = mac("top")
    has(crawler, source="top", pid=4711, command="Crawler 12 Helpe", cpu_percent=98.5, cpu_seconds=754.56, threads=15,
        memory_bytes=1228 << 20, parent_pid=1, state="running", ts=None)
    has(window, cpu_seconds=3723.0, memory_bytes=120 << 10)
    assert [each["command"] for each in parsed(b"Processes: 1 total, 1 running\nPID \tCOMMAND\n7   \ta b  \n")] == ["a b"]
    has(again, process=1, pid=4711, command="Crawler 12 Helpe", cpu_percent=99.0, memory_bytes=None)


def test_taskinfo() -> None:
    """A process with macOS's own limits; the lines of its threads are not its own."""
    launchd, crawler = mac("taskinfo")
    has(launchd, source="taskinfo", pid=1, command="launchd", age_s=216.0, cpu_seconds=2.370602, threads=2,
        memory_bytes=round(12.23 * 2**20), memory_peak_bytes=round(12.36 * 2**20), wakeups_total=21, wakeups_limit=150.0,
        cpu_limit_percent=None)
    has(crawler, pid=4711, command='Crawler" [12] Helper', cpu_seconds=3101.25, memory_peak_bytes=5 << 28, threads=None,
        wakeups_limit=None, cpu_limit_percent=50.0, cpu_limit_over_s=180.0)


def test_binary_form() -> None:
    """What the binary form says about the report as a whole, and an error that names the form."""
    report, error = parsed(binary_report())
    has(report, type="spindump_report", binary=True, event="shutdown stall", ts=1893618360.0, end_ts=1893618370.0, steps=2,
        duration_s=10.0, os_version="macOS 99.1 (Build 99A1)", hardware="MacTest1,1", cpus=8, interval_ms=10.0, pid=None,
        reason=None, header={"Duration note": "sampling started after 2 seconds"}, processes=0, complete=False)
    assert "a spindump in binary form only" in error["message"]
    cut, error = parsed(binary_report()[:300])
    has(cut, binary=True, event=None, processes=0)
    assert "a spindump in binary form only" in error["message"]


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the folder of real samples is not here")
def test_real_binary_form() -> None:
    """The binary form of a real report says the same as its text."""
    data = (SAMPLES / "spindump" / "macos-10.14.5-sysdiagnose-heavy-x86_64-r28.txt").read_bytes()
    told = of(parsed(data), "spindump_report")[0]
    (found, _) = parsed(data[data.index(b"Spindump binary format"):])
    for name in ("hardware", "cpus", "steps", "interval_ms"):
        assert found[name] == told[name]
    assert abs(found["ts"] - told["ts"]) < 1 and abs(found["end_ts"] - told["end_ts"]) < 1
    assert found["os_version"] == told["os_version"]


@pytest.mark.parametrize("path", samples("pmset/*"))
def test_real_sleep_logs(path: Path) -> None:
    """pmset's log is a kind of file: as many sleeps and wakes as lines of these domains."""
    records = parsed(path.read_bytes())
    wanted = sum(line[26:34].split()[:1] in (["Sleep"], ["Wake"], ["DarkWake"])
                 and line[26:40].rstrip()[:13].strip() in ("Sleep", "Wake", "DarkWake")
                 for line in path.read_text("utf-8", "replace").splitlines())
    assert len(of(records, "sleep_wake")) == len(records) >= wanted > 0


@pytest.mark.parametrize(("data", "words"), [
    (b"Process:         tool [5]\nPath: /x\nAnalysis Tool:   /usr/bin/heap \n", "a report of heap"),
    (b"12:00:00.123456  open              F=5  (R_____)  /x        0.000012   tool.123\n", "a trace of fs_usage"),
    (b"Anonymous UUID: 1\n\n*** Panic Report ***\npanic(cpu 0 caller 0xffffff80)\n", "a kernel panic as text"),
    (b"<?xml version='1.0'?>\n<plist><dict/></plist>\n", "XML"),
    (b'{"bug_type":"999"}\n{"other": 1}\n', "bug_type 999"),
    (b'{"bug_type":"298"}\n{"processes": [', "cut short"),
])
def test_what_is_not_read_is_named(data: bytes, words: str) -> None:
    """One error that names the kind: never an empty spindump."""
    (error,) = parsed(data)
    assert error["type"] == "error" and words in error["message"]


def test_the_kind_follows_from_the_content() -> None:
    """Each fixture is recognised without its name; a crash or sample is never taken for a spindump."""
    kinds = {"Crawler": "resource_report", "Burner": "resource_report", "Writer": "resource_report",
             "Editor": "spindump_report", "JetsamEvent": "jetsam_report", "Crashy": "crash_report",
             "Older": "crash_report", "panic": "spindump_report", "ResetCounter": "reset_report",
             "log": "log_entry", "pmset": "sleep_wake", "powermetrics": "task", "top": "task", "taskinfo": "task"}
    for path in MAC.iterdir():
        last = parsed(path.read_bytes())[-1]
        assert kinds[path.name.split("_")[0].split("-")[0]] == last["type"], path.name
    groups = list(reports(mac("Crawler") + mac("Editor")))
    assert [records[-1]["type"] for _, records in groups] == ["resource_report", "spindump_report"]
