"""A process as a decision sees it, and which machine is looked at."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from rogue_hunter.reaper.linux import LinuxMachine
from rogue_hunter.reaper.macos import DarwinMachine
from rogue_hunter.reaper.process import Live, live, my_uids
from rogue_hunter.reaper.run import here
from rogue_hunter.stream.tick import Row


def of(row: Row) -> Live:
    return live((4321, 7), row, (1000,) * 4, leader=4321)


@pytest.mark.parametrize(("row", "dead"), [
    ({"state": "defunct"}, True), ({"state": "defunct", "threads": 1}, True), ({"state": "defunct", "threads": 0}, True),
    ({"state": "defunct", "threads": 2}, False), ({"state": "running", "threads": 1}, False),
    ({"state": "stopped"}, False), ({}, False),
], ids=str)
def test_dead_is_defunct_without_a_thread_that_still_runs(row: Row, dead: bool) -> None:
    """A first thread that ended while others run shows as defunct, and the process lives."""
    assert of(row).dead is dead


def test_an_unknown_property_protects_from_nothing() -> None:
    """No session, no kernel thread, no age: the words for unknown."""
    p = of({"command": "x", "exe": "/opt/x y", "cmdline": "/opt/x y -v"})
    assert (p.pid, p.key, p.session, p.kernel_thread, p.age_s) == (4321, (4321, 7), 0, False, 0.0)
    assert p.program.names == ("x", "x y", "/opt/x y") and p.program.line == "x y -v"


def test_our_own_user_ids_are_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system cannot tell the saved one (macOS), the other two."""
    monkeypatch.setattr(os, "getresuid", lambda: (1, 2, 3), raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4)
    monkeypatch.setattr(os, "geteuid", lambda: 5)
    assert my_uids() == (1, 2, 3)
    monkeypatch.delattr(os, "getresuid")
    assert my_uids() == (4, 5)


class TestHere:
    @pytest.fixture(autouse=True)
    def library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A macOS machine says which library it was made of."""
        monkeypatch.setattr(DarwinMachine, "load", classmethod(lambda cls, library: ("darwin", library)))
        monkeypatch.delenv("ROGUE_HUNTER_LIBPROC", raising=False)

    @pytest.mark.parametrize(("platform", "argument", "environment", "expected"), [
        ("darwin", None, None, None), ("darwin", "/a.so", None, "/a.so"), ("darwin", None, "/b.so", "/b.so"),
        ("darwin", None, "", None), ("linux", "/a.so", None, "/a.so"), ("linux", None, "/b.so", "/b.so"),
        ("linux", "/a.so", "/b.so", "/a.so"),
    ])
    def test_macos_or_its_library_wherever_it_is_named(
            self, monkeypatch: pytest.MonkeyPatch, platform: str, argument: str | None, environment: str | None,
            expected: str | None) -> None:
        monkeypatch.setattr(sys, "platform", platform)
        if environment is not None:
            monkeypatch.setenv("ROGUE_HUNTER_LIBPROC", environment)
        assert here(libproc=argument) == ("darwin", expected)

    @pytest.mark.parametrize("environment", [None, ""])
    def test_linux_reads_the_tree_that_it_is_given(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                                   environment: str | None) -> None:
        monkeypatch.setattr(sys, "platform", "linux")
        if environment is not None:
            monkeypatch.setenv("ROGUE_HUNTER_LIBPROC", environment)
        boot = tmp_path / "sys/kernel/random/boot_id"
        boot.parent.mkdir(parents=True)
        boot.write_text("that-boot\n")
        machine = here(tmp_path)
        assert isinstance(machine, LinuxMachine) and machine.boot_id() == "that-boot"

    @pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
    def test_linux_reads_proc(self) -> None:
        machine = here()
        assert isinstance(machine, LinuxMachine)
        assert machine.boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        assert machine.read(os.getpid()).pid == os.getpid()
