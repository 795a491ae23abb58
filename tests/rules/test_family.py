"""Who has lost a parent, as far as that can be known."""

from __future__ import annotations

import pytest

from rogue_hunter.rules.matcher import SERVICE_MANAGERS, Family, Kin
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Row

CHILD: Key = (1000, 7)


def met(row: Row, others: dict[Key, Row], *, listed: bool = True) -> Kin:
    """A process that is seen for the first time, among others."""
    family = Family()
    family.register([*others, CHILD])
    return family.add(CHILD, row, {**others, CHILD: row} if listed else {CHILD: row})


class TestFirstSight:
    def test_a_child_with_a_parent_is_no_orphan(self) -> None:
        kin = met({"ppid": 900}, {(900, 5): {"command": "bash"}})
        assert (kin.ppid, kin.parent, kin.orphan, kin.orphan_of) == (900, "bash[900]", False, "")
        assert met({"ppid": 900}, {(900, 5): {}}).parent == "[900]"

    def test_a_child_of_pid_1_had_another_parent(self) -> None:
        kin = met({"ppid": 1, "cgroup": "/"}, {(1, 0): {"command": "init"}})
        assert (kin.orphan, kin.orphan_of, kin.parent) == (True, "", "init[1]")
        assert met({"ppid": 1, "cgroup": ""}, {}).orphan is True

    def test_a_control_group_that_was_not_read_may_be_a_services(self) -> None:
        """A service's first tick comes before its control group is known: it is no orphan until that is read."""
        for cgroup, orphan in (("/system.slice/a.service", False), ("/user.slice/x.scope", True)):
            kin = met({"ppid": 1}, {(1, 0): {"command": "systemd"}})
            assert kin.orphan is None
            kin.update({"ppid": 1, "cgroup": cgroup})
            assert kin.orphan is orphan
            kin.update({"ppid": 1, "cgroup": "/other.service"})
            assert kin.orphan is orphan
        assert Family(cgroups=False).add(CHILD, {"ppid": 1}, {}).orphan is True

    @pytest.mark.parametrize(("cgroup", "orphan"), [
        ("/system.slice/cron.service", False), ("/user.slice/user-1000.slice/session-2.scope", True),
        ("/service.slice", True), ("", True), ("/system.slice/udev.service/udev", False),
        ("/user.slice/user@1000.service/app.slice/a.service/main/worker", False),
        ("/user.slice/user@1000.service/app.slice/vte-spawn-1.scope", True)])
    @pytest.mark.parametrize("parent", [(1, 0), (800, 3)])
    def test_unless_it_is_a_service(self, parent: Key, cgroup: str, orphan: bool) -> None:
        """A service is its manager's child by design."""
        assert met({"ppid": parent[0], "cgroup": cgroup}, {parent: {"command": "systemd"}}).orphan is orphan

    @pytest.mark.parametrize("name", ["systemd", "launchd"])
    def test_the_managers_that_take_in_orphans(self, name: str) -> None:
        """`systemd --user` is not pid 1 and does."""
        assert met({"ppid": 800, "cgroup": "/"}, {(800, 3): {"command": name}}).orphan is True
        assert met({"ppid": 800}, {(800, 3): {"command": name + "x"}}).orphan is False
        assert sorted(SERVICE_MANAGERS) == ["launchd", "systemd"]

    @pytest.mark.parametrize("first", ["bash", "sh", "node", "python3", "docker-init", "tini", "pause", "s6-svscan"])
    def test_where_pid_1_is_any_program_it_is_unknown(self, first: str) -> None:
        """In a container its children are its own or orphans that fell to it."""
        for row in ({"ppid": 1}, {"ppid": 1, "cgroup": "/"}, {"ppid": 1, "cgroup": "/docker/0123456789ab"}):
            assert met(row, {(1, 0): {"command": first}}).orphan is None
            for session, orphan in ((0, None), (CHILD[0], None), (70, True)):
                assert met({"cgroup": "/", **row, "session": session}, {(1, 0): {"command": first, "session": 0}}
                           ).orphan is orphan
        assert met({"ppid": 900}, {(900, 0): {"command": first}}).orphan is False

    def test_a_parent_that_is_not_known_says_nothing(self) -> None:
        for kin in (met({}, {}), met({"ppid": 0}, {(0, 0): {"command": "x"}})):
            assert (kin.ppid, kin.orphan, kin.orphan_of) == (0, None, "")
        unseen = met({"ppid": 900}, {(900, 5): {"command": "bash"}}, listed=False)
        assert (unseen.parent, unseen.orphan) == ("", False)
        assert met({"ppid": 900}, {}).orphan is False

    def test_no_process_is_its_own_parent(self) -> None:
        kin = met({"ppid": 1000, "command": "x"}, {})
        assert (kin.parent, kin.orphan) == ("", False)

    def test_an_earlier_observation_is_kept(self) -> None:
        kin = met({"ppid": 1, "orphan_of": "make[77]", "cgroup": "/x.service"}, {(1, 0): {"command": "sh"}})
        assert (kin.orphan, kin.orphan_of) == (True, "make[77]")


