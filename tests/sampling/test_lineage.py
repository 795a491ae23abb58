"""Children's CPU, orphans, units of work."""

from __future__ import annotations

from typing import Any

import pytest

from rogue_hunter.sampling.lineage import Lineage
from rogue_hunter.sampling.units import unit_of
from rogue_hunter.stream.pipeline import chain
from rogue_hunter.stream.tick import Row, Tick
from tests.tools.ticks import closing, key, row, stream


def shell(children_s: float, **more: Any) -> Row:
    """A shell that has reaped children of so much CPU time."""
    return row(50, 500, command="bash", children_cpu_seconds_total=children_s, **more)


def by_pid(tick: Tick) -> dict[int, Row]:
    return {k[0]: r for k, r in tick.processes.items()}


def test_unseen_children_are_credited() -> None:
    """A loop of children that no snapshot contains: their CPU time is the shell's, and 0 once the loop has ended."""
    ticks = list(chain(stream([[shell(1.0)], [shell(1.3)], [shell(1.6)], [shell(1.6)]], unattributed_cpu_cores=1.5), Lineage()))
    assert [by_pid(t)[50].get("children_cpu_percent") for t in ticks] == [None, 90.0, 90.0, None]
    assert ticks[1].row is not None and ticks[1].row["unattributed_cpu_cores"] == pytest.approx(0.6)


def test_a_child_that_was_seen_counts_once() -> None:
    """What a child used in its own rows is not counted again when its parent collects it."""
    child = [row(60, 600, ppid=50, command="cc", cpu_seconds_total=t) for t in (1.0, 2.0)]
    ticks = list(chain(stream([[shell(0.0), child[0]], [shell(0.0), child[1]], [shell(2.25)], [shell(2.25)]]), Lineage()))
    assert by_pid(ticks[2])[50]["children_cpu_percent"] == pytest.approx(75.0, abs=0.1)
    assert by_pid(ticks[3])[50].get("children_cpu_percent") is None


def test_grandchildren_pass_up_once() -> None:
    """A child's own children's time, already credited to the child, does not come up again as its parent's."""
    make = [row(60, 600, ppid=50, cpu_seconds_total=0.1, children_cpu_seconds_total=c) for c in (0.0, 3.0)]
    ticks = list(chain(stream([[shell(0.0), make[0]], [shell(0.0), make[1]], [shell(3.1)]], cpus=16), Lineage()))
    assert by_pid(ticks[1])[60]["children_cpu_percent"] == pytest.approx(900, abs=1)
    assert by_pid(ticks[2])[50].get("children_cpu_percent") is None


def test_no_more_than_all_cores() -> None:
    """An hour of children's time that arrives at once is no spike above what the machine has."""
    ticks = list(chain(stream([[shell(0.0)], [shell(3600.0)]], cpus=4), Lineage()))
    assert by_pid(ticks[1])[50]["children_cpu_percent"] == pytest.approx(400, abs=0.1)


def test_credit_too_early_is_owed_back() -> None:
    """A child reaped between the two readings is credited a tick early, and taken back when it is found gone."""
    child = row(60, 600, ppid=50, command="cc", cpu_seconds_total=0.2)
    ticks = list(chain(stream([[shell(0.0), child], [shell(0.2), child], [shell(0.2)], [shell(0.4)]]), Lineage()))
    credit = [by_pid(t)[50].get("children_cpu_percent", 0.0) for t in ticks]
    assert credit[1] == pytest.approx(60, abs=0.1)
    assert credit[2] == 0.0
    assert credit[3] == 0.0, "0.2 s owed from the tick before"


def test_idle_rows_are_the_same_objects() -> None:
    """A row that did not change is the same object in the next tick, and no change is reported."""
    idle = [row(pid) for pid in range(10, 20)]
    ticks = list(chain(stream([idle, idle, idle]), Lineage()))
    for k, made in ticks[1].processes.items():
        assert ticks[2].processes[k] is made
    assert not ticks[2].changed


