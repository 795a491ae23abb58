"""Processes that are never signalled: each guard alone, and all combinations."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rogue_hunter.reaper.guards import GUARDS, refusals
from rogue_hunter.reaper.process import Live, Me, live
from rogue_hunter.rules.model import Safety

ME = Me(pid=5000, uids=(1000, 1000, 1000), ancestors=frozenset({4000, 3000, 1}), session=2500)
SAFETY = Safety(whitelist=("vim", "gnome-terminal-server"))
PLAIN: dict[str, Any] = {"pid": 9000, "command": "victim", "exe": "", "cmdline": "", "uids": (1000,) * 4, "leader": None, "session": 9000}

PROTECTED: dict[str, dict[str, Any]] = {
    "not_my_uid": {"uids": (1001,) * 4}, "root": {"uids": (1000, 0, 1000, 1000)}, "low_pid": {"pid": 999},
    "self": {"pid": 5000}, "ancestor": {"pid": 4000}, "session_leader": {"pid": 2500},
    "rogue_hunter": {"command": "rh-pipe"}, "kernel_thread": {"kernel_thread": True}, "thread": {"leader": 8999},
    "whitelist": {"exe": "/usr/bin/vim"}, "unreadable": {"cmdline": None},
}
"""What makes each guard speak."""


def process(**fields: Any) -> Live:
    given = {**PLAIN, **fields}
    row = {name: given[name] for name in ("command", "exe", "cmdline", "tty") if given.get(name) is not None}
    pid = given["pid"]
    leader = pid if given["leader"] is None else given["leader"]
    return live((pid, 7), row, given["uids"], leader=leader, session=given["session"],
                kernel_thread=given.get("kernel_thread", False))


def codes(p: Live, me: Me = ME, safety: Safety = SAFETY) -> set[str]:
    return {r.code for r in refusals(p, me, safety)}


def test_a_plain_process_is_not_protected() -> None:
    assert codes(process()) == set()


@pytest.mark.parametrize(("hidden_before", "refused"), [(6, set()), (7, {"ancestor"})])
def test_what_is_older_than_a_hidden_ancestor_may_be_one(hidden_before: int, refused: set[str]) -> None:
    assert codes(process(), replace(ME, hidden_before=hidden_before)) == refused


@pytest.mark.parametrize("code", GUARDS)
def test_each_guard_speaks_with_a_sentence(code: str) -> None:
    found = refusals(process(**PROTECTED[code]), ME, SAFETY)
    assert code in {r.code for r in found} and all(r.text and "\n" not in r.text for r in found)


def test_no_protection_takes_another_one_back() -> None:
    """All 2^11 mixes: with any protection, the process is refused. (Two may ask for other pids; the
    later one wins there, and its own guard speaks.)"""
    for size in range(len(PROTECTED) + 1):
        for mix in itertools.combinations(PROTECTED.items(), size):
            fields: dict[str, Any] = {}
            for _, more in mix:
                fields.update(more)
            standing = {code for code, more in mix if all(fields[k] == v for k, v in more.items())}
            if "kernel_thread" in standing:
                standing -= {"unreadable"}      # it has neither program nor arguments
            found = codes(process(**fields))
            assert standing <= found and bool(found) == bool(mix)


@given(
    pid=st.integers(0, 1 << 22), uids=st.lists(st.sampled_from([0, 999, 1000, 1001, 65534]), max_size=4).map(tuple),
    leader=st.integers(0, 1 << 22) | st.none(), session=st.integers(0, 1 << 22), kernel_thread=st.booleans(),
    command=st.sampled_from(["victim", "vim", "rh-tail", "bash", "", "\x1b[2J", "gnome-terminal-"]),
    tty=st.sampled_from(["pts/1", None]), min_pid=st.integers(0, 40_000))
def test_a_process_that_passes_is_ours_and_has_no_protection(
        pid: int, uids: tuple[int, ...], leader: int | None, session: int, kernel_thread: bool, command: str,
        tty: str | None, min_pid: int) -> None:
    """The other way round: what no guard objects to has every property that a victim must have."""
    fields = {"tty": tty} if tty else {}
    p = process(pid=pid, uids=uids, leader=leader, session=session, kernel_thread=kernel_thread, command=command,
                **fields)
    if codes(p, ME, Safety(("vim", "gnome-terminal-server"), min_pid)):
        return
    assert set(p.uids) == {1000} and pid >= max(1000, min_pid) and p.leader == pid and not kernel_thread
    assert pid not in {ME.pid, ME.session, *ME.ancestors} and command in ("victim", "bash", "", "\x1b[2J")
    assert not (command == "bash" and tty and session == pid)


@pytest.mark.parametrize(("uids", "mine"), [
    ((), (1000,)), ((1000, 1000, 1000, 1001), (1000,)), ((1001, 1000, 1000, 1000), (1000,)),
    ((1000,) * 4, (1000, 0, 0)), ((65534,) * 4, (65534,)), ((1000, 1000, 0, 1000), (1000,)), ((0,) * 4, (0,)),
])
def test_every_one_of_the_user_ids_counts(uids: tuple[int, ...], mine: tuple[int, ...]) -> None:
    """A setuid program, a reaper that is one, the user that stands for everybody, and root's own processes."""
    assert codes(process(uids=uids), Me(5000, mine, frozenset(), 0)) & {"not_my_uid", "root"}