class TestLosingAParent:
    def test_another_parent_means_that_the_first_died(self) -> None:
        kin = Kin(900, "bash[900]", False)
        kin.update({"ppid": 900})
        assert (kin.orphan, kin.orphan_of) == (False, "")
        kin.update({})
        assert kin.orphan is False
        kin.update({"ppid": 1})
        assert (kin.ppid, kin.orphan, kin.orphan_of) == (1, True, "bash[900]")

    def test_the_first_one_is_reported(self) -> None:
        """From a subreaper to pid 1: whose child it was is not forgotten."""
        kin = Kin(900, "bash[900]", False)
        kin.update({"ppid": 800})
        kin.parent = "systemd[800]"
        kin.update({"ppid": 1})
        assert kin.orphan_of == "bash[900]"

    def test_pid_1_too_can_be_lost(self) -> None:
        kin = Kin(1, "init[1]", None)
        kin.update({"ppid": 700})
        assert (kin.orphan, kin.orphan_of) == (True, "init[1]")

    def test_a_parent_that_was_not_known_is_not_lost_and_the_next_one_is(self) -> None:
        kin = Kin(0)
        kin.update({"ppid": 900})
        assert (kin.ppid, kin.orphan) == (900, None)
        kin.update({"ppid": 1})
        assert (kin.orphan, kin.orphan_of) == (True, "")

    def test_a_parent_that_is_gone_leaves_orphans_whose_rows_say_nothing_yet(self) -> None:
        family, rows = Family(), {(900, 5): {"command": "bash"}, CHILD: {"ppid": 900}, (1001, 8): {"ppid": 900}}
        family.register(rows)
        first, second = (family.add(key, rows[key], rows) for key in (CHILD, (1001, 8)))
        assert family.remove([(1001, 8)]) == set()
        assert family.remove([(900, 5)]) == {CHILD}
        assert (first.orphan, first.orphan_of, second.orphan) == (True, "bash[900]", False)

    def test_a_child_may_be_listed_before_its_parent(self) -> None:
        rows: dict[Key, Row] = {CHILD: {"ppid": 2000}, (2000, 5): {"command": "make"}}
        family = Family()
        family.register(rows)
        assert family.add(CHILD, rows[CHILD], rows).parent == "make[2000]"

    def test_a_pid_that_changed_hands_is_its_new_owners(self) -> None:
        """The new one is born before the old one is buried; a child of it is not the old one's."""
        family = Family()
        old: dict[Key, Row] = {(900, 5): {"command": "old"}}
        family.register(old)
        new: dict[Key, Row] = {(900, 6): {"command": "new"}, CHILD: {"ppid": 900}}
        family.register(new)
        assert family.remove(old) == set()
        kin = family.add(CHILD, new[CHILD], new)
        assert kin.parent == "new[900]" and family.remove([(900, 6)]) == {CHILD}
        late = family.add((1001, 8), {"ppid": 900}, new)
        assert late.parent == ""

    def test_exited_processes_are_forgotten(self) -> None:
        family = Family()
        for start in range(3):
            rows: dict[Key, Row] = {(900, start): {"command": "bash"}, (1000, start): {"ppid": 900}}
            family.register(rows)
            for key, row in rows.items():
                family.add(key, row, rows)
            for key in reversed(list(rows)):
                family.remove([key])
        assert not any((family._by_pid, family._children, family._parents))
