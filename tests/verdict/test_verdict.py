"""Real slowdowns as windows of slices: who is named, for what, who waited, and who is not blamed."""

from __future__ import annotations

from typing import Any

import pytest

from rogue_hunter.report.verdict_text import cause_words
from rogue_hunter.verdict.engine import culprits, stands_out, verdict
from rogue_hunter.verdict.model import Cause, Slice, Verdict, Window
from rogue_hunter.verdict.shortage import judge
from tests.tools.windows import BOOT, GIB, MIB, START, one, process, repeat, window


def first(found: Verdict) -> Cause:
    """The first cause."""
    assert found.first is not None
    return found.first


def named(found: Verdict) -> tuple[str, str, str, int | None]:
    """State, cause, name and pid of the first cause."""
    cause = first(found)
    who = cause.who
    return found.state, cause.cause, who.name if who else "", who.key[1] if who and who.key else None


SHELL = process(900, "bash", cmdline="-bash", ppid=800, cores=0.0)
VICTIM = process(50, "player", cores=0.15, delay=0.2, unit="player[50]")
PSI = {"pressure_cpu_some_ms_per_s": 900.0}
IO = {"pressure_io_some_ms_per_s": 900.0, "pressure_io_full_ms_per_s": 800.0, "device_wait_ms": 12.0}


# -- CPU ---------------------------------------------------------------------------------------------------------------


def test_an_endless_loop_on_an_idle_machine_is_use_and_stands_out() -> None:
    """Nothing waited, so it is no shortage; it is named first all the same, and the watch reports it."""
    found = verdict(window(*repeat(6, [process(7, "sh", name="loop.sh", cores=1.0, rogue_s=5.0), SHELL])))
    assert named(found) == ("use", "cpu", "loop.sh", 7)
    assert stands_out(first(found))
    assert first(found).who is not None
    assert first(found).who.rate == pytest.approx(1.0)  # type: ignore[union-attr]


def test_four_workers_on_two_cores_and_a_victim() -> None:
    """S12: the four are one taker, named by the program that started them; the player is the victim."""
    workers = [process(10 + n, "stress-ng-cpu", ppid=9, cores=0.45, delay=0.5, unit="stress-ng[9]") for n in range(4)]
    found = verdict(window(*repeat(3, [*workers, VICTIM], **PSI)))
    cause = first(found)
    assert named(found)[:3] == ("found", "cpu", "stress-ng")
    assert cause.who is not None and cause.who.processes == 4 and cause.who.key is None
    assert cause.who.amount == pytest.approx(4 * 0.45 * 15) and {m.key[1] for m in cause.who.members} == {10, 11, 12, 13}
    assert [v.name for v in cause.victims] == ["player"]


def test_a_stall_of_seconds_is_dated_and_not_averaged() -> None:
    """S6: 6.5 s of four loops in an hour: 2.0 of 2 cores for 6.5 s, from the second at which it began."""
    quiet = [process(3, "sshd", cores=0.01)]

    def loops(cores: float) -> list[dict[str, Any]]:
        return [process(10 + n, "loop", ppid=9, unit="loop[9]", cores=cores / 4, delay=cores / 8) for n in range(4)]

    slices = [one(n, quiet) for n in range(720)]
    slices[300] = one(300, [*loops(0.5), VICTIM], cpu_busy_cores_max=2.0, **PSI)
    slices[301] = one(301, [*loops(1.95), VICTIM], cpu_busy_cores_max=2.0, **PSI)
    slices[302] = one(302, [*loops(0.1), VICTIM], cpu_busy_cores_max=2.0, **PSI)
    who = first(verdict(window(*slices))).who
    assert who is not None
    assert who.seconds == pytest.approx(6.5, abs=0.6) and who.rate == pytest.approx(2.0, abs=0.2)
    assert START + 1500 <= who.start <= START + 1505


def test_two_processes_of_one_name_are_two() -> None:
    """N2, N3: pid, amount and command line are those of one identity."""
    loop = process(7, "sh", ppid=900, cmdline="sh a.sh", cores=1.0, unit="sh[7]")
    other = process(8, "sh", ppid=900, cmdline="sh rotate_logs.sh", cores=0.5, unit="sh[8]")
    found = verdict(window(*repeat(4, [loop, other, SHELL])))
    who = first(found).who
    assert who is not None and (who.key, who.cmdline) == ((BOOT, 7, 1007), "sh a.sh")
    assert who.amount == pytest.approx(20.0) and who.processes == 1
    assert [c.who.key[1] for c in found.causes if c.who and c.who.key] == [7, 8]


def test_interpreters_are_named_by_their_script() -> None:
    """N22: python3 is not a name."""
    rows = [process(7, "python3", name="report_builder.py", cores=0.9, ppid=1, unit="a[7]"),
            process(8, "python3", name="backup.py", cores=0.3, ppid=1, unit="b[8]")]
    found = verdict(window(*repeat(3, rows)))
    assert [c.who.name for c in found.causes if c.who] == ["report_builder.py", "backup.py"]


def test_a_storm_belongs_to_the_process_that_spawns() -> None:
    """N5: use and its words include children that ended; a shell with 0 cores of its own used 1.5."""
    rows = [process(7, "bash", name="deploy.sh", cmdline="bash deploy.sh", cores=0.02, child_cores=1.5, children=900),
            process(8, "indexer", cores=0.4)]
    who = first(verdict(window(*repeat(4, rows, started=900)))).who
    assert who is not None and who.key == (BOOT, 7, 1007)
    assert who.amount == pytest.approx(1.52 * 20) and who.children == pytest.approx(1.5 * 20)


def test_a_build_whose_own_jobs_queue_is_use() -> None:
    """Its compilers lived for milliseconds: the machine's total alone has what they waited."""
    make = process(7, "make", cores=0.05, child_cores=1.6, unit="make[7]", children=300)
    unit = {"unit": "make[7]", "name": "cc1", "pid": 7, "start_ticks": 1007, "processes": 4, "started": 300,
            "cpu_seconds": 0.3, "children_cpu_seconds": 8.0}
    quiet = process(50, "player", cores=0.15, delay=0.01, unit="player[50]")
    machine = {**PSI, "run_delay_ms_per_s": 800.0, "cpu_busy_cores": 1.85}
    assert named(verdict(window(*repeat(3, [make, quiet], groups=[unit], **machine))))[:3] == ("use", "cpu", "make")
    found = verdict(window(*repeat(3, [make, VICTIM], groups=[unit], **{**machine, "run_delay_ms_per_s": 1000.0})))
    assert found.state == "found" and [v.name for v in first(found).victims] == ["player"]


def test_what_uses_all_cpus_is_not_held_back() -> None:
    """A moment in which it waited while CPUs were idle does not make a quota of it."""
    def held(*cores: float) -> bool:
        slices = [one(n, [process(7, "cron", cores=part)], pressure_cpu_some_ms_per_s=300.0 if part < 1 else 5.0,
                      cpu_busy_cores_max=part) for n, part in enumerate(cores)]
        return "waiting_while_idle" in first(verdict(window(*slices))).numbers

    assert held(0.5, 0.5) and not held(1.9, 0.5, 1.9, 1.9, 1.9)


def test_a_process_that_gives_way_is_no_victim_of_what_it_gives_way_to() -> None:
    """An encoder at nice 19 waits for an unhurried compilation; at nice 0 it is held up."""
    def state(nice: int) -> str:
        rows = [process(7, "cc1plus", cores=1.2), process(8, "encoder", cores=0.7, delay=0.6, nice=nice)]
        return verdict(window(*repeat(3, rows, **{**PSI, "run_delay_ms_per_s": 640.0}))).state

    assert (state(19), state(0)) == ("use", "found")


def test_a_process_of_the_idle_class_is_no_victim_either() -> None:
    """chrt --idle: it runs while no other process wants to."""
    rows = [process(7, "encoder", cores=1.9), process(8, "crunch", cores=0.1, delay=0.9, policy="idle")]
    assert verdict(window(*repeat(3, rows, **PSI))).state == "use"
    cause = first(verdict(window(*repeat(3, [*rows, VICTIM], **PSI))))
    assert (cause.kind, [victim.name for victim in cause.victims]) == ("shortage", ["player"])


@pytest.mark.parametrize(("receiver", "named_"), [(0.3, "ksoftirqd/0"), (0.9, "server")])
def test_the_receiver_of_a_flood_from_outside_is_not_to_blame(receiver: float, named_: str) -> None:
    """Packets of another machine: most of the CPU goes to the thread that handles interrupts."""
    rows = [process(14, "ksoftirqd/0", ppid=2, cmdline="", cores=0.95), process(7, "server", cores=receiver, ppid=1), VICTIM]
    assert named(verdict(window(*repeat(3, rows, **PSI))))[:3] == ("found", "cpu", named_)


def test_a_program_on_other_cpus_is_not_to_blame() -> None:
    """A large job fills half of the CPUs and never waits; two programs that share another CPU do."""
    rows = [process(7, "simulate", cores=16.0, delay=0.02, ppid=1)]
    rows += [process(50 + n, f"bound{n}", cores=0.5, delay=0.5, ppid=1) for n in range(2)]
    limit = {"ts": START + 3, "boot_id": BOOT, "kind": "affinity", "pid": 50, "start_ticks": 1050, "limit": 1}
    cause = first(verdict(window(*repeat(3, rows, **PSI, cpus=32), limits=[limit])))
    assert (cause.kind, cause.cause, cause.who, cause.takers) == ("shortage", "cpu", None, ())
    assert {victim.name for victim in cause.victims} == {"bound0", "bound1"}


