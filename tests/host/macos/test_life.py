"""The life of a process as the macOS host sees it: begin, exec, end, reuse of its pid, and who may read it."""

from __future__ import annotations

import pytest

from rogue_hunter.host.macos.host import DarwinHost
from tests.macos.fake import Fake
from tests.macos.machine import Machine, row, scripted, settle

machine = pytest.fixture(scripted)


def test_a_process_that_went_to_sleep(machine: Machine) -> None:
    """Running at its last look and not counted since: it is read once more, and then reported asleep."""
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


def test_defunct(machine: Machine) -> None:
    """A process that ends and is not waited for stays, reported as defunct, with its last counters; then it is gone."""
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
    assert [row(shot, pid).get("state") for pid in range(10, 15)] == [None, "running", "sleeping", "sleeping", "stopped"]


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


def test_a_clock_that_is_set_leaves_ages_right() -> None:
    """The kernel keeps the start time of the wall clock of then; a sleep is no change of the clock."""
    fake, ahead = Fake("process p pid=10\n"), 0.0
    host = DarwinHost(fake.library, wall=lambda: fake.handle.fake_wall() + ahead)
    try:
        started = row(host.snapshot(), 10)["start_time"]
        for step, shift in ((7200.0, 7200.0), (-7200.0, 0.0), (0.2, 0.0)):
            ahead += step
            fake.advance(0.5)
            assert row(host.snapshot(), 10)["start_time"] == pytest.approx(started + shift, abs=0.01)
    finally:
        host.close()
