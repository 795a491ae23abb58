"""The sentences of a verdict, as people read them, for the situations that were wrong before."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from rogue_hunter.report.sentences import period_words
from rogue_hunter.report.verdict_text import cause_fields, cause_words, cleared_words, taker_fields
from rogue_hunter.schema import RECORDS
from rogue_hunter.verdict.engine import verdict
from rogue_hunter.verdict.model import Window
from tests.tools.windows import BOOT, GIB, MIB, START, one, process, repeat, window

NOW = START + 600
PSI = {"pressure_cpu_some_ms_per_s": 900.0}
VICTIM = process(50, "player", cores=0.15, delay=0.2, unit="player[50]")


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Times of day in UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def told(judged: Window) -> str:
    """The sentence of the first cause."""
    first = verdict(judged).first
    assert first is not None
    return cause_words(first, NOW)


def test_a_storm_names_its_short_lived_children() -> None:
    """N5, S8: one basis for both numbers."""
    shell = process(7, "bash", name="deploy.sh", cmdline="bash deploy.sh", cores=0.02, child_cores=1.5, ppid=1)
    assert told(window(*repeat(4, [shell]))) == (
        "bash deploy.sh (pid 7) used 1.5 of 2 cores for 20s from 11:06:40 (100 % of what was used), 1.5 of them by "
        "short-lived children; bash deploy.sh")


def test_workers_and_their_victim() -> None:
    """N22, S12: scripts by name, their number, no pid of one of them; the victim with its own."""
    rows = [process(10 + n, "python3", name="indexer.py", ppid=9, unit="runner[9]", cores=0.9, delay=0.1)
            for n in range(2)]
    assert told(window(*repeat(3, [*rows, VICTIM], **PSI))) == (
        "python3 indexer.py (2 processes) used 1.8 of 2 cores for 15s from 11:06:40 (92 % of what was used); others waited "
        "3.0s for a CPU; player (pid 50) waited 3.0s; /usr/bin/python3")


def test_many_that_wait_at_once_waited_all_together() -> None:
    """More seconds than the time has."""
    rows = [process(7, "loop", cores=1.9, delay=0.1, ppid=1), {**VICTIM, "delay": 3.0}]
    assert "; others waited 45s all together for a CPU; " in told(window(*repeat(3, rows, **PSI)))


def test_a_name_that_was_given_at_the_start_is_no_name() -> None:
    """`exec -a '[kswapd0]' sh loop.sh`: the program is what the kernel says."""
    row = process(7, "sh", name="[kswapd0]", cmdline="[kswapd0] loop.sh", cores=1.0, ppid=1)
    assert told(window(*repeat(3, [row]))).startswith("sh (it calls itself [kswapd0]) (pid 7) used 1.0 of 2 cores")
    row = process(7, "GeckoMain", name="firefox", cmdline="/usr/lib/firefox", cores=1.0, ppid=1)
    assert told(window(*repeat(3, [row]))).startswith("firefox (it calls itself GeckoMain) (pid 7) used")


def test_a_group_that_holds_more_than_its_limit_swaps() -> None:
    """The part is that of what the group held."""
    rows = [process(7, "importer", memory_bytes=450 * MIB, pageins=9000, cgroup="/m", stuck=0.5, ppid=1),
            process(8, "lookup", memory_bytes=150 * MIB, pageins=9000, cgroup="/m", stuck=0.5, ppid=1)]
    limit = {"ts": START + 5, "boot_id": BOOT, "kind": "memory", "cgroup": "/m", "limit": 300 * MIB}
    assert told(window(*repeat(2, rows, pressure_memory_full_ms_per_s=500.0), limits=[limit])).startswith(
        "importer (pid 7) held 450 MiB of memory (75 % of what its group held); at the limit of its control group (300 MiB) /m")


def test_a_quota() -> None:
    """S9, F-F."""
    rows = [process(7, "encoder", cores=0.2, delay=0.8, cgroup="/q", ppid=1)]
    limits = [{"ts": START + 5 * n + 5, "boot_id": BOOT, "kind": "cpu_quota", "cgroup": "/q", "name": "encoder",
               "limit": 0.2, "held_back_s": 4.0} for n in range(3)]
    assert told(window(*repeat(3, rows, pressure_cpu_some_ms_per_s=800.0), limits=limits)) == (
        "encoder (pid 7) was held back by its own CPU quota (0.20 cores) for 12s; no other process is to blame; "
        "/usr/bin/encoder")


def test_a_memory_limit() -> None:
    """S10."""
    rows = [process(7, "modeler", cores=0.3, pageins=20_000, memory_bytes=150 * MIB, cgroup="/m", stuck=0.7, ppid=1)]
    limit = {"ts": START + 5, "boot_id": BOOT, "kind": "memory", "cgroup": "/m", "limit": 150 * MIB}
    assert told(window(*repeat(2, rows, pressure_memory_full_ms_per_s=500.0, refaults=99_000), limits=[limit])) == (
        "modeler (pid 7) held 150 MiB of memory (100 % of the limit), at the limit of its control group (150 MiB) /m, "
        "tasks waited for memory 50 % of the time; no other process is to blame; /usr/bin/modeler")
    kills = {**limit, "kind": "oom_kill", "name": "resizer", "cgroup": "/r", "limit": 500 * MIB, "count": 6}
    assert told(window(*repeat(2, []), limits=[kills])) == (
        "resizer (1 process) was killed by the kernel 6 times for want of memory at the limit of its control group /r "
        "(500 MiB)")
    turns = [{**kills, "pid": 30 + n, "start_ticks": 1030 + n, "name": "python", "count": 1} for n in range(3)]
    rows = [process(7, "sh", name="sh keeper.sh", cmdline="sh keeper.sh", cores=0.01, memory_bytes=MIB, ppid=1), *(
        process(30 + n, "python", cmdline="", cores=0.1, memory_bytes=500 * MIB, ppid=7) for n in range(3))]
    assert told(window(*repeat(2, rows), limits=turns)) == (
        "the kernel killed processes of sh keeper.sh (pid 7) 3 times for want of memory at the limit of their control "
        "group /r (500 MiB); sh keeper.sh")


def further(kind: str, *waiters: int, **fields: Any) -> dict[str, Any]:
    """A wait of six seconds."""
    return {"ts": START + 9, "boot_id": BOOT, "kind": kind, "since_s": 5.8, "certainty": "proven", **fields,
            "waiters": [{"pid": pid, "start_ticks": 1000 + pid, "name": f"p{pid}"} for pid in waiters]}


HELD = {"holder_pid": 7, "holder_start_ticks": 1007, "holder": "p7"}


@pytest.mark.parametrize(("wait", "words"), [
    (further("frozen", 8, 9, object="/g"), "p8, p9 did not run for 5.8s: its control group /g is frozen; no process is to "
     "blame"),
    (further("traced", 8, **HELD), "p8 is stopped by its tracer p7 (pid 7) for 5.8s"),
    (further("traced", 8, object="system calls", **HELD), "p8 was slowed down for 5.8s by its tracer p7 (pid 7), which "
     "stopped it at its system calls"),
    (further("stopped", 8, **HELD), "p8 waited 5.8s for p7 (pid 7), which is stopped (SIGSTOP)"),
    (further("mutex", 7, **HELD), "threads of p7 (pid 7) waited for each other for 5.8s: many of them want one lock in its "
     "memory")])
def test_further_waits(wait: dict[str, Any], words: str) -> None:
    """A word for each."""
    assert told(window(*repeat(3, []), waits=[wait])) == words


@pytest.mark.parametrize(("limit", "words"), [
    ({"kind": "affinity", "limit": 1.0, "held_back_s": 0.9}, "server (pid 7) was held back by its own CPU affinity, with "
     "other CPUs idle (1 core) for 12s"),
    ({"kind": "rlimit", "limit": 64.0}, "server (pid 7) has as many files open as it may (64)"),
    ({"kind": "tasks", "cgroup": "/g", "limit": 20.0, "count": 9}, "server (pid 7) could start no further process: its "
     "control group has as many as it may (20)"),
    ({"kind": "disk_full", "object": "/mnt\x1b[2J"}, "server (pid 7) writes to /mnt\\x1b[2J, which is full"),
    ({"kind": "io", "cgroup": "/g", "object": "requests", "limit": 100.0, "use": 99.0},
     "server (pid 7) was held back by the I/O limit of its control group (100 requests/s)")])
def test_further_limits(limit: dict[str, Any], words: str) -> None:
    """A word for each, and no process is to blame."""
    rows = [process(7, "server", cores=0.9, ppid=1)]
    limits = [{"ts": START + n, "boot_id": BOOT, "pid": 7, "start_ticks": 1007, "name": "server", **limit}
              for n in range(1, 14)]
    assert told(window(*repeat(3, rows), limits=limits)) == f"{words}; no other process is to blame; /usr/bin/server"


def test_pauses_of_rh_pipe_alone() -> None:
    """S15, F-W: a quota of its own, and a frozen control group: no process is to blame."""
    pause = {"start": START + 5, "end": START + 7, "duration_s": 2.0, "culprits": []}
    assert told(window(*repeat(3, []), pauses=[{**pause, "cause": "throttled", "evidence": {}}])) == (
        "rh-pipe itself was held back by a CPU quota for 2.0s; no process is to blame")
    frozen = {**pause, "cause": "unknown", "evidence": {"self_run_delay_ms": 3.0, "cpus": 2, "cpu_counted_cores": 2.0}}
    words = told(window(*repeat(3, []), pauses=[frozen]))
    assert words.startswith("only rh-pipe did not run, for 2.0s at ") and words.endswith("no process is to blame")


def test_a_storm_says_how_many() -> None:
    """How many children there were is what to look at."""
    rows = [process(7, "make", cores=0.02, child_cores=1.5, children=300, ppid=1)]
    assert "1.5 of them by 600 short-lived children" in told(window(*repeat(2, rows)))


def test_a_lock_whose_holder_is_stopped() -> None:
    """S11."""
    wait = {"ts": START + 9, "boot_id": BOOT, "kind": "file_lock", "object": "/tmp/state", "since_s": 5.8,
            "holder_pid": 7, "holder_start_ticks": 1007, "holder": "nightly_lock.py", "holder_state": "stopped",
            "waiters": [{"pid": 20 + n, "start_ticks": 1, "name": "flock"} for n in range(6)]}
    assert told(window(*repeat(3, []), waits=[wait])) == (
        "6 flock waited 5.8s for a file lock on /tmp/state, held by nightly_lock.py (pid 7), which is stopped (SIGSTOP)")


def test_a_holder_without_a_name() -> None:
    """Its pid is all that is known."""
    wait = {"ts": START + 9, "boot_id": BOOT, "kind": "file_lock", "since_s": 5.8, "holder_pid": 7, "waiters": [
        {"pid": 20, "start_ticks": 1, "name": "flock"}]}
    assert told(window(*repeat(3, []), waits=[wait])) == "flock waited 5.8s for a file lock, held by pid 7"


def test_storage() -> None:
    """F-B: a process that cannot be read is not accused, and the reason is printed; F-O: a polite writer is use."""
    rows = [process(7, "python3", cores=0.1, disk_bytes=2 * MIB, ppid=1), process(8, "w", cores=0.0, stuck=0.5, ppid=1)]
    io = {"pressure_io_full_ms_per_s": 800.0, "pressure_io_some_ms_per_s": 900.0}
    assert told(window(*repeat(3, rows, **io, device_bytes=200 * MIB, uninterruptible=2, unreadable=80))) == (
        "all tasks waited for storage 80 % of the time; w (pid 8) waited 7.5s; the I/O of 80 processes cannot be read "
        "without root")
    assert told(window(*repeat(3, rows, pressure_io_full_ms_per_s=4.0, pressure_io_some_ms_per_s=700.0, uninterruptible=2,
                               device_bytes=200 * MIB, unreadable=80))).startswith("some task waited for storage 70 %")
    many = {**io, "device_bytes": 200 * MIB, "uninterruptible": 2, "unreadable": 80, "device_requests_s": 5.0}
    assert told(window(*repeat(3, rows, **{**many, "device_requests_s": 50.0}))).endswith(
        "without root, and no process that waited accounts for most requests")
    busy = [process(9, "dd", cores=0.2, stuck=0.8, ppid=1, cmdline="dd if=/dev/zero"), *rows[1:]]
    assert told(window(*repeat(3, busy, **many))) == (
        "dd (pid 9) probably used the disks most: it waited 12s of the 15s that all requests took; its I/O cannot be read "
        "without root; all tasks waited for storage 80 % of the time; w (pid 8) waited 7.5s; dd if=/dev/zero")
    alone = [process(7, "dd", cores=0.02, disk_bytes=10 * MIB, stuck=0.9, ppid=1)]
    assert told(window(*repeat(3, alone, **io, uninterruptible=1))) == (
        "dd (pid 7) moved 30.0 MiB for 15s from 11:06:40 (2.0 MiB/s, 100 % of what was used); /usr/bin/dd")


def test_memory_is_never_more_than_all() -> None:
    """F-I."""
    rows = [process(10 + n, "postgres", memory_bytes=6 * GIB, memory_growth_bytes=0, ppid=9, unit="postgres[9]")
            for n in range(11)]
    words = told(window(*repeat(2, rows, pressure_memory_full_ms_per_s=500.0, memory_available_bytes=GIB // 4)))
    assert "(100 % of all memory)" in words or "no process alone" in words


def test_what_chose_its_name_itself_is_named_by_its_script() -> None:
    """S: a script that calls itself like a kernel thread."""
    row = process(7, "kworker/u8:2", name="rename_me.py", cmdline="python3 rename_me.py", cores=1.0, ppid=1)
    assert told(window(*repeat(3, [row]))).startswith("rename_me.py (it calls itself kworker/u8:2) (pid 7) used 1.0 of 2")


def test_what_was_unclear_or_bad_english() -> None:
    """N41: plural, nothing of 0.0 s."""
    assert cleared_words("pause", {"late_s": 0.01}, {}) == "no tick was delayed"
    assert cleared_words("cpu", {"cpu_busy_cores": 0.5, "cpus": 2}, {}) == "0.5 of 2 cores busy"
    assert "1 cores" not in told(window(*(one(n, [process(7, "loop", cores=0.9)], cpus=1) for n in range(3))))


def test_periods() -> None:
    """N25: no two times of day that look the same."""
    assert period_words(NOW - 86400, NOW, NOW) == "in the last 24 h"
    assert period_words(NOW - 7 * 86400, NOW, NOW) == "in the last 7 days"
    assert period_words(NOW - 90000, NOW - 100, NOW) == "from 2026-11-17 10:16:40 to 2026-11-18 11:15:00"


def test_the_schema_names_every_field_of_who_is_behind_a_cause() -> None:
    """For a family of processes, and for a user of the disks that is inferred."""
    doc = next(field.doc for field in RECORDS["report_why"] if field.name == "causes")
    rows = [process(10 + n, "spin", ppid=9, cores=0.9, child_cores=0.1, unit="spin[9]", user="a", cgroup="/a", max_score=60)
            for n in range(2)]
    io = {"pressure_io_full_ms_per_s": 800.0, "device_requests_s": 5.0, "uninterruptible": 2, "unreadable": 80}
    for judged in (window(*repeat(3, rows)), window(*repeat(3, [process(9, "dd", cores=0.2, stuck=0.8)], **io))):
        first = verdict(judged).first
        assert first is not None and first.who is not None
        assert not {name for name in taker_fields(first, first.who) if not re.search(rf"\b{name}\b", doc)}
    assert "waited_s" in taker_fields(first, first.who)


def test_fields_name_one_identity() -> None:
    """N2, N3: pid, start and command line of the record are those of the amount."""
    rows = [process(7, "sh", cmdline="sh a.sh", cores=1.0, unit="a[7]"), process(8, "sh", cmdline="sh b.sh", cores=0.4)]
    first = verdict(window(*repeat(2, rows))).first
    assert first is not None
    fields = cause_fields(first, NOW)
    assert (fields["pid"], fields["start_ticks"], fields["cmdline"], fields["amount"]) == (7, 1007, "sh a.sh", 1.0)
