"""Terminating from rh-top: the guards, the audit and the identity of rh-reap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("textual")

from rogue_hunter.config.options import Config
from rogue_hunter.reaper.audit import AuditLog
from rogue_hunter.reaper.process import Stop
from rogue_hunter.tui.app import terminate
from tests.reaper.fakes import FakeMachine, FakeProcess


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Directories of a user that has none yet."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    return tmp_path


def run(process: FakeProcess, key: tuple[int, int] | None = None, yes: bool = True) -> tuple[str, FakeMachine, list[Any]]:
    machine = FakeMachine(process)
    asked: list[Any] = []

    def confirm(candidates: Any) -> bool:
        asked.extend(candidates)
        return yes

    told = terminate(key or process.key, Config(), confirm, Stop(), lambda: machine)
    return told, machine, asked


def test_a_confirmed_process_is_terminated_and_audited(home: Path) -> None:
    told, machine, asked = run(FakeProcess(2000))
    assert told.startswith("victim [2000] terminated by SIGTERM") and (2000, 15) in machine.sent
    assert asked[0].match["rule"] == "manual" and asked[0].live is not None
    kinds = [entry["kind"] for entry in AuditLog(home / "XDG_STATE_HOME/rogue-hunter/audit.log").recent(1e10)]
    assert kinds == ["intent", "outcome"]


def test_declined_refused_and_gone() -> None:
    told, machine, _ = run(FakeProcess(2000), yes=False)
    assert "you declined" in told and machine.sent == []
    told, machine, asked = run(FakeProcess(2000, exe="/usr/bin/nvim"))
    assert "on the whitelist" in told and machine.sent == [] and asked == []
    told, machine, _ = run(FakeProcess(2000), (2000, 6))
    assert told == "2000 has exited; another process has its pid now" and machine.sent == []
    told, machine, _ = run(FakeProcess(2000), (2001, 6))
    assert told == "2001 has exited"
