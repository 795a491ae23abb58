"""The macOS host on a scripted machine: the same ctypes code that runs on a Mac, against a libproc of our own."""

from __future__ import annotations

import plistlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from darwin.fake import Fake

from rogue_hunter.beat import beats
from rogue_hunter.host import Host, HostError, Snapshot
from rogue_hunter.host.darwin import DarwinHost, darwin_clock
from rogue_hunter.host.darwin_abi import EPERM, ESRCH
from rogue_hunter.host.libproc import signal_exact
from rogue_hunter.sample import sample
from rogue_hunter.schema import PROCESS

GB = 1 << 30
TIMEBASES = {
    "apple silicon": "timebase=125/3 tbfrequency=24000000",
    "intel": "timebase=1/1 tbfrequency=1000000000",
    "rosetta": "timebase=1/1 tbfrequency=24000000",
    "intel, no tbfrequency": "timebase=1/1 tbfrequency=0",
    "apple silicon, no tbfrequency": "timebase=125/3 tbfrequency=0",
}

BURNER = """
process launchd pid=1 ppid=0 uid=0 denied=1 path=/sbin/launchd
process burner pid=100 comm=burner-trunc name=burner-whole-name path=/usr/bin/burner user=10+0.5/s system=1+0.25/s \
delay=3+0.125/s qos=2+0.1/s child=4 footprint=5000000+1000000/s peak=9000000 wakeups=50+40/s pageins=7+6/s \
faults=900+300/s csw=20+200/s mach=5+16/s unix=10+24/s sent=100+30/s received=200+70/s read=4096+1000000/s \
written=8192+500000/s instructions=1000+3000000/s cycles=1000+2000000/s energy=5e9+2.5e9/s running=1 threads=3 \
priority=47 nice=5 tdev=0x10000003 args=/usr/bin/burner|--token=hunter2|-v
process idler pid=200 user=5 system=1 footprint=3000000
""".replace("\\\n", "")


@pytest.fixture
def machine() -> Iterator[Callable[..., tuple[Fake, DarwinHost]]]:
    """Make a scripted machine and a host that reads it; closed at the end."""
    hosts: list[DarwinHost] = []

    def make(script: str, **options: Any) -> tuple[Fake, DarwinHost]:
        fake = Fake(script)
        hosts.append(fake.host(**options))
        return fake, hosts[-1]

    yield make
    for host in hosts:
        host.close()


Machine = Callable[..., tuple[Fake, DarwinHost]]


def row(shot: Snapshot, pid: int) -> dict[str, Any]:
    """The row of the one process that has `pid` now."""
    rows = [r for key, r in shot.processes.items() if key[0] == pid]
    assert len(rows) == 1
    return rows[0]


def settle(host: DarwinHost) -> None:
    """Let the worker finish; what it found is in the next snapshot."""
    host._slow.wait(10)


@pytest.mark.parametrize("timebase", TIMEBASES.values(), ids=TIMEBASES.keys())
def test_numbers_are_the_script_s(machine: Machine, timebase: str) -> None:
    """Every total and every rate is what the script says, whatever the unit of the counters."""
    fake, host = machine(f"machine {timebase} wall=1750000000\n" + BURNER)
    host.snapshot()
    fake.advance(0.5)
    got = row(host.snapshot(), 100)
    known = {f.name for f in PROCESS}
    assert set(got) <= known
    expected = {
        "pid": 100, "start_ticks": 1749996400000000, "start_time": 1749996400.0, "ppid": 1, "uid": 501,
        "command": "burner-whole-name", "exe": "/usr/bin/burner", "cmdline": "/usr/bin/burner --token=*** -v",
        "tty": "ttys003", "state": "running", "state_raw": "SRUN", "priority": 47, "nice": 5, "threads": 3,
        "cpu_seconds_total": 11.375, "cpu_user_seconds_total": 10.25, "cpu_system_seconds_total": 1.125,
        "children_cpu_seconds_total": 4.0, "cpu_percent": 75.0, "memory_bytes": 5500000,
        "memory_peak_bytes": 9000000, "pageins_total": 10, "pageins_per_s": 6.0, "faults_total": 1050,
        "faults_per_s": 300.0, "disk_read_bytes_total": 504096, "disk_write_bytes_total": 258192,
        "disk_bytes_per_s": 1500000.0, "context_switches_total": 120, "context_switches_per_s": 200.0,
        "syscalls_total": 35, "syscalls_per_s": 40.0, "mach_messages_total": 350, "mach_messages_per_s": 100.0,
        "instructions_total": 1501000, "cycles_total": 1001000, "ipc": 1.5, "wakeups_total": 70,
        "wakeups_per_s": 40.0, "energy_joules_total": 6.25, "energy_watts": 2.5, "run_delay_seconds_total": 3.0625,
        "run_delay_ms_per_s": 125.0, "qos_interactive_seconds_total": 2.05, "qos_interactive_ms_per_s": 100.0,
    }
    got.pop("user", None)   # 501 has a name on some machines
    assert {name: got[name] for name in expected if name in got} == {
        name: pytest.approx(value, rel=2e-4) if isinstance(value, float) else value for name, value in expected.items()}
    assert set(got) == set(expected)