def test_in_a_pid_namespace_of_its_own_low_pids_are_ordinary() -> None:
    """A container has no system processes, and all of its pids may be low; pid 1 is protected there too."""
    inside = replace(ME, own_pid_namespace=True)
    assert codes(process(pid=60), inside) == set() and codes(process(pid=2), inside) == set()
    assert codes(process(pid=1), inside) >= {"low_pid"}
    assert codes(process(pid=60), inside, Safety(min_pid=100)) == codes(process(pid=60), ME) == {"low_pid"}
    assert codes(process(pid=60), inside, Safety(min_pid=10)) == set()


def test_min_pid_can_be_raised_and_never_lowered() -> None:
    assert codes(process(pid=1500), safety=Safety(min_pid=2000)) == {"low_pid"}
    assert codes(process(pid=999), safety=Safety(min_pid=1)) == {"low_pid"}
    assert codes(process(pid=1000), safety=Safety(min_pid=1)) == set()


@pytest.mark.parametrize(("fields", "expected"), [
    ({"command": "bash", "tty": "pts/3"}, {"session_leader"}),
    ({"command": "bash", "tty": "pts/3", "session": 1}, set()),
    ({"command": "bash"}, set()), ({"command": "loop", "tty": "pts/3"}, set()),
    ({"command": "x", "exe": "/bin/zsh", "tty": "tty1"}, {"session_leader"}),
])
def test_a_persons_shell_is_a_session_leader_with_a_terminal(fields: dict[str, Any], expected: set[str]) -> None:
    assert codes(process(**fields)) == expected


@pytest.mark.parametrize("shell", [
    "sh", "bash", "dash", "zsh", "ksh", "mksh", "ash", "fish", "tcsh", "csh", "nu", "elvish", "pwsh", "login", "su",
    "sudo", "doas", "xonsh", "busybox", "BASH"])
def test_what_a_person_types_into(shell: str) -> None:
    """The shells that people log in with, and what stands between a terminal and its shell."""
    assert codes(process(command=shell, tty="pts/3")) == {"session_leader"}
    (found,) = refusals(process(command="x", exe=f"/usr/bin/{shell}", tty="pts/3"), ME, SAFETY)
    assert found.text == "it is the login shell of pts/3"


@pytest.mark.parametrize(("cmdline", "expected"), [
    ("python3 /opt/venv/bin/rh-pipe --hz 3", True), ("python3 -m rogue_hunter sample", True),
    ("python3 -m rogue_hunter.cli.sample", True), ("/usr/bin/rh-sample", True), ("python3 my-rh-thing", False),
    ("less rh-pipe", False), ("tail -f rogue_hunter.log", False),
])
def test_what_is_part_of_rogue_hunter(cmdline: str, expected: bool) -> None:
    p = process(command=cmdline.partition(" ")[0].rsplit("/", 1)[-1], cmdline=cmdline)
    assert (codes(p) == {"rogue_hunter"}) is expected


@pytest.mark.parametrize("missing", ["command", "exe", "cmdline"])
def test_a_process_with_unread_names_may_be_protected(missing: str) -> None:
    """The whitelist, the shell of a session and rogue-hunter itself are known by name."""
    plain = {"command": "victim", "exe": "/bin/victim", "cmdline": "victim"}
    assert codes(process(**plain)) == set()
    (found,) = refusals(process(**plain | {missing: None}), ME, SAFETY)
    assert found.code == "unreadable" and "cannot be read" in found.text
    assert codes(process(**plain | {missing: None}), safety=Safety()) == {"unreadable"}


def test_a_shell_of_which_the_session_is_not_known_may_lead_it() -> None:
    assert codes(process(command="bash", tty="pts/3", session=None)) == {"session_leader"}
    assert codes(process(command="bash", session=None)) == codes(process(tty="pts/3", session=None)) == set()


def test_hostile_names_are_harmless_in_the_sentence() -> None:
    (found,) = refusals(process(command="rh-\x1b[2J\nx"), ME, SAFETY)
    assert "\x1b" not in found.text and "\n" not in found.text