def test_a_make_with_many_compilers_is_one_taker() -> None:
    """Make, its shells and its compilers: the unit, named by its root."""
    compilers = [process(100 + n, "cc1", ppid=60 + n, cores=0.05, unit="make[7]") for n in range(20)]
    make = process(7, "make", cores=0.05, child_cores=0.7, unit="make[7]")
    unit = {"unit": "make[7]", "name": "cc1", "pid": 7, "start_ticks": 1007, "processes": 24, "started": 158,
            "cpu_seconds": 5.3, "children_cpu_seconds": 3.5}
    slices = [one(n, [*compilers, make, VICTIM], [unit], **PSI) for n in range(2)]
    cause = first(verdict(window(*slices)))
    assert cause.who is not None
    assert (cause.who.name, cause.who.kind, cause.who.root) == ("make", "unit", (BOOT, 7, 1007))
    assert cause.who.amount == pytest.approx(17.6) and cause.who.started == 316


def test_a_parent_that_starts_many_short_programs() -> None:
    """A cron-like parent and 30 gzips at once: the parent, not gzip."""
    rows = [process(100 + n, "gzip", ppid=7, cores=0.03, delay=0.2) for n in range(30)]
    parent = process(7, "python3", name="cronlike.py", ppid=1, cores=0.01, child_cores=0.7)
    found = verdict(window(*repeat(3, [*rows, parent, VICTIM], **PSI)))
    assert named(found)[1:3] == ("cpu", "cronlike.py")


@pytest.mark.parametrize("parent", [True, False])
def test_thirty_names_below_one_script(parent: bool) -> None:
    """S12: the sum is ranked, whether or not the script itself is among the rows."""
    rows = [process(100 + n, f"job_{n}", ppid=7, cores=0.06, delay=0.3, unit=f"job_{n}[{100 + n}]") for n in range(30)]
    script = [process(7, "bash", name="fanout.sh", cmdline="bash fanout.sh", ppid=1, cores=0.0)] * parent
    cause = first(verdict(window(*repeat(3, [*rows, *script, VICTIM], **PSI))))
    assert cause.who is not None
    assert cause.who.root is not None and cause.who.root[1] == 7
    assert cause.who.amount == pytest.approx(30 * 0.06 * 15) and "player" in [v.name for v in cause.victims]
    assert not parent or cause.who.name == "fanout.sh"


def test_programs_of_one_prompt_are_strangers() -> None:
    """Two programs started from one interactive shell are never added up."""
    rows = [process(7, "python3", name="a.py", cores=0.5, unit="python3[7]"),
            process(8, "python3", name="b.py", cores=0.45, unit="python3[8]"), SHELL]
    assert named(verdict(window(*repeat(3, rows))))[2:] == ("a.py", 7)


def test_a_real_time_process_on_one_cpu() -> None:
    """S9: half of the machine is idle, and a process bound to the other half waits."""
    rows = [process(7, "loop", policy="fifo", cores=0.95, ppid=1), process(50, "bound", cores=0.03, delay=0.9, ppid=1)]
    cause = first(verdict(window(*repeat(3, rows, **PSI))))
    assert (cause.cause, cause.who.name if cause.who else "", cause.details["while_idle"]) == ("cpu", "loop", "realtime")
    assert [v.name for v in cause.victims] == ["bound"]


def test_spinners_bound_to_one_cpu() -> None:
    """Half idle, and the cause is an affinity."""
    rows = [process(10 + n, "spin", ppid=9, cores=0.2, delay=0.8, unit="spin[9]") for n in range(4)]
    rows.append(process(50, "bound", cores=0.18, delay=0.5, ppid=1, unit="bound[50]"))
    limit = {"ts": START + 3, "boot_id": BOOT, "kind": "affinity", "pid": 50, "start_ticks": 1050, "limit": 1}
    cause = first(verdict(window(*repeat(3, rows, **PSI), limits=[limit])))
    assert (cause.who.name if cause.who else "", cause.details["while_idle"]) == ("spin", "affinity")


@pytest.mark.parametrize("stall", [0.7, 0.95])
def test_a_short_burst_on_all_cpus(stall: float) -> None:
    """S15: real-time loops for 1.5 s. The beat came late; the loops lived for two ticks."""
    rows = [process(7, "rtstorm", cpu_seconds=2.7, policy="fifo"), process(8, "bash", cpu_seconds=0.1)]
    found = verdict(window(one(0, [SHELL]), one(1, rows, late_s=stall, self_run_delay_ms=900 * stall,
                                               cpu_busy_cores_max=2.0), one(2, [SHELL])))
    assert named(found) == ("found", "cpu", "rtstorm", 7)


def test_a_real_time_burst_beside_a_full_machine() -> None:
    """The others use more, but they do not keep the beat from running for a second."""
    others = [process(20 + n, f"job{n}", ppid=1, cores=0.28, delay=1.5) for n in range(5)]
    rows = [process(7 + n, "rtstorm", policy="fifo", ppid=5, cpu_seconds=1.4) for n in range(2)]
    busy = {**PSI, "cpu_busy_cores_max": 2.0}
    found = verdict(window(one(0, others, **busy), one(1, [*others, *rows], late_s=0.95, self_run_delay_ms=900.0, **busy),
                           one(2, others, **busy)))
    assert named(found)[:3] == ("found", "cpu", "rtstorm")


def test_a_real_time_process_that_uses_a_little_is_not_to_blame() -> None:
    """A control loop beside eight programs that fill the machine: none of all these is the cause alone."""
    rows = [process(7, "control", policy="fifo", cores=0.15, ppid=1)]
    rows += [process(20 + n, f"job{n}", ppid=1, cores=0.2 + n / 1000, delay=0.6) for n in range(8)]
    cause = first(verdict(window(*repeat(3, rows, **PSI))))
    assert (cause.kind, cause.cause) == ("shortage", "cpu") and (cause.who is None or cause.who.name != "control")


def test_much_pressure_without_anybody_late_is_use() -> None:
    """Forks: 88 % PSI, and no process waited for more than 2 ms."""
    rows = [process(7, "stress-ng-fork", cores=1.6, delay=0.05), process(50, "player", cores=0.2, delay=0.01)]
    found = verdict(window(*repeat(3, rows, pressure_cpu_some_ms_per_s=880.0)))
    assert named(found)[:3] == ("use", "cpu", "stress-ng-fork") and not stands_out(first(found))


def test_a_nice_process_that_delays_none_is_not_a_cause() -> None:
    """It gives way to all others."""
    found = verdict(window(*repeat(6, [process(7, "tar", cores=1.0, nice=19, rogue_s=5.0)])))
    assert named(found)[:3] == ("use", "cpu", "tar") and not stands_out(first(found))


# -- limits and waits --------------------------------------------------------------------------------------------------


def test_a_quota_blames_no_other_process() -> None:
    """S9, F-F: a loop in a group with 20 % of a CPU: much pressure, idle CPUs, and run delay of its own."""
    rows = [process(7, "encoder", cores=0.2, delay=0.8, cgroup="/q", ppid=1),
            process(8, "leaky", cores=0.1, ppid=1)]
    limit = {"boot_id": BOOT, "kind": "cpu_quota", "cgroup": "/q", "name": "encoder", "limit": 0.2, "use": 0.2,
             "held_back_s": 4.0}
    limits = [{**limit, "ts": START + 5 * n + 5} for n in range(3)]
    pause = {"start": START + 2, "end": START + 4, "duration_s": 2.0, "cause": "cpu", "culprits": []}
    throttled = {"late_s": 2.0, "self_run_delay_ms": 2000.0, "self_throttled_ms": 1900.0}
    found = verdict(window(*repeat(3, rows, pressure_cpu_some_ms_per_s=800.0), limits=limits))
    assert named(found) == ("found", "limit", "encoder", 7)
    assert first(found).kind == "limit" and len(found.causes) == 1
    own = verdict(window(*repeat(1, rows, **throttled), pauses=[pause]))
    assert [c.cause for c in own.causes] == ["limit"] and first(own).who is None


def test_a_quota_of_a_group_above_is_one() -> None:
    """A pod with a quota, whose processes are in the groups of its containers: what they wait is their own limit, and the
    program beside it is not to blame."""
    rows = [process(7, "encoder", cores=0.2, delay=0.8, cgroup="/pods/a/main", ppid=1),
            process(9, "sidecar", cores=0.1, delay=0.6, cgroup="/pods/a/side", ppid=1),
            process(8, "database", cores=0.7, ppid=1)]
    limits = [{"ts": START + 5 * n + 5, "boot_id": BOOT, "kind": "cpu_quota", "cgroup": "/pods/a", "limit": 0.3,
               "use": 0.3, "held_back_s": 4.0} for n in range(3)]
    found = verdict(window(*repeat(3, rows, pressure_cpu_some_ms_per_s=800.0), limits=limits))
    assert [cause.kind for cause in found.causes if cause.kind != "use"] == ["limit"]
    assert named(found)[1:3] == ("limit", "encoder")