def test_timebase_alone_would_be_wrong_under_rosetta(machine: Machine) -> None:
    """The trap is real here: counters at 24 MHz, read by the timebase of 1/1, would be 41.67 times too small."""
    fake, host = machine("machine timebase=1/1 tbfrequency=0 counters=24000000\n" + BURNER)
    host.snapshot()
    fake.advance(0.5)
    assert row(host.snapshot(), 100)["cpu_percent"] == pytest.approx(75 / 41.67, rel=0.01)


def test_machine_row(machine: Machine) -> None:
    """Busy cores and available memory of the machine; the 32-bit tick counters wrap in this script."""
    fake, host = machine("machine ncpu=8 busy=+2.5/s free=1000 speculative=200 external=500 purgeable=50\n" + BURNER)
    first = host.snapshot()
    assert "cpu_busy_cores" not in first.machine and first.cpu_cores is None
    fake.advance(2.0)
    second = host.snapshot()
    assert second.machine["cpu_busy_cores"] == pytest.approx(2.5, abs=0.02)
    assert second.machine["memory_available_bytes"] == (1000 - 200 + 500 + 50) * 16384
    assert second.cpu_cores == pytest.approx(0.75)
    facts = host.facts()
    assert (facts.os, facts.cpus, facts.memory_total_bytes, facts.host) == ("macos", 8, 16 * GB, "fake.local")
    assert facts.boot_id == "6F1C3A52-0000-4000-8000-0123456789AB"


def test_no_boot_session_uuid(machine: Machine) -> None:
    """Without kern.bootsessionuuid the boot is told by its minute."""
    _, host = machine("machine bootuuid=none wall=1750000000 uptime=40\n" + BURNER)
    assert host.facts().boot_id == f"boot-{(1750000000 - 40) // 60}"


def test_calls_of_a_tick(machine: Machine) -> None:
    """One listing; one call for a process at rest or of another user; two for one that ran; nothing else a process."""
    script = "".join(f"process idle{i} pid={1000 + i} user=1\n" for i in range(50))
    script += "process root pid=1 uid=0 denied=1\n" + BURNER.split("\n")[2] + "\n"
    fake, host = machine(script)
    for _ in range(3):
        host.snapshot()
        fake.advance(0.3)
    settle(host)
    fake.reset_calls()
    host.snapshot()
    assert fake.calls("proc_listallpids") == 1
    for i in range(50):
        assert fake.calls("proc_pid_rusage", 1000 + i) == fake.calls(None, 1000 + i) == 1
    assert fake.calls("PROC_PIDUNIQIDENTIFIERINFO", 1) == fake.calls(None, 1) == 1
    assert fake.calls(None, 100) == fake.calls("proc_pid_rusage", 100) + fake.calls("PROC_PIDTASKALLINFO", 100) == 2


def test_calls_for_a_new_process(machine: Machine) -> None:
    """A process of one's own is met with three calls on the beat; its arguments are read off it, once."""
    fake, host = machine("process a pid=10\nprocess b pid=11 from=0.2 start=0.1 path=/bin/b args=b|x\n")
    host.snapshot()
    fake.advance(0.3)
    fake.reset_calls()
    host.snapshot()
    assert fake.calls(None, 11) == 3
    assert [fake.calls(f, 11) for f in ("proc_pid_rusage", "PROC_PIDTASKALLINFO", "proc_pidpath")] == [1, 1, 1]
    settle(host)
    fake.advance(0.3)
    assert row(host.snapshot(), 11)["cmdline"] == "b x"
    for _ in range(5):
        fake.advance(0.3)
        host.snapshot()
    settle(host)
    assert fake.calls("sysctl", 11, beat=0) == 1 and fake.calls("sysctl", 11) == 0