def test_rows_handed_in_are_not_changed() -> None:
    """The stage makes new rows; those it was given stay as they are."""
    given = shell(1.0)
    before = dict(given)
    list(chain(stream([[given], [shell(2.0)]]), Lineage()))
    assert given == before


def test_orphan_remembers_its_parent() -> None:
    """When the parent dies, the record says who it was and what it belonged to."""
    parent = row(60, 600, ppid=50, command="claude")
    child = row(70, 700, ppid=60, command="tail")
    adopted = {**child, "ppid": 1}
    ticks = list(chain(stream([[shell(0.0), parent, child], [shell(0.0), adopted], [shell(0.0), adopted]]), Lineage()))
    assert "orphan_of" not in by_pid(ticks[0])[70]
    assert by_pid(ticks[1])[70]["orphan_of"] == "claude[60]"
    assert by_pid(ticks[2])[70]["orphan_of"] == "claude[60]"


def test_unit_is_the_topmost_child_of_a_shell() -> None:
    """What a person started at a prompt is one unit, with everything below it."""
    rows = [shell(0.0), row(60, 600, ppid=50, command="cargo"), row(70, 700, ppid=60, command="rustc"),
            row(80, 800, ppid=70, command="cc")]
    (tick,) = chain(stream([rows]), Lineage())
    assert {pid: r["unit"] for pid, r in by_pid(tick).items()} == {
        50: "bash[50]", 60: "cargo[60]", 70: "cargo[60]", 80: "cargo[60]"}


def test_a_parent_younger_than_its_child_is_ignored() -> None:
    """A pid that was given out again is not the parent that the child had."""
    (tick,) = chain(stream([[row(60, 900, command="late"), row(70, 700, ppid=60, command="tool")]]), Lineage())
    assert by_pid(tick)[70]["unit"] == "tool[70]"


def test_a_ring_of_parents_ends() -> None:
    """Nonsense in, an answer out."""
    (tick,) = chain(stream([[row(60, 600, ppid=70), row(70, 600, ppid=60)]]), Lineage())
    assert all("unit" in r for r in tick.processes.values())


@pytest.mark.parametrize(("fields", "unit"), [
    ({"cgroup": "/system.slice/docker-0123456789abcdef0123456789abcdef.scope"}, "container:0123456789ab"),
    ({"cgroup": "/docker/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}, "container:0123456789ab"),
    ({"cgroup": "/kubepods.slice/kubepods-pod1.slice/cri-containerd-0123456789abcdef0123456789abcdef.scope"},
     "container:0123456789ab"),
    ({"cgroup": "/lxc.payload.web/init.scope"}, "container:web"),
    ({"cgroup": "/system.slice/nginx.service"}, "nginx.service"),
    ({"cgroup": "/user.slice/user-1000.slice/user@1000.service/app.slice/syncthing.service"}, "syncthing.service"),
    ({"cgroup": "/user.slice/user-1000.slice/session-3.scope"}, None),
    ({"cgroup": "/user.slice/user-1000.slice/user@1000.service/app.slice/app-org.gnome.Terminal.slice/"
                "vte-spawn-9.scope"}, None),
    ({"exe": "/Applications/Slack.app/Contents/Frameworks/Slack Helper.app/Contents/MacOS/Slack Helper"}, "Slack.app"),
    ({"exe": "/usr/bin/vim"}, None),
    ({}, None),
])
def test_unit_of_cgroup_and_path(fields: Row, unit: str | None) -> None:
    """Containers, services, scopes and apps by their names; a session's scope is no unit of work."""
    assert unit_of(fields) == unit


def test_partial_ticks_keep_what_is_known() -> None:
    """With rows left out, the others are still completed, and only rows of the tick come out."""
    first = [shell(1.0), row(60)]
    ticks = list(stream([first, first]))
    some = shell(1.5)
    part = Tick(closing(2, 2), {key(some): some}, {key(some)})
    *_, last = chain([*ticks, part], Lineage())
    assert list(last.processes) == [(50, 500)]
    assert last.processes[(50, 500)]["children_cpu_percent"] > 0