def test_a_limit_of_traffic() -> None:
    """dd in a group that may write 4 MB/s: its own limit."""
    rows = [process(7, "dd", cores=0.02, disk_bytes=20_000_000, cgroup="/io", stuck=0.9, ppid=900),
            process(900, "bash", cores=0.0, disk_bytes=26_000_000, ppid=1, cmdline="bash -c dd")]
    limit = {"ts": START + 5, "boot_id": BOOT, "kind": "io", "cgroup": "/io", "limit": 4e6, "use": 4e6}
    found = verdict(window(*repeat(3, rows, **IO), limits=[limit, {**limit, "ts": START + 10}]))
    assert named(found) == ("found", "limit", "dd", 7) and first(found).resource == "disk"


@pytest.mark.parametrize(("kind", "state"), [("file_lock", "sleeping"), ("stopped", "stopped")])
def test_the_holder_of_a_lock_is_named_and_not_who_waits(kind: str, state: str) -> None:
    """S11."""
    wait = {"ts": START + 9, "boot_id": BOOT, "kind": kind, "object": "/tmp/state", "since_s": 5.8, "holder_pid": 7,
            "holder_start_ticks": 1007, "holder": "nightly_lock.py", "holder_state": state, "certainty": "proven",
            "waiters": [{"pid": 20 + n, "start_ticks": 1, "name": "flock"} for n in range(6)]}
    found = verdict(window(*repeat(3, [process(3, "sshd", cores=0.01)]), waits=[wait]))
    cause = first(found)
    assert named(found) == ("found", "wait", "nightly_lock.py", 7)
    assert {v.name for v in cause.victims} == {"flock"} and cause.details["holder_state"] == state
    assert cause.numbers["waiters"] == 6


@pytest.mark.parametrize("lasting", [{"standing": True, "since_s": 30.0}, {"since_s": 90_000.0}])
def test_a_wait_that_was_always_there_explains_nothing(lasting: dict[str, Any]) -> None:
    """A daemon that queues for a lock for good, a container that is paused: a loop on the machine comes first, and an
    idle machine is in order."""
    wait = {"ts": START + 9, "boot_id": BOOT, "kind": "file_lock", "object": "/run/x", "holder_pid": 8,
            "holder_start_ticks": 1008, "holder": "keeper", "certainty": "proven",
            "waiters": [{"pid": 20, "start_ticks": 1, "name": "flock"}], **lasting}
    loop = process(7, "sh", name="loop.sh", cores=1.0, rogue_s=5.0)
    assert named(verdict(window(*repeat(6, [loop, SHELL]), waits=[wait]))) == ("use", "cpu", "loop.sh", 7)
    hogs = [process(10 + n, "hog", ppid=9, cores=0.45, delay=0.5, unit="hog[9]") for n in range(4)]
    assert named(verdict(window(*repeat(3, [*hogs, VICTIM], **PSI), waits=[wait])))[:3] == ("found", "cpu", "hog")
    idle = verdict(window(*repeat(3, [SHELL]), waits=[wait]))
    assert idle.state == "nothing" and [one.kind for one in idle.causes] == ["wait"]


def test_a_stopped_job_without_waiters_is_no_cause() -> None:
    """Ctrl-Z at a prompt."""
    wait = {"ts": START + 9, "boot_id": BOOT, "kind": "stopped", "since_s": 400.0, "holder_pid": 7,
            "holder_start_ticks": 1, "holder": "vim", "waiters": []}
    assert verdict(window(*repeat(3, [SHELL]), waits=[wait])).state == "nothing"


def test_a_lock_holder_that_gets_no_cpu_leads_to_who_has_it() -> None:
    """Priority inversion: a real-time loop keeps the holder of a lock off its CPU."""
    rows = [process(7, "loop", policy="fifo", cores=0.95, ppid=1), process(8, "holder", cores=0.02, delay=0.9, ppid=1)]
    wait = {"ts": START + 14, "boot_id": BOOT, "kind": "file_lock", "since_s": 12.0, "holder_pid": 8,
            "holder_start_ticks": 1008, "holder": "holder", "waiters": [{"pid": 9, "start_ticks": 1, "name": "w"}]}
    found = verdict(window(*repeat(3, rows, **PSI), waits=[wait]))
    assert named(found)[1:3] == ("cpu", "loop") and [c.kind for c in found.causes] == ["shortage", "wait"]


# -- memory ------------------------------------------------------------------------------------------------------------

PAGING = {"pressure_memory_some_ms_per_s": 700.0, "pressure_memory_full_ms_per_s": 500.0,
          "pressure_io_some_ms_per_s": 800.0, "pressure_io_full_ms_per_s": 700.0, "refaults": 150_000,
          "device_bytes": 600 * MIB, "uninterruptible": 2}


def test_thrashing_at_the_limit_of_its_own_group() -> None:
    """S10: memory is free, and the process reads its pages again and again."""
    rows = [process(7, "modeler", cores=0.3, pageins=20_000, disk_bytes=600 * MIB, memory_bytes=150 * MIB, cgroup="/m",
                    stuck=0.7, ppid=1), process(8, "python3", cores=0.1, disk_bytes=26 * MIB, cgroup="/", ppid=1)]
    limit = {"ts": START + 5, "boot_id": BOOT, "kind": "memory", "cgroup": "/m", "limit": 150 * MIB, "use": 150 * MIB}
    found = verdict(window(*repeat(3, rows, **PAGING), limits=[limit]))
    cause = first(found)
    assert named(found) == ("found", "memory", "modeler", 7)
    assert (cause.kind, cause.details["cgroup"], cause.numbers["limit"]) == ("limit", "/m", 150 * MIB)


def test_who_pushes_the_cache_of_another_out() -> None:
    """S10: the one that took the memory of the group, not the reader that has to read again."""
    rows = [process(7, "taker", cores=0.1, memory_bytes=800 * MIB, memory_growth_bytes=100 * MIB, cgroup="/e", ppid=1),
            process(8, "reader", cores=0.3, pageins=9_000, disk_bytes=500 * MIB, memory_bytes=20 * MIB, cgroup="/e",
                    stuck=0.6, ppid=1)]
    limit = {"ts": START + 5, "boot_id": BOOT, "kind": "memory", "cgroup": "/e", "limit": GIB, "use": GIB}
    cause = first(verdict(window(*repeat(3, rows, **PAGING), limits=[limit])))
    assert (cause.kind, cause.who.name if cause.who else "") == ("shortage", "taker")
    assert [v.name for v in cause.victims] == ["reader"]


def test_without_a_limit_the_one_that_holds_most_of_a_session_is_not_to_blame() -> None:
    """A program reads more than the memory can cache, and memory is free: it pages, and not the browser beside it, and no
    limit of the session is claimed that is not known."""
    session = "/user.slice/user-1000.slice/session-3.scope"
    rows = [process(7, "train", cores=0.3, pageins=20_000, disk_bytes=600 * MIB, memory_bytes=300 * MIB, cgroup=session,
                    stuck=0.7, ppid=1),
            process(8, "chrome", cores=0.1, memory_bytes=3 * GIB, memory_growth_bytes=0, cgroup=session, ppid=1)]
    cause = first(verdict(window(*repeat(3, rows, **PAGING))))
    assert (cause.cause, cause.kind, cause.who.name if cause.who else "") == ("memory", "shortage", "train")
    assert "cgroup" not in cause.details and "limit" not in cause_words(cause, START + 15)


def test_kills_at_a_limit_name_the_group_and_the_victim() -> None:
    """resizer was killed 6 times."""
    limit = {"ts": START + 5, "boot_id": BOOT, "kind": "oom_kill", "cgroup": "/r", "name": "resizer", "limit": 500 * MIB,
             "count": 6}
    cause = first(verdict(window(*repeat(2, [SHELL]), limits=[limit])))
    assert (cause.cause, cause.kind, cause.numbers["count"]) == ("memory", "limit", 6)
    assert cause.who is not None and cause.who.name == "resizer" and cause.details["cgroup"] == "/r"