def test_rows_at_rest_are_the_same_object(machine: Machine) -> None:
    """The row of a process that did not run is the same object, is not in `changed`, and its rates are 0; an earlier
    snapshot is not touched by a later one."""
    fake, host = machine(BURNER + "at 0.5 burner user=+0/s system=+0/s\n")
    shots = []
    for _ in range(4):
        shots.append(host.snapshot())
        fake.advance(0.3)
    idle = (200, shots[1].processes and next(k for k in shots[1].processes if k[0] == 200)[1])
    assert shots[1].processes[idle] is shots[2].processes[idle] is shots[3].processes[idle]
    assert idle in shots[1].changed and idle not in shots[2].changed
    assert shots[2].processes[idle]["cpu_percent"] == 0.0 and "cpu_percent" not in shots[0].processes[idle]
    assert shots[0].processes is not shots[1].processes
    busy = row(shots[1], 100)
    assert busy["cpu_percent"] == pytest.approx(75.0) and row(shots[3], 100)["cpu_percent"] < 75
    assert [shot.active for shot in shots] == [0, 1, 1, 1]   # runnable time still grows in the script


def test_a_process_that_went_to_sleep(machine: Machine) -> None:
    """Running at its last look and not counted since: it is asked once more, and then told asleep."""
    fake, host = machine("process p pid=10 user=+0.5/s running=1 threads=2\nat 0.5 p user=+0/s running=0\n")
    host.snapshot()
    fake.advance(0.6)
    assert row(host.snapshot(), 10)["state"] == "sleeping"
    fake, host = machine("process p pid=10 user=1 running=1\nat 0.5 p running=0\n")
    host.snapshot()
    fake.advance(0.4)
    assert row(host.snapshot(), 10)["state"] == "running"   # ready, and given no CPU: it is starved
    fake.advance(0.3)
    after = row(host.snapshot(), 10)
    assert (after["state"], after["cpu_percent"]) == ("sleeping", 0.0)


def test_reused_pid(machine: Machine) -> None:
    """The next process of the same pid is another identity, and no rate joins the two."""
    fake, host = machine("process old pid=10 user=1000+0.5/s faults=9e5 to=1\n"
                         "process new pid=10 from=1 start=0.9 user=0+0.1/s faults=10\n")
    host.snapshot()
    fake.advance(0.8)
    before = host.snapshot()
    fake.advance(0.6)
    after = host.snapshot()
    (old,), (new,) = before.processes.keys(), after.processes.keys()
    assert old[0] == new[0] == 10 and old != new
    assert after.exited == (old,) and after.changed == {new} and after.started == 1
    assert row(after, 10)["command"] == "new"
    # Younger than the interval: 0.14 s of CPU (its slope began with the script) over its 0.5 s.
    assert row(after, 10)["cpu_percent"] == pytest.approx(28, abs=0.1)
    fake.advance(0.5)
    assert row(host.snapshot(), 10)["cpu_percent"] == pytest.approx(10)


def test_reused_pid_of_another_user(machine: Machine) -> None:
    """Reuse is seen where no counter may be read, with the unique id and without it."""
    for uniqids in (1, 0):
        fake, host = machine(f"machine uniqids={uniqids}\nprocess old pid=10 uid=0 denied=1 to=1\n"
                             "process new pid=10 uid=0 denied=1 from=1 start=0.9\n")
        (old,) = host.snapshot().processes
        fake.advance(0.5)
        assert host.snapshot().changed == set()
        fake.advance(0.7)
        after = host.snapshot()
        (new,) = after.processes
        assert old != new and after.exited == (old,) and after.changed == {new}


