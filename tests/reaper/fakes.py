"""A machine of dictionaries: processes that live, die and change as a test says, and signals that are written down."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rogue_hunter.reaper.audit import AuditLog
from rogue_hunter.reaper.process import Gone, Live, Me, NotAProcess, Stop, Unsupported, live
from rogue_hunter.reaper.run import Setup
from rogue_hunter.rules.load import parse
from rogue_hunter.rules.model import RuleSet
from rogue_hunter.stream.tick import Record, Row

NOW = 1_700_000_000.0

RULES = parse(b"""
[[rules]]
name = "r"
conditions = { cpu_percent_min = 50, command_patterns = ["^victim"] }
action = { timeout_seconds = 0.1, notify = true }
[[rules]]
name = "watch"
conditions = { cpu_percent_min = 50 }
action = { type = "notify" }
""")


class FakeProcess:
    """`on` maps a signal's number to what becomes of the process: dead, ignored, or a call."""

    def __init__(self, pid: int, **fields: Any) -> None:
        self.key = (pid, fields.pop("start_ticks", 7))
        self.uids: tuple[int, ...] = fields.pop("uids", (1000,) * 4)
        self.leader: int = fields.pop("leader", pid)
        self.age_s: float = fields.pop("age_s", 60.0)
        self.first: int = fields.pop("first", 0)
        self.argv: tuple[str, ...] = fields.pop("argv", ())
        self.row: Row = {"pid": pid, "start_ticks": self.key[1], "command": "victim", "exe": "/bin/victim",
                         "cmdline": "victim", "state": "running", "threads": 1,
                         "cpu_seconds_total": 50.0, "memory_bytes": 1 << 20, **fields}
        self.dead = False
        self.got: list[int] = []
        self.on: dict[int, Callable[[FakeProcess], None]] = {15: FakeProcess.die, 9: FakeProcess.die}
        self.end_r, self.end_w = os.pipe()

    def __del__(self) -> None:
        self.die()
        os.close(self.end_r)

    def die(self) -> None:
        """End: its handle becomes readable."""
        self.dead = True
        if self.end_w >= 0:
            os.close(self.end_w)
            self.end_w = -1

    def ignore(self) -> None:
        """Nothing happens."""


class FakeHandle:
    method = "pidfd"

    def __init__(self, process: FakeProcess, sent: list[tuple[int, int]]) -> None:
        self.process, self.closed = process, False
        self._sent = sent       # not the machine, which lists its handles: in a circle the pipes would stay open

    def send(self, number: int) -> float | None:
        if self.process.dead:
            raise Gone
        self._sent.append((self.process.key[0], number))
        self.process.got.append(number)
        self.process.on.get(number, FakeProcess.ignore)(self.process)
        return None

    def gone(self) -> bool:
        return self.process.dead

    def fileno(self) -> int:
        return self.process.end_r

    def close(self) -> None:
        self.closed = True


class FakeMachine:
    """`threads` are numbers of threads; with `pidfds` False the kernel has none."""

    def __init__(self, *processes: FakeProcess) -> None:
        self.processes = {p.key[0]: p for p in processes}
        self.threads: set[int] = set()
        self.pidfds = True
        self.sent: list[tuple[int, int]] = []
        self.handles: list[FakeHandle] = []
        self.who = Me(5000, (1000, 1000, 1000), frozenset({4000, 1}), 4000)

    def boot_id(self) -> str:
        return "boot"

    def open(self, pid: int) -> FakeHandle:
        if not self.pidfds:
            raise Unsupported("no pidfds here")
        if pid in self.threads:
            raise NotAProcess
        if pid not in self.processes or (self.processes[pid].dead and self.processes[pid].row["state"] != "defunct"):
            raise Gone
        self.handles.append(FakeHandle(self.processes[pid], self.sent))
        return self.handles[-1]

    def read(self, pid: int) -> Live:
        p = self.processes.get(pid)
        if p is None or (p.dead and p.row["state"] != "defunct"):
            raise Gone
        return live(p.key, dict(p.row), p.uids, p.argv, leader=p.leader, session=pid, age_s=p.age_s)

    def me(self) -> Me:
        return self.who

    def ends_with(self, pid: int) -> list[int]:
        return [other for other, p in self.processes.items() if p.first == pid]

    def bundle(self, pid: int) -> Row:
        return {"wchan": "do_nothing"}


def setup(tmp_path: Path, machine: FakeMachine, rules: RuleSet = RULES, **more: Any) -> Setup:
    state = tmp_path / "state"
    now = more.get("now", lambda: NOW + 0.2)
    return Setup(**{"rules": rules, "machine": machine, "audit": AuditLog(state / "audit.log", now=now),
                    "state_dir": state, "host": "h", "now": now, "kill_wait_s": 0.1, "stop": Stop(), **more})


def match_of(p: FakeProcess, **more: Any) -> Record:
    """The match record of a process that burns."""
    return {"type": "match", "v": 1, "ts": NOW, "boot_id": "boot", **p.row, "age_s": 60.0, "cpu_percent": 99.0,
            "rule": "r", "priority": "high", "action": "kill", "reason": "cpu 99 %", "evidence": "window", **more}