def test_taking_memory_that_is_free_is_use_of_memory() -> None:
    """1 GB a second up to 2.5 GB, then held: not a hog of the CPU."""
    rows = [process(7, "grow", cpu_seconds=2.4, memory_growth_bytes=5 * GIB // 2, memory_bytes=5 * GIB // 2, ppid=1)]
    held = [process(7, "grow", cpu_seconds=0.0, memory_growth_bytes=0, memory_bytes=5 * GIB // 2, ppid=1)]
    found = verdict(window(one(0, rows), one(1, held), one(2, held)))
    assert named(found) == ("use", "memory", "grow", 7)


def test_memory_of_the_machine_is_short() -> None:
    """The one that grew, not the one that always holds much."""
    rows = [process(7, "leak", memory_bytes=3 * GIB, memory_growth_bytes=GIB, cores=0.2, ppid=1),
            process(8, "java", memory_bytes=4 * GIB, memory_growth_bytes=0, ppid=1)]
    found = verdict(window(*repeat(3, rows, **{**PAGING, "memory_available_bytes": GIB // 8})))
    assert named(found) == ("found", "memory", "leak", 7)


def test_shared_memory_is_never_more_than_all_of_it() -> None:
    """F-I: eleven processes that map the same 6 GiB."""
    rows = [process(10 + n, "postgres", memory_bytes=6 * GIB, memory_growth_bytes=0, ppid=9, unit="postgres[9]")
            for n in range(11)]
    cause, _ = culprits(window(*repeat(2, rows, **PAGING | {"memory_available_bytes": GIB // 4})), "memory")
    assert cause is not None and sum(t.share for t in cause.takers) <= 1.0


# -- storage -----------------------------------------------------------------------------------------------------------


def test_a_writer_and_a_reader_that_waits() -> None:
    """The writer; the reader is the victim."""
    rows = [process(7, "fio", cores=0.2, disk_bytes=900 * MIB, stuck=0.8, ppid=1),
            process(8, "reader", cores=0.01, disk_bytes=MIB, stuck=0.6, ppid=1)]
    found = verdict(window(*repeat(3, rows, **IO, uninterruptible=2)))
    assert named(found) == ("found", "io", "fio", 7) and [v.name for v in first(found).victims] == ["reader"]


def test_one_polite_writer_is_use() -> None:
    """F-O: PSI is full because nothing else runs."""
    rows = [process(7, "dd", cores=0.02, disk_bytes=10 * MIB, stuck=0.9, ppid=1)]
    pause = {"start": START + 2, "end": START + 8, "duration_s": 6.0, "cause": "io", "culprits": []}
    found = verdict(window(*repeat(3, rows, **IO, uninterruptible=1), pauses=[pause]))
    assert named(found) == ("use", "io", "dd", 7)


def test_a_waiting_shell_is_never_the_one_that_wrote() -> None:
    """S1: its counters hold what its child wrote."""
    rows = [process(7, "dd", ppid=20, cores=0.3, disk_bytes=1500 * MIB, stuck=0.6),
            process(20, "bash", cmdline="bash -c dd;sleep", cores=0.0, disk_bytes=0, ppid=1)]
    after = [process(20, "bash", cmdline="bash -c dd;sleep", cores=0.0, disk_bytes=1500 * MIB, ppid=1)]
    reader = process(8, "reader", cores=0.01, disk_bytes=MIB, stuck=0.6, ppid=1)
    found = verdict(window(one(0, [*rows, reader], **IO, uninterruptible=2), one(1, [*after, reader], **IO,
                                                                              uninterruptible=2)))
    assert named(found)[1:] == ("io", "dd", 7)


def test_who_wrote_into_the_cache_is_behind_the_writing_back() -> None:
    """1.5 GB in two seconds, then idle: kworker and sync do the rest."""
    wrote = [process(7, "exporter", cores=0.4, disk_bytes=1500 * MIB, ppid=1)]
    later = [process(7, "exporter", cores=0.0, disk_bytes=0, ppid=1),
             process(30, "kworker/u8:2", ppid=2, cmdline="", cores=0.2, disk_bytes=0, stuck=0.4),
             process(31, "sync", cores=0.0, stuck=0.9, ppid=1)]
    slices = [one(0, wrote), *(one(n, later, **{**IO, "device_bytes": 700 * MIB}, uninterruptible=2)
                               for n in (1, 2))]
    cause = first(verdict(window(*slices)))
    assert (cause.cause, cause.who.name if cause.who else "") == ("io", "exporter")
    assert "sync" in [v.name for v in cause.victims]


def test_the_writer_into_a_loop_device() -> None:
    """kworkers and loop0 do the work."""
    rows = [process(7, "dd", cores=0.1, disk_bytes=500 * MIB, ppid=1, stuck=0.2),
            process(30, "loop0", ppid=2, cmdline="", cores=0.3, disk_bytes=900 * MIB, stuck=0.5),
            process(31, "reader", cores=0.0, stuck=0.6, ppid=1)]
    assert named(verdict(window(*repeat(2, rows, **IO, uninterruptible=3))))[1:] == ("io", "dd", 7)


def test_a_program_that_calls_itself_like_a_kernel_thread() -> None:
    """It has a command line."""
    rows = [process(7, "kworker/u8:2", cmdline="python3 rename_me.py", ppid=1, cores=1.0)]
    who = first(verdict(window(*repeat(3, rows)))).who
    assert who is not None and who.key == (BOOT, 7, 1007) and not who.forwarder


def test_a_slow_device_is_no_process_s_fault() -> None:
    """One polite reader, 200 ms a request."""
    rows = [process(7, "reader", cores=0.0, disk_bytes=MIB, stuck=0.9, ppid=1)]
    cause = first(verdict(window(*repeat(3, rows, **{**IO, "device_wait_ms": 200.0}, uninterruptible=1))))
    assert (cause.kind, cause.who) == ("device", None)


def test_no_process_is_blamed_for_unreadable_traffic() -> None:
    """F-B: 80 processes are unreadable, and what is seen is a hundredth of the traffic."""
    rows = [process(7, "python3", cores=0.1, disk_bytes=2 * MIB, ppid=1),
            process(8, "waiter", cores=0.0, stuck=0.5, ppid=1)]
    found = verdict(window(*repeat(3, rows, **{**IO, "device_bytes": 200 * MIB}, uninterruptible=2, unreadable=80)))
    cause = first(found)
    assert (cause.cause, cause.who, cause.numbers["unreadable"]) == ("io", None, 80)
    cause_, unexplained = culprits(window(*repeat(1, rows, **{**IO, "device_bytes": 200 * MIB}, uninterruptible=2)), "io")
    assert unexplained == pytest.approx(0.99) and cause_ is not None and cause_.takers[0].share == pytest.approx(0.01)
    assert culprits(window(*repeat(1, rows)), "io") == (None, None)


def test_workers_in_sessions_of_their_own_are_one_taker() -> None:
    """fio with eight jobs: none of them has a fifth of the traffic."""
    line = "fio --name=hog --numjobs=8"
    rows = [process(7, "fio", cmdline=line, session=7, disk_bytes=1000, cores=0.01), *(
        process(10 + n, "fio", cmdline=line, session=10 + n, ppid=7, cores=0.03, stuck=0.8, disk_bytes=100 * MIB)
        for n in range(8))]
    cause = first(verdict(window(*repeat(3, rows, **{**IO, "device_bytes": 800 * MIB}, uninterruptible=8, unreadable=1))))
    assert cause.who is not None and (cause.who.name, cause.who.processes) == ("fio", 9)
    assert cause.who.share == pytest.approx(1.0, abs=0.01) and cause.victims == ()


def test_one_unreadable_process_does_not_hide_who_moved_all_of_it() -> None:
    """Twelve programs write, none much more than the others, and pid 1 may not be read: it could have moved a tenth."""
    rows = [process(7 + n, f"copy{n}", cores=0.3, stuck=0.4, disk_bytes=15 * MIB, ppid=1) for n in range(12)]
    cause = first(verdict(window(*repeat(3, rows, **{**IO, "device_bytes": 200 * MIB}, uninterruptible=12, unreadable=1))))
    assert cause.cause == "io" and "unread" not in cause.details and "cannot be read" not in cause_words(cause, START + 15)
    assert cause.who is None and cause.takers[0].name.startswith("copy")


UNREADABLE = {**IO, "device_bytes": 200 * MIB, "uninterruptible": 2, "unreadable": 80}


@pytest.mark.parametrize(("journal", "second", "named_"), [
    (0.01, {}, "dd"), (0.15, {}, None), (0.01, {"disk_bytes": 0}, "dd"), (0.01, {"disk_bytes": 150 * MIB}, "journal")])
def test_who_waits_for_storage_and_works_uses_it(journal: float, second: dict[str, Any], named_: str | None) -> None:
    """Without root: dd waits and works, a journal waits for it and hardly works. Of two that do both none is named,
    and what is known of a process decides."""
    rows = [process(7, "dd", cores=0.2, stuck=0.8, ppid=1),
            process(8, "journal", cores=journal, stuck=0.7, ppid=1, **second)]
    cause = first(verdict(window(*repeat(3, rows, **UNREADABLE, device_requests_s=7.5))))
    assert (cause.cause, cause.who.name if cause.who else None) == ("io", named_)
    if named_ == "dd":
        assert (cause.confidence, cause.takers) == ("inferred", ())
        assert [victim.name for victim in cause.victims] == ["journal"]


@pytest.mark.parametrize(("fields", "named_"), [
    ({"device_requests_s": 37.0}, "fio"), ({}, None),                   # what the disks did is not known
    ({"device_requests_s": 160.0}, None),                               # most of it has another user, which never waits
    ({"device_requests_s": 5.0}, None)])                                # they wait for each other, not for the disk
def test_who_waits_for_all_that_the_disks_do_uses_them(fields: dict[str, float], named_: str | None) -> None:
    """Without root: eight readers with direct I/O use 0.04 s of CPU for each second of waiting."""
    rows = [process(7 + n, "fio", cores=0.035, stuck=0.9, ppid=6, cmdline="fio --numjobs=8") for n in range(8)]
    rows.append(process(50, "polite", cores=0.01, stuck=0.25, ppid=1))
    cause = first(verdict(window(*repeat(3, rows, **UNREADABLE, **fields))))
    assert (cause.cause, cause.who.name if cause.who else None) == ("io", named_)
    if named_:
        assert cause.confidence == "inferred" and [victim.name for victim in cause.victims] == ["polite"]


@pytest.mark.parametrize(("fio", "requests_s"), [([0.9], 7.0), ([], 100.0), ([], 160.0)])
def test_a_victim_that_works_is_not_taken_for_the_user_of_the_disks(fio: list[float], requests_s: float) -> None:
    """Without root: a compiler reads its files and works in between, beside one reader with direct I/O, a database that
    never waits itself, or the writing back of what a copy has left in the cache."""
    rows = [process(60, "cc1plus", cores=0.3, stuck=0.5, ppid=1), process(50, "polite", cores=0.01, stuck=0.1, ppid=1)]
    rows += [process(7 + n, "fio", cores=0.03, stuck=stuck, ppid=1) for n, stuck in enumerate(fio)]
    cause = first(verdict(window(*repeat(3, rows, **UNREADABLE, device_requests_s=requests_s))))
    assert (cause.kind, cause.cause, cause.who) == ("shortage", "io", None)


def test_a_single_user_of_the_disks_is_use_without_root_too() -> None:
    """Its I/O is unknown, and nothing else waits: not a shortage for which the waiting one is to blame itself."""
    rows = [process(7, "dd", cores=0.2, stuck=0.8, ppid=1), process(8, "python3", cores=0.3, disk_bytes=MIB, ppid=1)]
    found = verdict(window(*repeat(3, rows, **{**UNREADABLE, "uninterruptible": 1}, device_requests_s=6.0)))
    assert named(found) == ("use", "io", "dd", 7)
    assert "waited 12s for storage; its I/O cannot be read without root" in cause_words(first(found), START + 15)


# -- tasks that wait for storage which is no disk ----------------------------------------------------------------------

NETWORK = {**IO, "device_wait_ms": 1.0, "device_bytes": 200_000, "device_requests_s": 0.02, "uninterruptible": 3}


def test_a_file_server_that_does_not_answer_is_no_fault_of_what_writes_a_little() -> None:
    """The disks are idle: the journal has three quarters of next to nothing, and is not what the others wait for."""
    rows = [process(3, "systemd-journal", cores=0.01, disk_bytes=150_000, ppid=1),
            *(process(20 + n, "ls", cores=0.0, disk_bytes=0, stuck=0.95, ppid=900) for n in range(3))]
    found = verdict(window(*repeat(3, rows, **NETWORK)))
    cause = first(found)
    assert (cause.kind, cause.cause, cause.who, cause.takers) == ("device", "io", None, ())
    assert [victim.name for victim in cause.victims] == ["ls"] * 3
    assert "a network or FUSE file system" in cause_words(cause, START + 15)
    busy = first(verdict(window(*repeat(3, rows, **{**NETWORK, "device_requests_s": 4.0}))))
    assert busy.kind == "shortage"


@pytest.mark.parametrize("evidence", ["wait", "limit"])
def test_what_explains_that_the_disks_are_idle_comes_alone(evidence: str) -> None:
    """A wait that was seen to last, or a limit of traffic, says more than that the disks were idle."""
    rows = [process(7, "uploader", cores=0.02, disk_bytes=900_000, stuck=0.9, ppid=1, cgroup="/up"),
            process(8, "uploader", cores=0.02, disk_bytes=900_000, stuck=0.9, ppid=1, cgroup="/up")]
    wait = {"ts": START + 14, "boot_id": BOOT, "kind": "uninterruptible", "since_s": 12.0,
            "waiters": [{"pid": 7, "start_ticks": 1007, "name": "uploader"}]}
    limits = [{"ts": START + 5 * n + 5, "boot_id": BOOT, "kind": "io", "cgroup": "/up", "limit": 4e5, "use": 4e5}
              for n in range(3)]
    more = {"waits": [wait]} if evidence == "wait" else {"limits": limits}
    found = verdict(window(*repeat(3, rows, **NETWORK), **more))
    assert [cause.kind for cause in found.causes] == [evidence]


def test_a_kernel_thread_with_work_of_its_own_is_named() -> None:
    """A RAID that is rebuilt reads for itself: the reader that suffers is not the one to name."""
    rows = [process(60, "md0_resync", ppid=2, cmdline="", cores=0.1, disk_bytes=500 * MIB, stuck=0.7),
            process(61, "md0_raid5", ppid=2, cmdline="", cores=0.2, disk_bytes=0),
            process(8, "reader", cores=0.02, disk_bytes=200 * MIB, stuck=0.6, ppid=1)]
    found = verdict(window(*repeat(3, rows, **IO, uninterruptible=2)))
    assert named(found) == ("found", "io", "md0_resync", 60) and [v.name for v in first(found).victims] == ["reader"]


# -- no process, and rogue-hunter itself --------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [
    [], [process(3, "sshd", cores=0.01)], [process(7, "java", memory_bytes=2 * GIB, memory_growth_bytes=0, cores=0.02)],
    [process(100 + n, "idle", cores=0.0) for n in range(200)],
], ids=["empty", "idle", "resident 2 GB", "crowd"])
def test_nothing_is_wrong(rows: list[dict[str, Any]]) -> None:
    """No process is named at all."""
    found = verdict(window(*repeat(4, rows)))
    assert (found.state, found.causes) == ("nothing", ()) and found.cleared.keys() >= {"cpu", "memory", "io"}


@pytest.mark.parametrize("rows", [
    [process(7, "player", cores=0.25, rogue_s=5.0, max_score=47)],
    [process(7, "make", cores=0.05, child_cores=0.9, rogue_s=5.0), process(50, "player", cores=0.1, delay=0.01)],
    [process(7, "tar", nice=19, cores=0.6, disk_bytes=90 * MIB, rogue_s=5.0)],
], ids=["player", "build -j1", "backup at nice 19"])
def test_use_is_not_blame(rows: list[dict[str, Any]]) -> None:
    """S16: used most, and nothing waited."""
    found = verdict(window(*repeat(6, rows, pressure_cpu_some_ms_per_s=60.0)))
    assert found.state == "use" and all(c.kind == "use" and c.points < 20 for c in found.causes)
    assert not any(stands_out(c) for c in found.causes)


def test_only_rh_pipe_was_stopped() -> None:
    """No process is to blame."""
    pause = {"start": START + 5, "end": START + 7, "duration_s": 2.0, "cause": "stopped", "culprits": [],
             "evidence": {"continued": 1}}
    rows = [process(8, "firefox", cores=0.3)]
    found = verdict(window(one(0, rows), one(1, rows, continued=1, late_s=2.0), one(2, rows), pauses=[pause]))
    assert named(found) == ("found", "stopped", "", None) and len(found.causes) == 1


def test_a_late_beat_that_nothing_explains() -> None:
    """S15: only rh-pipe did not run."""
    found = verdict(window(*repeat(2, [SHELL]), one(2, [SHELL], late_s=1.8, self_run_delay_ms=0.0)))
    cause = first(found)
    assert (cause.cause, cause.who, cause.confidence) == ("unknown", None, "unknown")


def test_rogue_hunter_is_never_first_unless_it_overdraws() -> None:
    """S4: its own processes are left out, and their cost is one number."""
    mine = process(5, "rh-pipe", own=True, cores=0.05, disk_bytes=300 * MIB, stuck=0.5)
    rows = [mine, process(7, "loop", cores=0.9)]
    found = verdict(window(*repeat(3, rows, self_cpu_percent=5.0)))
    assert named(found)[2] == "loop" and found.own_cores == pytest.approx(0.05)
    assert all(m.who is None or m.who.name != "rh-pipe" for m in found.causes)
    over = verdict(window(*repeat(3, [process(5, "rh-pipe", own=True, cores=0.4)])))
    assert [(c.kind, c.cause) for c in over.causes] == [("own", "rogue-hunter")]


def test_the_reader_is_never_named() -> None:
    """Who asks why does not hear: you."""
    rows = [process(7, "python3", cores=0.9), process(8, "loop", cores=0.5)]
    assert named(verdict(window(*repeat(2, rows), readers=frozenset({7}))))[2] == "loop"


# -- ranking -----------------------------------------------------------------------------------------------------------


def test_the_integral_decides_between_resources() -> None:
    """S7: eight seconds of CPU, one of reading: CPU."""
    rows = [process(7, "node", cores=1.0, disk_bytes=0)]
    start = [process(7, "node", cores=0.9, disk_bytes=400 * MIB)]
    assert named(verdict(window(one(0, start), one(1, rows), one(2, rows))))[1] == "cpu"


def test_one_taker_is_named_once_for_the_larger() -> None:
    """S13: a CPU hog that also wakes up often is a CPU hog."""
    found = verdict(window(*repeat(3, [process(7, "iperf3", cores=0.9, wakeups=74_000)])))
    assert [(c.cause, c.who.name) for c in found.causes if c.who] == [("cpu", "iperf3")]


def test_what_is_short_comes_before_what_is_used() -> None:
    """A writer that others wait for, beside a loop that uses a whole CPU and that nothing waits for."""
    rows = [process(7, "dd", cores=0.1, disk_bytes=500 * MIB, stuck=0.7, ppid=1),
            process(8, "reader", cores=0.0, stuck=0.4, ppid=1), process(9, "loop", cores=1.0, ppid=1)]
    assert named(verdict(window(*repeat(3, rows, **IO, uninterruptible=2))))[1:] == ("io", "dd", 7)


def test_a_question_about_now_weighs_what_is_new() -> None:
    """Twenty seconds ago something else was at it."""
    old, new = [process(7, "old", cores=1.0)], [process(8, "new", cores=1.0)]
    slices = [one(0, old), one(1, old), one(2, new), one(3, new)]
    assert named(verdict(window(*slices, recent=True)))[2] == "new"


def test_sleep_and_steal() -> None:
    """No process is to blame."""
    asleep = verdict(window(one(0, [SHELL]), one(1, [SHELL], asleep_s=2400.0)))
    assert named(asleep) == ("found", "asleep", "", None)
    stolen = verdict(window(*repeat(3, [process(7, "a", cores=0.4)], cpu_steal_cores=1.2)))
    assert named(stolen) == ("found", "steal", "", None)


def test_nothing_is_known() -> None:
    """No slice, no pause."""
    assert verdict(Window(START, START + 5)).state == "no_evidence"
    assert verdict(window(Slice(START, 5.0, {}))).state == "nothing"


def test_workers_and_their_victim_below_one_parent() -> None:
    """The parent of both is not to blame, and the victim is not one of them."""
    rows = [process(10 + n, "python3", name="spin.py", ppid=9, unit="runner[9]", cores=0.2, delay=0.7) for n in range(4)]
    rows.append(process(20, "python3", name="tied.py", ppid=9, unit="runner[9]", cores=0.2, delay=0.4))
    unit = {"unit": "runner[9]", "name": "spin.py", "pid": 9, "start_ticks": 1, "processes": 6, "cpu_seconds": 5.0,
            "run_delay_s": 16.0}
    slices = [one(n, rows, [unit], **PSI) for n in range(3)]
    cause = first(verdict(window(*slices)))
    assert cause.kind == "shortage" and cause.who is not None
    assert (cause.who.name, cause.who.processes, cause.who.root) == ("spin.py", 4, None)
    assert [v.name for v in cause.victims] == ["tied.py"]


def test_a_family_of_which_few_are_listed() -> None:
    """Thirty loops of one script, six of them listed: the sum is in the row of the family."""
    rows = [process(100 + n, f"job_{n}", ppid=7, cores=0.06, delay=0.3, unit=f"job_{n}[{100 + n}]") for n in range(6)]
    rows.append(process(8, "runner", cores=0.3, delay=0.2, ppid=1, unit="runner[8]"))
    family = {"unit": "fanout.sh[7]", "name": "job_1", "pid": 7, "start_ticks": 1007, "processes": 30,
              "cpu_seconds": 8.0, "run_delay_s": 45.0}
    slices = [one(n, [*rows, VICTIM], [family], cpu_busy_cores=1.95, run_delay_ms_per_s=9400.0, **PSI) for n in range(3)]
    cause = first(verdict(window(*slices)))
    assert cause.who is not None
    assert (cause.who.name, cause.who.root, cause.who.processes) == ("fanout.sh", (BOOT, 7, 1007), 30)
    assert cause.who.amount == pytest.approx(24.0) and {v.name for v in cause.victims} == {"player", "runner"}


def test_units_of_kernel_threads_and_of_rogue_hunter_are_never_named() -> None:
    """S4: their rows may have more than any process."""
    rows = [process(5, "rh-pipe", own=True, cores=0.02, unit="rh-pipe[5]"),
            process(30, "kworker/u8:2", ppid=2, cmdline="", cores=0.3, unit="kthreadd[2]"),
            process(31, "kworker/u8:3", ppid=2, cmdline="", cores=0.3, unit="kthreadd[2]"),
            process(7, "writer", cores=0.2, ppid=1)]
    groups = [{"unit": "rh-pipe[5]", "name": "rh-pipe", "pid": 5, "start_ticks": 1, "processes": 3, "cpu_seconds": 4.0},
              {"unit": "kthreadd[2]", "name": "kworker", "pid": 2, "start_ticks": 0, "processes": 61, "cpu_seconds": 3.0}]
    found = verdict(window(*(one(n, rows, groups, self_cpu_percent=2.0) for n in range(3))))
    assert named(found)[2] == "writer"
    assert {c.who.name for c in found.causes if c.who} <= {"writer", "kworker/u8:2", "kworker/u8:3"}


def test_one_that_was_killed_and_has_no_row_is_named() -> None:
    """It grew too slowly for a row; that others hold a few megabytes explains nothing."""
    kill = {"ts": START + 7, "boot_id": BOOT, "kind": "oom_kill", "cgroup": "/leaks", "pid": 7, "start_ticks": 1007,
            "name": "leaky", "limit": 300 * MIB, "count": 1}
    rows = [process(900 + n, "bash", memory_bytes=4 * MIB) for n in range(9)]
    found = verdict(window(one(0, rows), one(1, rows, oom_kills=1), one(2, rows), limits=[kill]))
    assert named(found) == ("found", "memory", "leaky", 7) and len(found.causes) == 1


def test_a_script_that_holds_a_lock_while_its_program_works_is_no_problem() -> None:
    """The script has no row, and its one program no unit with it."""
    wait = {"ts": START + 14, "boot_id": BOOT, "kind": "file_lock", "since_s": 12.0, "holder_pid": 8,
            "holder_start_ticks": 1008, "holder": "merge.sh", "waiters": [{"pid": 9, "start_ticks": 1, "name": "flock"}]}
    found = verdict(window(*repeat(3, [process(20, "pytest", cores=0.9, ppid=8, unit="pytest[20]")]), waits=[wait]))
    assert first(found).points < 40


def test_a_few_lasting_jobs_of_an_idle_starter_are_named_by_themselves() -> None:
    """A runner without setsid: two hogs and a player have nothing in common; thirty loops would be its work."""
    rows = [process(7, "resample", ppid=5, cores=0.75, delay=0.2), process(8, "render", ppid=5, cores=0.5, delay=0.2),
            process(50, "player", ppid=5, cores=0.4, delay=0.3), process(5, "runner", ppid=1, cores=0.01)]
    unit = {"unit": "runner[5]", "name": "render", "pid": 5, "start_ticks": 1005, "processes": 4, "cpu_seconds": 8.3}
    cause = first(verdict(window(*(one(n, [{**row, "unit": "runner[5]"} for row in rows], [unit], **PSI) for n in range(3)))))
    assert cause.who is not None and cause.who.name == "resample"
    assert [victim.name for victim in cause.victims][:1] == ["player"]


def test_of_two_equal_hogs_neither_is_a_victim() -> None:
    """Both wait for a CPU half of the time, because of each other; who suffers is the player."""
    rows = [process(7, "resample", ppid=1, cores=0.66, delay=0.5), process(8, "render", ppid=1, cores=0.64, delay=0.5),
            VICTIM]
    cause = first(verdict(window(*repeat(3, rows, **PSI))))
    assert cause.who is not None and cause.who.name == "resample"
    assert [victim.name for victim in cause.victims] == ["player"]
    assert "render (pid 8) used nearly as much (44 %)" in cause_words(cause, START)


def test_what_the_culprit_waited_for_itself_is_not_what_others_waited() -> None:
    """A fork bomb: in a slice in which another process used more than it, its own queue is still its own."""
    bomb = {"unit": "bomb.py[7]", "name": "bomb.py", "pid": 7, "start_ticks": 1007, "processes": 250, "started": 200}
    rows = [process(7, "bomb.py", ppid=1, cores=0.01, delay=0.9, unit="bomb.py[7]"), VICTIM]
    slices = [one(0, rows, [{**bomb, "cpu_seconds": 9.0, "run_delay_s": 600.0}], cpu_busy_cores=2.0,
                  run_delay_ms_per_s=120_500.0, **PSI),
              one(1, [*rows, process(9, "mypy", ppid=1, cores=1.0, delay=0.1)],
                  [{**bomb, "cpu_seconds": 4.0, "run_delay_s": 1200.0}], cpu_busy_cores=2.0,
                  run_delay_ms_per_s=240_500.0, **PSI)]
    cause = first(verdict(window(*slices)))
    assert cause.who is not None and cause.who.root == (BOOT, 7, 1007)
    assert cause.numbers["waited_s"] == pytest.approx(5.0)


def test_a_unit_that_is_only_called_like_rogue_hunter_is_named() -> None:
    """A name is no proof: rh-backup is no part of rogue-hunter."""
    group = {"unit": "rh-backup.sh[7]", "name": "gzip", "pid": 7, "start_ticks": 1007, "processes": 9, "started": 20,
             "cpu_seconds": 9.0, "run_delay_s": 5.0}
    rows = [process(7, "sh", name="rh-backup.sh", cmdline="sh rh-backup.sh", cores=0.01), VICTIM]
    who = first(verdict(window(*(one(n, rows, [group], cpu_busy_cores=1.9, run_delay_ms_per_s=1200.0, **PSI)
                                 for n in range(3))))).who
    assert who is not None and (who.name, who.root) == ("rh-backup.sh", (BOOT, 7, 1007))


@pytest.mark.parametrize(("cores", "points"), [(0.0, 60.0), (0.5, 35.0)])
def test_a_holder_that_works_is_less_of_a_problem(cores: float, points: float) -> None:
    """Jobs that take turns by a lock: the one that works is not stuck."""
    wait = {"ts": START + 14, "boot_id": BOOT, "kind": "file_lock", "since_s": 12.0, "holder_pid": 8,
            "holder_start_ticks": 1008, "holder": "job", "waiters": [{"pid": 9, "start_ticks": 1, "name": "flock"}]}
    group = {"unit": "job[8]", "name": "cc1", "pid": 8, "start_ticks": 1008, "processes": 4, "cpu_seconds": 5 * cores}
    found = verdict(window(*(one(n, [process(8, "job", cores=0.0, ppid=1)], [group]) for n in range(3)), waits=[wait]))
    assert first(found).kind == "wait" and first(found).points == pytest.approx(points, abs=5)


# -- chains, pipelines and limits ----------------------------------------------------------------------------------------


def waiting(kind: str, holder: int, *waiters: int, **fields: Any) -> dict[str, Any]:
    """A wait of six seconds."""
    return {"ts": START + 12, "boot_id": BOOT, "kind": kind, "since_s": 6.0, "holder_pid": holder,
            "holder_start_ticks": 1000 + holder, "holder": f"p{holder}", "certainty": "proven",
            "waiters": [{"pid": pid, "start_ticks": 1000 + pid, "name": f"p{pid}"} for pid in waiters], **fields}


def test_the_last_holder_of_a_chain_is_named() -> None:
    """4 waits for 3, which waits for 2, which waits for 1: they all wait for 1."""
    waits = [waiting("file_lock", 3, 4, object="/c"), waiting("file_lock", 1, 2, object="/a"),
             waiting("file_lock", 2, 3, object="/b")]
    found = verdict(window(*repeat(3, [SHELL]), waits=waits))
    assert named(found) == ("found", "wait", "p1", 1) and [one.kind for one in found.causes] == ["wait"]
    assert {victim.name for victim in first(found).victims} == {"p2", "p3", "p4"}


def test_a_chain_lasts_as_long_as_its_longest_wait() -> None:
    """The search for the holder at its end took a while."""
    waits = [waiting("pipe", 2, 3, object="pipe:[1]"), {**waiting("pipe", 1, 2, object="pipe:[2]"), "since_s": 1.2}]
    cause = first(verdict(window(*repeat(3, [SHELL]), waits=waits)))
    assert (cause.who.name if cause.who else "", cause.seconds) == ("p1", 6.0)


def test_a_record_made_after_the_end_takes_no_name_away() -> None:
    """The newest look found both of them gone."""
    late = {**waiting("traced", 1), "ts": START + 14, "since_s": 8.0, "waiters": [{"pid": 2}]}
    for name in ("holder", "holder_start_ticks"):
        del late[name]
    cause = first(verdict(window(*repeat(3, [SHELL]), waits=[waiting("traced", 1, 2), late])))
    assert (cause.who.name if cause.who else "", [v.name for v in cause.victims]) == ("p1", ["p2"])


def test_the_work_of_a_tracer_is_no_excuse() -> None:
    """strace at 0.6 of a core: that is what the traced process waits for, and more than what the two use."""
    rows = [process(1, "strace", cores=0.6), process(2, "parse", cores=0.4, wakeups=28_000)]
    cause = first(verdict(window(*repeat(3, rows), waits=[waiting("traced", 1, 2, object="system calls")])))
    assert (cause.kind, cause.who.name if cause.who else "", [v.name for v in cause.victims]) == ("wait", "p1", ["p2"])
    assert cause.lost_s == pytest.approx(6.0)


def test_processes_that_wait_for_each_other() -> None:
    """A chain that closes has no last holder: each of them is named."""
    waits = [waiting("file_lock", 1, 2, object="/a"), waiting("file_lock", 2, 1, object="/b")]
    found = verdict(window(*repeat(3, [SHELL]), waits=waits))
    assert {c.who.name for c in found.causes if c.who} == {"p1", "p2"}


@pytest.mark.parametrize("reader", [{"cores": 0.6}, {"child_cores": 0.3}, {"cores": 0.01, "stuck": 0.4}])
def test_a_pipeline_whose_reader_works_is_no_problem(reader: dict[str, float]) -> None:
    """tar waits for gzip, which is slower."""
    rows = [process(7, "tar", cores=0.1), process(8, "gzip", **reader)]
    found = verdict(window(*repeat(3, rows), waits=[waiting("pipe", 8, 7)]))
    assert found.state == "use" and all(one.kind == "use" for one in found.causes)


def test_a_short_lived_reader_that_queues_for_a_cpu_is_no_problem() -> None:
    """One of thirty gzips at once: it has no row, so what it used is unknown, but it was seen running."""
    found = verdict(window(*repeat(3, [process(7, "head", cores=0.1)]),
                           waits=[waiting("pipe", 8, 7, holder_state="running")]))
    assert all(one.kind == "use" for one in found.causes)


def test_a_reader_that_does_nothing_is_one() -> None:
    """The holder of the pipe is idle."""
    rows = [process(7, "tar", cores=0.1), process(8, "slow_reader", cores=0.0)]
    assert named(verdict(window(*repeat(3, rows), waits=[waiting("pipe", 8, 7)])))[:3] == ("found", "wait", "p8")


def test_threads_that_queue_for_one_lock() -> None:
    """The program is busy with waiting: its work is no excuse."""
    rows = [process(7, "convoy", cores=1.6)]
    cause = first(verdict(window(*repeat(3, rows), waits=[waiting("mutex", 7, 7)])))
    assert (cause.kind, cause.resource, cause.who.name if cause.who else "") == ("wait", "mutex", "p7")
    rows.append(process(50, "player", ppid=1, cores=0.1, delay=0.5))
    found = verdict(window(*repeat(3, rows, **PSI), waits=[waiting("mutex", 7, 7)]))
    assert first(found).resource == "mutex" and not [c for c in found.causes if c.resource == "cpu"]


def test_a_memory_limit_binds_on_a_fast_disk_too() -> None:
    """S10: the pages come back so fast that pressure is low, but the process does nothing else."""
    quick = {"refaults": 25_000, "device_bytes": 100 * MIB, "pressure_io_some_ms_per_s": 90.0}
    rows = [process(7, "modeler", cores=0.9, pageins=20_000, disk_bytes=90 * MIB, memory_bytes=190 * MIB, cgroup="/m")]
    limits = [{"ts": START + 5 * n + 3, "boot_id": BOOT, "kind": "memory", "cgroup": "/m", "limit": 200 * MIB, "count": 90}
              for n in range(3)]
    found = verdict(window(*repeat(3, rows, **quick), limits=limits))
    assert named(found) == ("found", "memory", "modeler", 7) and first(found).kind == "limit"
    rows = [process(7, "greedy", cores=0.0, memory_bytes=800 * MIB, cgroup="/m"),
            process(8, "lookup", cores=0.9, disk_bytes=90 * MIB, memory_bytes=9 * MIB, cgroup="/m")]
    found = verdict(window(*repeat(3, rows, **quick), limits=limits))
    assert named(found) == ("found", "memory", "greedy", 7) and [v.name for v in first(found).victims] == ["lookup"]
    assert verdict(window(*repeat(3, rows, **quick))).state == "use"
    # Pages of a mapped file are counted as shared: the one that has them read again is named.
    rows = [process(7, "modeler", cores=0.9, pageins=20_000, disk_bytes=90 * MIB, memory_bytes=9 * MIB, cgroup="/m"),
            process(8, "python3", cores=0.0, memory_bytes=12 * MIB, cgroup="/m")]
    assert named(verdict(window(*repeat(3, rows, **quick), limits=limits)))[:3] == ("found", "memory", "modeler")


def test_the_limit_of_another_group_is_not_taken_for_the_cause() -> None:
    """A container is at its limit all day, as its cache fills it; another one thrashes."""
    rows = [process(7, "modeler", cores=0.3, pageins=20_000, disk_bytes=600 * MIB, memory_bytes=150 * MIB, cgroup="/m"),
            process(8, "fileserver", cores=0.1, disk_bytes=0, memory_bytes=GIB, cgroup="/cache")]
    limit = {"ts": START + 5, "boot_id": BOOT, "kind": "memory", "count": 3}
    limits = [{**limit, "cgroup": "/cache", "limit": GIB}, {**limit, "cgroup": "/m", "limit": 150 * MIB}]
    assert named(verdict(window(*repeat(3, rows, **PAGING), limits=limits)))[2] == "modeler"


@pytest.mark.parametrize(("kind", "fields", "cause"), [
    ("affinity", {"limit": 1.0, "held_back_s": 0.9}, "limit"), ("rlimit", {"limit": 64.0, "use": 64.0}, "limit"),
    ("tasks", {"limit": 20.0, "use": 20.0, "cgroup": "/jobs"}, "limit"),
    ("disk_full", {"object": "/mnt"}, "io")])
def test_further_limits(kind: str, fields: dict[str, Any], cause: str) -> None:
    """Threads on one of two CPUs, no more files to open, no space left: no other process is guilty."""
    rows = [process(7, "server", cores=0.98, delay=3.0)]
    limits = [{"ts": START + n, "boot_id": BOOT, "kind": kind, "pid": 7, "start_ticks": 1007, "name": "server", **fields}
              for n in range(1, 15)]
    found = verdict(window(*repeat(3, rows, cpu_busy_cores_max=1.1, **PSI), limits=limits))
    assert named(found) == ("found", cause, "server", 7)
    assert (first(found).kind, first(found).details["limit"]) == ("limit", kind)


def test_an_affinity_is_no_limit_while_others_want_the_same_cpu() -> None:
    """They are the cause."""
    rows = [process(10 + n, "spin", ppid=9, cores=0.2, delay=0.8, unit="spin[9]") for n in range(4)]
    rows.append(process(50, "bound", cores=0.18, delay=0.5, ppid=1, unit="bound[50]"))
    limits = [{"ts": START + n, "boot_id": BOOT, "kind": "affinity", "pid": pid, "start_ticks": 1000 + pid, "limit": 1.0,
               "held_back_s": 0.8} for n in range(14) for pid in (10, 11, 12, 13, 50)]
    assert named(verdict(window(*repeat(3, rows, **PSI), limits=limits)))[1:3] == ("cpu", "spin")


def test_a_quota_of_rh_pipe_names_no_process() -> None:
    """F-F: its own group is limited, and it is the busiest in it."""
    rows = [process(5, "rh-pipe", own=True, cores=0.01, cgroup="/hb"), process(7, "leaky", cores=0.1, ppid=1)]
    limits = [{"ts": START + n, "boot_id": BOOT, "kind": "cpu_quota", "cgroup": "/hb", "pid": 5, "start_ticks": 1005,
               "name": "rh-pipe", "limit": 0.01, "held_back_s": 0.9} for n in range(1, 14)]
    found = verdict(window(*repeat(3, rows, self_throttled_ms=4000.0, late_s=1.0), limits=limits))
    assert [(c.details.get("limit"), c.who) for c in found.causes if c.kind == "limit"] == [("self", None)]
    assert first(found).details["limit"] == "self"


def test_kills_of_one_group_are_one_cause() -> None:
    """Each kill has another pid."""
    limits = [{"ts": START + n, "boot_id": BOOT, "kind": "oom_kill", "cgroup": "/r", "name": "resizer", "pid": 100 + n,
               "start_ticks": n, "limit": 500 * MIB, "count": 1} for n in range(6)]
    found = verdict(window(*repeat(2, [SHELL]), limits=limits))
    assert [(c.cause, c.numbers["count"]) for c in found.causes] == [("memory", 6)]


@pytest.mark.parametrize("slices", [0, 300])
def test_a_throttled_pause_is_reported(slices: int) -> None:
    """The quota of rh-pipe itself, in a long window too."""
    pause = {"start": START + 5, "end": START + 7, "duration_s": 2.0, "cause": "throttled", "culprits": [],
             "evidence": {"self_throttled_ms": 1900.0}}
    found = verdict(window(*repeat(slices, [SHELL]), pauses=[pause]))
    assert [(c.kind, c.details.get("limit"), c.who) for c in found.causes] == [("limit", "self", None)]


# -- families ------------------------------------------------------------------------------------------------------------


def test_a_process_whose_parent_has_ended_is_still_its_work() -> None:
    """At the end of the window the workers are children of process 1."""
    def rows(parent: int) -> list[dict[str, Any]]:
        made = [process(10 + n, "worker", ppid=parent, cores=0.2, delay=0.3) for n in range(9)]
        return [*made, process(9, "pool", ppid=5, cores=0.0), process(5, "runner", ppid=1, cores=0.02),
                process(50, "player", ppid=5, cores=0.1, delay=0.2)]

    found = verdict(window(*(one(n, rows(9 if n < 2 else 1), **PSI) for n in range(3))))
    assert named(found)[2] == "pool"


def test_a_session_of_its_own_is_no_part_of_its_parent() -> None:
    """A test runner starts a hog and a victim, each with setsid: it has nothing to do with either."""
    rows = [process(10 + n, "burst", ppid=5, session=10 + n, cpu_seconds=1.4) for n in range(4)]
    rows += [process(50, "player", ppid=5, session=50, cores=0.1, delay=0.3), process(5, "runner", ppid=1, session=5, cores=0.1)]
    unit = {"unit": "runner[5]", "name": "burst", "pid": 5, "start_ticks": 1005, "processes": 6, "cpu_seconds": 6.5}
    quiet = [process(50, "player", ppid=5, session=50, cores=0.1), process(5, "runner", ppid=1, session=5, cores=0.1)]
    found = verdict(window(one(0, quiet), one(1, rows, **PSI), one(2, quiet)))
    assert named(found)[2] == "burst"
    assert unit["unit"] not in {c.who.unit for c in found.causes if c.who}


def test_a_parent_that_is_not_listed_does_not_get_the_sessions_that_it_started() -> None:
    """It uses too little for a row of its own, and its unit has one: the jobs and the player are no part of that."""
    unit = {"unit": "runner[5]", "name": "runner", "pid": 5, "start_ticks": 1005, "processes": 2, "cpu_seconds": 0.01}
    rows = [process(10 + n, f"job_{n}", ppid=5, session=10 + n, cpu_seconds=2.4 - 0.3 * n) for n in range(3)]
    rows.append(process(50, "player", ppid=5, session=50, cores=0.1, delay=0.3))
    found = verdict(window(*(one(n, rows, [unit], **PSI) for n in range(2))))
    assert named(found)[2] == "job_0"
    assert [v.name for v in first(found).victims] == ["player"]


def test_a_few_short_children_of_one_name_are_named_themselves() -> None:
    """A runner started two bursts beside other programs; make would be named with its many compilers."""
    rows = [process(10 + n, "burst", ppid=5, cpu_seconds=1.4) for n in range(4)]
    rows += [process(50, "player", ppid=5, cores=0.05, delay=0.3), process(5, "runner", ppid=1, cores=0.01)]
    quiet = [process(50, "player", ppid=5, cores=0.05), process(5, "runner", ppid=1, cores=0.01)]
    found = verdict(window(one(0, quiet), one(1, rows, **PSI), one(2, rows[4:], **PSI), one(3, quiet)))
    assert named(found)[2] == "burst"


def test_what_a_terminal_draws_is_the_work_of_the_program_in_it() -> None:
    """`yes` in a multiplexer: the server uses a core, the program a tenth of one."""
    rows = [process(5, "tmux: server", ppid=1, cores=0.95), process(6, "bash", ppid=5, cmdline="-bash", cores=0.001),
            process(7, "yes", ppid=6, cores=0.08)]
    found = verdict(window(*repeat(3, rows)))
    who = first(found).who
    assert named(found)[:3] == ("use", "cpu", "yes") and who is not None
    assert (who.amount, who.served, who.server) == (pytest.approx(15.45), pytest.approx(14.25), "tmux: server")
    assert not [c for c in found.causes if c.who and c.who.name.startswith("tmux")]


def test_two_programs_of_a_container_are_peers() -> None:
    """The oldest of the unit is not the parent of the other."""
    rows = [process(7 + n, "exporter", ppid=5, cores=0.95, unit="container:ab12") for n in range(2)]
    unit = {"unit": "container:ab12", "name": "exporter", "pid": 7, "start_ticks": 1007, "processes": 2, "cpu_seconds": 9.5}
    who = first(verdict(window(*(one(n, rows, [unit]) for n in range(3))))).who
    assert who is not None and (who.name, who.processes, who.root) == ("exporter", 2, None)


def test_a_burst_on_all_cpus_is_no_idle_machine() -> None:
    """The average of the slice is low, but one tick was full: no affinity and no quota explains the waiting."""
    rows = [process(7, "burst", cores=0.5), process(50, "player", cores=0.1, delay=0.4)]
    cause = first(verdict(window(*repeat(2, rows, cpu_busy_cores_max=2.0, **PSI))))
    assert "while_idle" not in cause.details


def test_a_tick_by_itself_is_no_idle_machine() -> None:
    """The first tick has the pressure of the seconds before it."""
    rows = [process(7, "loop", cores=0.5), process(50, "player", cores=0.1, delay=0.6)]
    assert judge(one(0, rows, **PSI), {}).idle and not judge(one(0, rows, **PSI, seconds=0.34), {}).idle


def test_kernel_threads_are_no_victims() -> None:
    """rcu_preempt waits, and no person does."""
    rows = [process(7, "loop", cores=1.8, ppid=1), process(15, "rcu_preempt", ppid=2, cmdline="", cores=0.0, delay=0.6),
            process(50, "player", ppid=1, cores=0.1, delay=0.4)]
    assert [v.name for v in first(verdict(window(*repeat(2, rows, **PSI)))).victims] == ["player"]


def test_most_of_the_cpu_was_used_by_processes_that_are_not_seen() -> None:
    """hidepid hides those of other users: the own process that is seen waits for them, and is not blamed."""
    mine = process(7, "loop", cores=0.25, delay=0.7, unit="loop[7]")
    machine = {**PSI, "cpu_busy_cores": 2.0, "unattributed_cpu_cores": 1.7, "run_delay_ms_per_s": 700.0}
    cause = first(verdict(window(*repeat(3, [mine, SHELL], **machine))))
    assert (cause.cause, cause.who, [victim.name for victim in cause.victims]) == ("cpu", None, ["loop"])
    words = cause_words(cause, START + 15)
    assert cause.details["unseen"] == "yes" and "1.7 cores not attributed to any process" in words
    assert "most by interrupts or processes that cannot be seen: the highest of the others was loop" in words
    seen = {**machine, "unattributed_cpu_cores": 0.1}
    hog = process(8, "hog", cores=1.6, unit="hog[8]")
    assert named(verdict(window(*repeat(3, [mine, hog], **seen)))) == ("found", "cpu", "hog", 8)