def test_first_sight(machine: Machine) -> None:
    """A process older than the interval has no rates yet; one of the interval has those of its own life; one of a few
    milliseconds has none."""
    fake, host = machine("process launchd pid=1\nprocess old pid=10 from=0.5 user=900+0.5/s\n"
                         "process young pid=11 from=0.5 start=0.8 user=0.05 delay=0.02 faults=100\n"
                         "process newborn pid=12 from=0.995 start=0.995 user=0.004\n")
    host.snapshot()
    fake.advance(1.0)
    shot = host.snapshot()
    assert "cpu_percent" not in row(shot, 10) and row(shot, 10)["cpu_seconds_total"] == pytest.approx(900.5)
    young = row(shot, 11)
    assert young["cpu_percent"] == pytest.approx(25, rel=1e-3) and young["faults_per_s"] == pytest.approx(500)
    assert young["run_delay_ms_per_s"] == pytest.approx(100, rel=1e-3)
    assert "cpu_percent" not in row(shot, 12)
    assert shot.cpu_cores == pytest.approx(0.05, rel=1e-3) and shot.active == 1 and shot.started == 3


def test_other_users_processes(machine: Machine) -> None:
    """What may be read of anybody's process is there, its counters are unknown and not 0, and it is counted."""
    _, host = machine("process sshd pid=77 ppid=1 uid=0 denied=1 path=/usr/sbin/sshd status=run nice=-5\n"
                         "process long pid=78 uid=0 denied=1 comm=com.apple.WebKit.WebContent "
                         "path=/x/com.apple.WebKit.WebContent\n")
    shot = host.snapshot()
    got = row(shot, 77)
    got.pop("user", None)
    assert got == {"pid": 77, "start_ticks": got["start_ticks"], "start_time": got["start_ticks"] / 1e6, "ppid": 1,
                   "uid": 0, "command": "sshd", "exe": "/usr/sbin/sshd", "state_raw": "SRUN", "nice": -5}
    assert got["start_ticks"] > 0 and shot.unreadable == 2 and shot.errors == 0
    assert row(shot, 78)["command"] == "com.apple.WebKit.WebContent"


def test_permission_changes(machine: Machine) -> None:
    """A process that becomes another user's by exec, and back, keeps its identity; its counters go and come."""
    fake, host = machine("process p pid=10 user=1+0.5/s path=/bin/p\n"
                         "at 0.5 p denied=1 uid=0 idversion=9000\nat 1.5 p denied=0 uid=501 idversion=9001\n")
    (key,) = host.snapshot().processes
    seen = []
    for _ in range(4):
        fake.advance(0.6)
        shot = host.snapshot()
        assert list(shot.processes) == [key] and shot.exited == ()
        seen.append((shot.unreadable, shot.processes[key].get("cpu_percent"), "memory_bytes" in shot.processes[key]))
    assert seen == [(1, None, False), (1, None, False), (0, None, True), (0, pytest.approx(50.0), True)]


def test_older_kernels(machine: Machine) -> None:
    """A kernel that does not know the newest flavor is asked for an older one, once; what that lacks is left out."""
    lost = {6: set(), 5: {"energy_watts"}, 4: {"energy_watts"}, 3: {"energy_watts", "ipc", "run_delay_ms_per_s"},
            2: {"energy_watts", "ipc", "run_delay_ms_per_s", "qos_interactive_ms_per_s"},
            0: {"energy_watts", "ipc", "run_delay_ms_per_s", "qos_interactive_ms_per_s", "disk_bytes_per_s"}}
    every = set().union(*lost.values())
    for flavors, missing in lost.items():
        fake, host = machine(f"machine flavors={flavors}\n" + BURNER)
        host.snapshot()
        fake.advance(0.5)
        fake.reset_calls()
        got = row(host.snapshot(), 100)
        assert got["cpu_percent"] == pytest.approx(75.0) and got["memory_bytes"] == 5500000
        assert {name for name in every if name not in got} == missing
        assert fake.calls("proc_pid_rusage", 100) == 1


def test_counters_that_are_not_kept(machine: Machine) -> None:
    """Energy, instructions and cycles that read 0 beside CPU time are unknown, not 0; so are counters that stopped at
    INT32_MAX."""
    fake, host = machine("process p pid=10 user=1+0.5/s csw=2147483600+1000/s unix=5 mach=3e9 faults=2147483000\n")
    host.snapshot()
    fake.advance(0.5)
    got = row(host.snapshot(), 10)
    for name in ("energy_joules_total", "energy_watts", "instructions_total", "ipc", "context_switches_total",
                 "context_switches_per_s", "syscalls_total", "syscalls_per_s"):
        assert name not in got
    assert got["faults_total"] == 2147483000


