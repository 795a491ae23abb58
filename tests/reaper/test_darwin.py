"""macOS: signals by audit token, with a library of Python functions in the place of libproc."""

from __future__ import annotations

import ctypes
import os
from types import SimpleNamespace
from typing import Any

import pytest

from rogue_hunter.host.macos.abi import (
    ESRCH,
    PROC_PIDTBSDINFO,
    PROC_PIDUNIQIDENTIFIERINFO,
    SZOMB,
    ProcBsdInfo,
    ProcUniqIdentifierInfo,
)
from rogue_hunter.reaper import macos
from rogue_hunter.reaper.macos import AuditToken, DarwinMachine, Held, Signaller
from rogue_hunter.reaper.process import Gone


class Mac:
    """One process (unique id, idversion, status) and what was sent to it."""

    def __init__(self, pid: int = 4000) -> None:
        self.pid, self.who, self.status = pid, (77, 3), 2
        self.sent: list[tuple[Any, ...]] = []
        self.answer = 0

    def identify(self, pid: int) -> tuple[int, int] | None:
        return self.who if pid == self.pid else None

    def held(self, token: bool = True, clock: Any = None) -> Held:
        def by_token(pointer: Any, number: int) -> int:
            words = ctypes.cast(pointer, ctypes.POINTER(AuditToken)).contents
            self.sent.append(("token", words[5], words[7], number))
            return self.answer

        def by_number(pid: int, number: int) -> int:
            self.sent.append(("kill", pid, number))
            return self.answer

        library = SimpleNamespace(kill=by_number)
        if token:
            library.proc_signal_with_audittoken = by_token
        more = {"clock": clock} if clock else {}
        return Held(self.pid, self.identify, lambda _: self.status, Signaller(library), **more)


def test_a_signal_is_tied_to_pid_and_version() -> None:
    mac = Mac()
    held = mac.held()
    assert held.method == "audittoken" and held.send(15) is None
    mac.who = (77, 4)  # the same process after an exec
    held.send(9)
    assert mac.sent == [("token", 4000, 3, 15), ("token", 4000, 4, 9)]


def test_another_process_of_the_pid_is_gone() -> None:
    mac = Mac()
    held = mac.held()
    mac.who = (78, 1)
    assert held.gone()
    with pytest.raises(Gone):
        held.send(15)
    assert mac.sent == []
    with pytest.raises(Gone):
        Held(1, mac.identify, lambda _: 2, Signaller(SimpleNamespace(kill=lambda pid, number: 0)))


def test_without_the_private_function_the_window_is_on_record() -> None:
    mac = Mac()
    ticks = iter([10.0, 10.25])
    held = mac.held(token=False, clock=lambda: next(ticks))
    assert held.method == "kill" and held.send(15) == 0.25 and mac.sent == [("kill", 4000, 15)]


@pytest.mark.parametrize(("answer", "error"), [(ESRCH, Gone), (1, PermissionError), (22, Gone)])
def test_what_the_kernel_answers(answer: int, error: type[Exception]) -> None:
    mac = Mac()
    mac.answer = answer
    with pytest.raises(error):
        mac.held().send(15)
    mac.answer = -1
    ctypes.set_errno(answer)
    with pytest.raises(error):
        mac.held(token=False).send(15)


@pytest.mark.parametrize(("status", "gone"), [(2, False), (4, False), (SZOMB, True), (None, True)])
def test_who_has_ended(status: int | None, gone: bool) -> None:
    mac = Mac()
    held = mac.held()
    mac.status = status  # type: ignore[assignment]
    assert held.gone() is gone and held.fileno() == -1
    held.close()


