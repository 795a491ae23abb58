"""What the macOS host learns off the beat or late: GPU time, thread states, run delay; and its clocks."""

from __future__ import annotations

import plistlib

import pytest

from rogue_hunter.host.macos.iokit import ioreg_reader
from rogue_hunter.host.macos.machine import darwin_clock
from rogue_hunter.stream.clock import Rate, beats
from tests.macos.fake import Fake
from tests.macos.machine import BURNER, TIMEBASES, Machine, row, scripted, settle

machine = pytest.fixture(scripted)


def test_uninterruptible(machine: Machine) -> None:
    """The threads of a process that was busy and stopped are read, off the beat: one that waits for the disk
    is reported, and reported as running again as soon as it runs."""
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
    """GPU time comes off the beat: total and rate; a sum that falls restarts; a process without a client has no fields."""
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


def test_thread_priorities(machine: Machine) -> None:
    """The sampling thread asks for user-initiated quality of service once; the worker for less."""
    fake, host = machine(BURNER)
    for _ in range(3):
        host.snapshot()
    assert fake.calls("pthread_set_qos_class_self_np", beat=-1) == 2


def test_clocks(machine: Machine) -> None:
    """The beat's clocks: monotonic stops in sleep, the other continues, and the beat reports the difference."""
    for timebase in TIMEBASES.values():
        fake = Fake(f"machine {timebase}\nprocess p pid=10\nat 1.5 machine asleep=30\n")
        clock = darwin_clock(fake.library)

        def sleep(seconds: float, fake: Fake = fake) -> bool:
            fake.advance(seconds)
            return True

        got = [(round(b.interval_s, 3), round(b.asleep_s, 3)) for b in beats(Rate(1.0), sleep, clock, count=4)]
        assert got == [(0.0, 0.0), (1.0, 0.0), (1.0, 30.0), (1.0, 0.0)]