def test_falling_counters(machine: Machine) -> None:
    """A counter that falls gives no rate, and no huge one."""
    fake, host = machine("process p pid=10 user=100 faults=500 read=1e6 wakeups=10\n"
                         "at 0.3 p user=50+0.1/s faults=5 read=10 wakeups=20\n")
    host.snapshot()
    fake.advance(0.5)
    got = row(host.snapshot(), 10)
    assert "cpu_percent" not in got and "faults_per_s" not in got and "disk_bytes_per_s" not in got
    assert got["wakeups_per_s"] == 20.0
    fake.advance(0.5)
    assert row(host.snapshot(), 10)["cpu_percent"] == pytest.approx(10)


def test_defunct(machine: Machine) -> None:
    """A process that ends and is not waited for stays, told defunct, with its last counters; then it is gone."""
    fake, host = machine("process parent pid=9\nprocess child pid=10 ppid=9 user=1+0.5/s running=1\n"
                         "process dead pid=11 ppid=9 zombie=1 user=2\nprocess other pid=12 uid=0 denied=1 zombie=1\n"
                         "at 0.5 child zombie=1 user=+0/s running=0\nat 1.5 child to=1.5\n")
    shot = host.snapshot()
    assert row(shot, 11)["state"] == "defunct" and row(shot, 11)["cpu_seconds_total"] == 2.0
    assert row(shot, 12)["state"] == "defunct"
    fake.advance(0.6)
    child = row(host.snapshot(), 10)
    assert (child["state"], child["state_raw"], child["cpu_seconds_total"]) == ("defunct", "SZOMB", 1.25)
    fake.advance(0.6)
    shot = host.snapshot()
    assert row(shot, 10)["cpu_percent"] == 0.0
    fake.reset_calls()
    fake.advance(0.1)
    assert host.snapshot().changed == set()
    assert fake.calls(None, 10) == fake.calls(None, 11) == fake.calls(None, 12) == 1
    fake.advance(0.6)
    shot = host.snapshot()
    assert [key[0] for key in shot.exited] == [10] and 10 not in {k[0] for k in shot.processes}


def test_states(machine: Machine) -> None:
    """p_stat and the threads that run give the state."""
    _, host = machine("process a pid=10 status=idle\nprocess b pid=11 status=run running=2\n"
                         "process c pid=12 status=run\nprocess d pid=13 status=sleep\nprocess e pid=14 status=stop\n")
    shot = host.snapshot()
    assert [row(shot, pid)["state"] for pid in range(10, 15)] == ["idle", "running", "sleeping", "sleeping", "stopped"]


def test_what_others_do_is_seen_within_the_refresh(machine: Machine) -> None:
    """A process that is stopped by another did not run; the full reading of every process finds it."""
    fake, host = machine("process p pid=10 user=1\nat 1 p status=stop\n", refresh_s=5.0)
    host.snapshot()
    fake.advance(1.5)
    assert row(host.snapshot(), 10)["state"] == "sleeping"
    fake.advance(5.0)
    assert row(host.snapshot(), 10)["state"] == "stopped"


def test_orphans_are_seen_at_once(machine: Machine) -> None:
    """When a parent goes its children are read in full, though they did not run; theirs of another user too."""
    fake, host = machine("process parent pid=9 to=1\nprocess child pid=10 ppid=9\n"
                         "process root pid=11 ppid=9 uid=0 denied=1\n"
                         "at 1 child ppid=1\nat 1 root ppid=1\n")
    host.snapshot()
    fake.advance(1.1)
    host.snapshot()
    fake.advance(0.3)
    shot = host.snapshot()
    assert row(shot, 10)["ppid"] == row(shot, 11)["ppid"] == 1


def test_exec(machine: Machine) -> None:
    """After exec the identity is the same; name, path and arguments are the new program's."""
    fake, host = machine("process p pid=10 comm=sh path=/bin/sh args=sh|-c|x\n"
                         "at 0.5 p exec=1 comm=python3 path=/usr/bin/python3 user=0.1 args=python3|y.py\n")
    (key,) = host.snapshot().processes
    fake.advance(0.6)
    host.snapshot()
    settle(host)
    fake.advance(0.3)
    shot = host.snapshot()
    got = shot.processes[key]
    assert (got["command"], got["exe"], got["cmdline"]) == ("python3", "/usr/bin/python3", "python3 y.py")


