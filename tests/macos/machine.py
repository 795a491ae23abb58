"""A scripted Mac and a host that reads it, for the tests of the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from rogue_hunter.host.macos.host import DarwinHost
from rogue_hunter.host.protocol import Snapshot
from tests.macos.fake import Fake

Machine = Callable[..., tuple[Fake, DarwinHost]]

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
"""


def scripted() -> Iterator[Machine]:
    """A fixture's body: make scripted machines and hosts that read them; closed at the end."""
    hosts: list[DarwinHost] = []

    def make(script: str, **options: Any) -> tuple[Fake, DarwinHost]:
        fake = Fake(script)
        hosts.append(fake.host(**options))
        return fake, hosts[-1]

    yield make
    for host in hosts:
        host.close()


def row(shot: Snapshot, pid: int) -> dict[str, Any]:
    """The row of the one process that has `pid` now."""
    rows = [r for key, r in shot.processes.items() if key[0] == pid]
    assert len(rows) == 1
    return rows[0]


def settle(host: DarwinHost) -> None:
    """Let the worker finish; what it found is in the next snapshot."""
    host._slow.wait(10)