def answers(monkeypatch: pytest.MonkeyPatch, raw: dict[int, bytes | None], code: int = ESRCH) -> DarwinMachine:
    """A machine whose library answers with these structures."""

    def info(_: Any, flavor: int, _structure: Any) -> Any:
        return lambda pid, argument=0: (raw.get(flavor), 0 if raw.get(flavor) else code)

    monkeypatch.setattr(macos, "PidInfo", info)
    monkeypatch.setattr(macos, "RusageReader", lambda _: lambda pid: (None, 1))
    monkeypatch.setattr(macos, "seconds_per_tick", lambda _: 1e-9)
    monkeypatch.setattr(macos, "read_facts", lambda _: SimpleNamespace(boot_id="mac-boot"))
    monkeypatch.setattr(macos, "process_path", lambda *_: b"/Applications/X y.app/X y")
    monkeypatch.setattr(macos, "process_arguments", lambda *_: (None, 22))
    monkeypatch.setattr(macos, "device_name", lambda *_: "ttys003")
    library: Any = SimpleNamespace(injected=True)
    return DarwinMachine(library, Signaller(SimpleNamespace(kill=lambda pid, number: 0)))


def test_a_process_as_the_library_describes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    info = ProcBsdInfo(pbi_pid=4000, pbi_ppid=77, pbi_uid=501, pbi_ruid=502, pbi_svuid=503, pbi_status=4,
                       pbi_comm=b"X y", pbi_name=b"X y long", e_tdev=5, pbi_start_tvsec=1_700_000_000,
                       pbi_start_tvusec=5)
    unique = ProcUniqIdentifierInfo(p_uniqueid=9, p_idversion=2)
    machine = answers(monkeypatch, {PROC_PIDTBSDINFO: bytes(info), PROC_PIDUNIQIDENTIFIERINFO: bytes(unique)})
    p = machine.read(4000)
    assert p.key == (4000, 1_700_000_000_000_005) and p.uids == (502, 501, 503) and p.row["state"] == "stopped"
    assert p.row["command"] == "X y long" and p.row["tty"] == "ttys003" and p.leader == 4000 and p.session == 0
    assert "/Applications/X y.app/X y" in p.program.names and machine.boot_id() == "mac-boot"
    held = machine.open(4000)
    assert held.method == "kill" and not held.gone()


def test_missing_or_unreadable_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    from rogue_hunter.reaper.process import Unreadable

    with pytest.raises(Gone):
        answers(monkeypatch, {}).read(4000)
    with pytest.raises(Gone):
        answers(monkeypatch, {}).open(4000)
    with pytest.raises(Unreadable, match="Operation not permitted"):
        answers(monkeypatch, {}, code=1).read(4000)


def test_a_run_end_to_end_by_token(tmp_path: Any) -> None:
    """The same run as on Linux, with handles that have no descriptor to wait on."""
    from rogue_hunter.reaper.run import reap_batch
    from tests.reaper.fakes import FakeMachine, FakeProcess, match_of, setup

    process = FakeProcess(4100)
    mac = Mac(4100)
    held = mac.held()

    class Machine(FakeMachine):
        def open(self, pid: int) -> Any:
            return held

    def ends(*_: Any) -> None:
        mac.status = SZOMB

    original = held.send
    held.send = lambda number: (original(number), ends() if number == 9 else None)[0]  # type: ignore[method-assign]
    (action,) = reap_batch([match_of(process)], setup(tmp_path, Machine(process)))
    assert action["outcome"] == "killed" and action["method"] == "audittoken" and "race_window_s" not in action
    assert [s[3] for s in mac.sent] == [15, 18, 9]


def test_our_own_ancestors_by_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = answers(monkeypatch, {})
    monkeypatch.setattr(os, "getppid", lambda: 50)
    parents = {50: 40, 40: 1, 1: 0}
    monkeypatch.setattr(macos, "process_kinfo", lambda _, pid: (str(parents[pid]).encode(), 0))
    monkeypatch.setattr(macos, "decode_kinfo", lambda raw: SimpleNamespace(ppid=int(raw)))
    me = machine.me()
    assert me.ancestors == {50, 40, 1} and me.pid == os.getpid() and machine.bundle(1) == {}