def test_esrch_is_no_proof_of_death(machine: Machine) -> None:
    """A listed process whose calls say ESRCH (in exec) stays, and its counters come back."""
    fake, host = machine("process p pid=10 user=1+0.5/s\nat 0.5 p gone=1\nat 1.0 p gone=0\n")
    (key,) = host.snapshot().processes
    for _ in range(3):
        fake.advance(0.45)
        shot = host.snapshot()
        assert list(shot.processes) == [key] and shot.exited == () and shot.errors == 0
    assert shot.processes[key]["cpu_seconds_total"] == pytest.approx(1.675)


def test_vanished_between_list_and_read(machine: Machine) -> None:
    """A process that is listed and then gone is no error and no row."""
    fake, host = machine("process p pid=10\n")
    host._list = lambda: [10, 4242]  # type: ignore[assignment]
    shot = host.snapshot()
    assert [key[0] for key in shot.processes] == [10] and shot.errors == 0 and shot.started == 1
    fake.advance(0.3)
    assert host.snapshot().exited == ()


def test_the_list_grows(machine: Machine) -> None:
    """More processes than the buffer holds: the list is read again, whole."""
    _, host = machine("".join(f"process p{i} pid={i + 10}\n" for i in range(3000)))
    assert len(host.snapshot().processes) == 3000


def test_no_list_is_a_host_error(machine: Machine) -> None:
    """Without any process there is nothing to sample: said as such."""
    _, host = machine("machine ncpu=1\n")
    with pytest.raises(HostError, match="proc_listallpids"):
        host.snapshot()


def test_uninterruptible(machine: Machine) -> None:
    """A process that was busy and stands still has its threads looked at, off the beat: one that waits for the disk
    is told, and told running again as soon as it runs."""
    fake, host = machine("process p pid=10 user=+0.8/s read=+9e6/s tstates=WUW threads=3\n"
                         "process q pid=11 user=+0.8/s tstates=WWW threads=3\nprocess z pid=12 tstates=U\n"
                         "at 1.0 p user=+0/s read=+0/s\nat 1.0 q user=+0/s\n"
                         "at 5.0 p user=+0.5/s tstates=RWW running=1\n")
    states: list[tuple[str, str]] = []
    for _ in range(20):
        shot = host.snapshot()
        states.append((row(shot, 10)["state"], row(shot, 11)["state"]))
        settle(host)
        fake.advance(0.33)
    assert ("uninterruptible", "sleeping") in states[4:15]
    assert states[-1] == ("running", "sleeping")
    assert row(shot, 12)["state"] == "sleeping" and fake.calls("PROC_PIDLISTTHREADS", 12, beat=-1) == 0
    assert fake.calls("PROC_PIDLISTTHREADS", beat=1) == fake.calls("PROC_PIDTHREADINFO", beat=1) == 0


def gpu_plist(**used: int) -> bytes:
    """What `ioreg -a` prints, with one client for each pid."""
    return plistlib.dumps([{"IOObjectClass": "AGXAccelerator", "IORegistryEntryID": 1, "IORegistryEntryChildren": [
        {"IORegistryEntryID": 10 + i, "IOUserClientCreator": f"pid {pid.strip('p')}, x",
         "AppUsage": [{"API": "Metal", "accumulatedGPUTime": ns}]} for i, (pid, ns) in enumerate(used.items())]}])


