"""The macOS host on a scripted machine: the same ctypes code that runs on a Mac, against a libproc of our own."""

from __future__ import annotations

import ctypes

import pytest

from rogue_hunter.host.macos.machine import darwin_clock
from rogue_hunter.host.protocol import Host, HostError
from rogue_hunter.sampling.sample import sample
from rogue_hunter.schema.sampling import PROCESS
from rogue_hunter.stream.clock import Rate, beats
from tests.macos.machine import BURNER, TIMEBASES, Machine, row, scripted, settle

GB = 1 << 30

machine = pytest.fixture(scripted)


@pytest.mark.parametrize("timebase", TIMEBASES.values(), ids=TIMEBASES.keys())
def test_numbers_are_the_script_s(machine: Machine, timebase: str) -> None:
    """Every total and every rate is that of the script, in any unit of the counters."""
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


def test_busy_beside_another_client(machine: Machine) -> None:
    """A second monitor uses up the requests that macOS answers: host_statistics then repeats itself, and busy cores and
    available memory are known in every tick all the same, with two calls for the machine on the beat."""
    fake, host = machine("machine ncpu=8 others=12 busy=+4.98/s free=1000 external=500\nat 20 machine free=100\n"
                         "process p pid=10\n")
    host.snapshot()
    repeated, last = 0, b""
    for beat in range(90):
        fake.advance(1 / 3)
        buffer, words = ctypes.create_string_buffer(16), ctypes.c_uint32(4)
        assert fake.handle.host_statistics(4711, 3, buffer, ctypes.byref(words)) == 0
        repeated, last = repeated + (buffer.raw == last), buffer.raw
        fake.reset_calls()
        shot = host.snapshot()
        settle(host)
        assert shot.machine["cpu_busy_cores"] == pytest.approx(4.98, abs=0.1), beat
        assert shot.machine["memory_available_bytes"] in (1500 * 16384, 600 * 16384)
        assert fake.calls("host_processor_info") == fake.calls("vm_deallocate") == 1
        assert fake.calls("sysctlbyname") == fake.calls("host_statistics") == 0
    assert shot.machine["memory_available_bytes"] == 600 * 16384
    assert repeated > 20 and fake.handle.fake_allocated() == 0


def test_no_boot_session_uuid(machine: Machine) -> None:
    """Without kern.bootsessionuuid the boot is identified by its minute."""
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
    """A process of the same user takes three calls on the beat when it is found; its arguments are read off it, once."""
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


def test_the_list_grows(machine: Machine) -> None:
    """More processes than the buffer holds: the list is read again, whole."""
    _, host = machine("".join(f"process p{i} pid={i + 10}\n" for i in range(3000)))
    assert len(host.snapshot().processes) == 3000


def test_no_list_is_a_host_error(machine: Machine) -> None:
    """Without any process there is nothing to sample: one clear error."""
    _, host = machine("machine ncpu=1\n")
    with pytest.raises(HostError, match="proc_listallpids"):
        host.snapshot()


def test_through_the_sample_stage(machine: Machine) -> None:
    """rh-sample's stage on this host: closing rows add up."""
    fake, host = machine("machine busy=+2/s\n" + BURNER)
    typed: Host = host

    def sleep(seconds: float) -> bool:
        fake.advance(seconds)
        return True

    ticks = list(sample(typed, beats(Rate(2.0), sleep, darwin_clock(fake.library), count=3), silent_first=True))
    assert [t.row["seq"] for t in ticks if t.row] == [0, 1]
    last = ticks[-1].row
    assert last is not None
    assert (last["processes"], last["active"], last["unreadable"], last["os"]) == (3, 1, 1, "macos")
    assert last["cpu_busy_cores"] == pytest.approx(2.0, abs=0.1)
    assert last["unattributed_cpu_cores"] == pytest.approx(1.25, abs=0.1)
