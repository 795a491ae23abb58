"""A second reader, one regular expression a line and no state but the last process and thread, agrees with the parsers
on every process, thread and edge of every sample."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.capture.reports.test_kinds import MAC
from tests.tools.spindump import FIXTURES, of, parsed, samples

PROCESS = re.compile(r"Process: +(.+?)(?: \((?:[^()]|\([^()]*\))*\))? \[(\d+)\](?: \[unique pid \d+\])?(?: \((?:suspended|zombie)\))*$")
THREAD = re.compile(r" +Thread (0x[0-9a-f]+(?:,0x[0-9a-f]+)*|<multiple>)(?=\s)(?:.* (\d+) samples? \(\d)?")
CPU = re.compile(r" cpu time <?([0-9.]+)s?(?: \(| {2}|$)")
EDGE = re.compile(r"^ +\*?(\d+) +.*\((?:[a-z-]+, )*blocked by (.*)\)(?: \d+(?:-\d+)?)?$")
HOLDER = re.compile(r"(?:for|by|on) (?:thread (0x[0-9a-f]+)|.*? \[(\d+)\](?: \([a-z]+\))*(?: thread (0x[0-9a-f]+))?)"
                    r"(?: after \d+ hops?)?(?: - part of a deadlock)?$")


def lines_of(path: Path) -> list[str]:
    return path.read_text("utf-8", "backslashreplace").splitlines()


@pytest.mark.parametrize("path", [*samples("spindump/*"), *(
    pytest.param(FIXTURES / name, id=name) for name in ("heavy.txt", "deadlock.spin"))])
def test_spindumps(path: Path) -> None:
    """Processes with their name and pid, threads with samples and CPU time, waits with weight, holder and thread."""
    processes: list[object] = []
    threads: list[object] = []
    edges: list[object] = []
    pid, thread = 0, ""
    for line in lines_of(path):
        if found := PROCESS.match(line):
            pid = int(found[2])
            processes.append((found[1], pid))
        elif found := THREAD.match(line):
            thread = found[1]
            cpu = CPU.search(line)
            threads.append((pid, thread, int(found[2]), float(cpu[1]) if cpu else None))
        elif found := EDGE.match(line):
            holder = HOLDER.search(found[2])
            edges.append((pid, thread, int(found[1]), int(holder[2]) if holder and holder[2] else None,
                          (holder[1] or holder[3]) if holder else None))
    records = parsed(path.read_bytes())
    assert [(p["command"], p["pid"]) for p in of(records, "spindump_process")] == processes
    assert [(t["pid"], t["thread_id"], t["samples"], t.get("cpu_seconds")) for t in of(records, "spindump_thread")] \
        == threads
    assert [(b["pid"], b["thread_id"], b["samples"], b.get("on_pid"), b.get("on_thread_id"))
            for b in of(records, "spindump_blocker")] == edges


@pytest.mark.slow
@pytest.mark.parametrize("path", samples("spindump/macos-*"))
def test_keys_of_spindumps(path: Path) -> None:
    """Every value of a key of a process in the report is in its records, as often."""
    text = path.read_text("utf-8", "backslashreplace")
    processes = of(parsed(path.read_bytes()), "spindump_process")
    for key, field in (("UUID", "uuid"), ("Codesigning ID", "codesigning_id"), ("Sudden Term", "sudden_termination"),
                       ("Identifier", "identifier"), ("Num threads", "threads"), ("UID", "uid")):
        start = text.index("\nProcess:")
        wanted = [m[1].strip() for m in re.finditer(rf"^{key}: +(.*)$", text[start:], re.M)]
        assert [str(p[field]) for p in processes if field in p] == wanted, key
    omitted = re.findall(r"^Note: +(\d+) idle work queue", text, re.M)
    assert [str(p["idle_threads_omitted"]) for p in processes if "idle_threads_omitted" in p] == omitted
    suspended = re.findall(r"^Note: +Suspended for (\d+)", text, re.M)
    assert [str(p["suspended_samples"]) for p in processes if "suspended_samples" in p] == suspended
    assert all(p["suspended"] is True for p in processes if p.get("suspended_samples", -1) == p["samples"])


@pytest.mark.parametrize("path", [
    *samples("sample/*"), pytest.param(MAC / "Editor_2030-01-02-170000_test.sample.txt", id="fixture")])
def test_sample(path: Path) -> None:
    """Threads with their samples, and the frame of each that has no other below it and the most samples."""
    found: list[list[object]] = []
    frames: list[tuple[int, int, str]] = []

    def close() -> None:
        leaves = [f for f, after in zip(frames, [*frames[1:], (0, 0, "")], strict=True) if after[0] <= f[0]]
        if leaves:
            found[-1].append(max(leaves, key=lambda f: f[1])[2])
        frames.clear()

    for line in lines_of(path):
        if m := re.match(r" {4}(\d+) Thread_(\w+)", line):
            if found:
                close()
            found.append([m[2], int(m[1])])
        elif found and (m := re.match(r"([ +!:|]+)(\d+) (.+?)  \(in (.+)\)(?: |$)", line)) and "Binary" not in line:
            frames.append((len(m[1]), int(m[2]), f"{m[3]} ({m[4]})"))
        elif line.startswith("Total number"):
            close()
            break
    threads = of(parsed(path.read_bytes()), "spindump_thread")
    assert [[t["thread_id"], t["samples"], t["leaf"]] for t in threads] == found


@pytest.mark.parametrize("path", [*samples("diag/*"), *samples("misc/*microstackshots*"), *(
    pytest.param(p, id=p.name) for p in sorted(MAC.glob("*.diag")) if "Reset" not in p.name)])
def test_resource_reports(path: Path) -> None:
    """The numbers of the sentence, and name, pid, samples and share of each process."""
    text = path.read_text()
    records = parsed(path.read_bytes())
    (report,) = of(records, "resource_report")
    wanted = re.findall(r"^Powerstats for: +(.+?)(?: \([^)]*\))?(?: \[(\d+)\])?$[\s\S]*?^Num samples: +(\d+) \((\d+)%\)",
                        text, re.M)
    assert [(p["command"], str(p.get("pid", "")), str(p["samples"]), f"{p['samples_percent']:.0f}")
            for p in of(records, "resource_process")] == wanted
    if m := re.search(r"^(?:CPU|Wakeups): +(\d+)[a-z ]+over (?:the last )?(\d+) seconds \((\d+).*limit of (\d+).*over (\d+) s",
                      text, re.M):
        got = [report[k] for k in ("amount", "over_s", "average", "limit", "limit_over_s")]
        assert got == [float(n) for n in m.groups()]


def test_stackshot() -> None:
    """Processes, threads and waits of a panic, by way of json and one expression."""
    data = (MAC / "panic-full-2030-01-02-200000.0002.ips").read_bytes()
    tasks = json.loads(data.split(b"\n", 1)[1])["processByPid"]
    records = parsed(data)
    assert [(p["pid"], p["command"]) for p in of(records, "spindump_process")] == [
        (t["pid"], t["procname"]) for t in tasks.values()]
    assert [t["thread_id"] for t in of(records, "spindump_thread")] == [i for t in tasks.values() for i in t["threadById"]]
    waits = {line.split(":")[0].split()[1]: line for t in tasks.values()
             for line in [*t.get("turnstileInfo", []), *t.get("waitInfo", [])]}
    assert {b["thread_id"] for b in of(records, "spindump_blocker")} == set(waits)
    for b in of(records, "spindump_blocker"):
        m = re.search(r"pid (\d+)|(?:thread|on|owner) (\d+)\b(?!.*port)", waits[b["thread_id"]].split(": ", 1)[1])
        assert ("on_pid" in b) == (m is not None)
        if m is not None:
            assert m[1] in (None, str(b["on_pid"])) and m[2] in (None, b.get("on_thread_id"), str(b["on_pid"]))