def test_gpu(machine: Machine) -> None:
    """GPU time comes off the beat: total and rate; a sum that falls begins anew; who has no client has no fields."""
    from rogue_hunter.host.iokit import ioreg_reader

    now: dict[str, int] = {"p10": 1_000_000_000}
    fake, host = machine("process a pid=10\nprocess b pid=11\nprocess c pid=12\n",
                         gpu=ioreg_reader(lambda: gpu_plist(**now)))
    shot = host.snapshot()
    assert row(shot, 10)["gpu_seconds_total"] == 1.0 and "gpu_ms_per_s" not in row(shot, 10)
    got: list[list[float | None]] = []
    for used in ({"p10": 1_500_000_000, "p11": 250_000_000}, {"p10": 400_000_000, "p11": 250_000_000}, {"p11": 0}):
        now = used
        fake.advance(1.0)
        host.snapshot()
        settle(host)
        fake.advance(0.1)
        shot = host.snapshot()
        settle(host)
        got.append([row(shot, pid).get("gpu_ms_per_s") for pid in (10, 11, 12)])
    assert got[0] == [pytest.approx(500, rel=0.15), pytest.approx(250, rel=0.15), None]
    assert got[1] == [None, 0.0, None]
    assert "gpu_seconds_total" not in row(shot, 10) and row(shot, 11)["gpu_seconds_total"] == 0.0


def test_run_delay_catches_up(machine: Machine) -> None:
    """Runnable time that the kernel books late (when the thread blocks) is spread over the ticks in which it waited."""
    fake, host = machine("process p pid=10 user=1 running=1\nat 2.05 p delay=2 user=1.01 running=0\n")
    rates = []
    for _ in range(11):
        rates.append(row(host.snapshot(), 10).get("run_delay_ms_per_s"))
        fake.advance(0.25)
    assert max(r for r in rates if r is not None) == pytest.approx(2000 / 2.25, rel=0.01)
    assert rates[-1] == 0.0


def test_signals_reach_only_who_was_meant(machine: Machine) -> None:
    """A signal by pid and version: not to the next process of the pid, not after an exec, not to another user's."""
    fake, _ = machine("process p pid=10 idversion=70 ignores=1\nprocess other pid=11 idversion=71 denied=1\n"
                      "at 1 p idversion=72\n")
    lib = fake.library
    assert signal_exact(lib, 10, 70, 15) == 0 and signal_exact(lib, 11, 71, 15) == EPERM
    assert signal_exact(lib, 10, 69, 9) == signal_exact(lib, 12, 70, 9) == ESRCH
    fake.advance(1.5)
    assert signal_exact(lib, 10, 70, 9) == ESRCH and fake.signals("p") == [15]
    assert signal_exact(lib, 10, 72, 9) == 0 and signal_exact(lib, 10, 72, 9) == ESRCH
    assert fake.signals("p") == [15, 9] and fake.signals("other") == []
    lib.proc_signal_with_audittoken = None
    assert signal_exact(lib, 10, 72, 15) is None


def test_thread_priorities(machine: Machine) -> None:
    """The sampling thread asks for user-initiated quality of service once; the worker for less."""
    fake, host = machine(BURNER)
    for _ in range(3):
        host.snapshot()
    assert fake.calls("pthread_set_qos_class_self_np", beat=-1) == 2


def test_clocks(machine: Machine) -> None:
    """The beat's clocks: monotonic stops in sleep, the other goes on, and the beat tells the difference."""
    for timebase in TIMEBASES.values():
        fake = Fake(f"machine {timebase}\nprocess p pid=10\nat 1.5 machine asleep=30\n")
        clock = darwin_clock(fake.library)

        def sleep(seconds: float, fake: Fake = fake) -> bool:
            fake.advance(seconds)
            return True

        got = [(round(b.interval_s, 3), round(b.asleep_s, 3)) for b in beats(1.0, sleep, clock, count=4)]
        assert got == [(0.0, 0.0), (1.0, 0.0), (1.0, 30.0), (1.0, 0.0)]


def test_through_the_sample_stage(machine: Machine) -> None:
    """rh-sample's stage on this host: closing rows add up."""
    fake, host = machine("machine busy=+2/s\n" + BURNER)
    typed: Host = host

    def sleep(seconds: float) -> bool:
        fake.advance(seconds)
        return True

    ticks = list(sample(typed, beats(2.0, sleep, darwin_clock(fake.library), count=3), silent_first=True))
    assert [t.row["seq"] for t in ticks if t.row] == [0, 1]
    last = ticks[-1].row
    assert last is not None
    assert (last["processes"], last["active"], last["unreadable"], last["os"]) == (3, 1, 1, "macos")
    assert last["cpu_busy_cores"] == pytest.approx(2.0, abs=0.1)
    assert last["unattributed_cpu_cores"] == pytest.approx(1.25, abs=0.1)
