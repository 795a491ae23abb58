"""What the rules cost: 1,000 processes against 20 rules, and how long one decision to end a process takes.

`python -m tests.bench.rules` from the checkout's top.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rogue_hunter.reaper.audit import AuditLog
from rogue_hunter.reaper.candidate import manual
from rogue_hunter.reaper.process import Machine as Actual
from rogue_hunter.reaper.run import Setup, here, reap_batch
from rogue_hunter.rules.load import builtin, parse
from rogue_hunter.rules.matcher import Matcher
from rogue_hunter.rules.model import RuleSet
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Row, Tick
from tests.tools.ticks import closing, key, row

PROCESSES = 1000
RULES = 20


def rules() -> RuleSet:
    """Rules with a window, four patterns each, none of which can be decided by age alone."""
    return parse("".join(f"""
[[rules]]
name = "r{i}"
conditions = {{ cpu_percent_min = {50 + i}, duration_seconds = {60 + i},
    command_patterns = ["^test_{i}", "_test{i}$", "proptest{i}"], exclude_patterns = ["^rustc$", "^cargo build"] }}
""".replace(",\n    ", ", ") for i in range(RULES)).encode(), "bench")


class Machine:
    """Processes that change on request, and the CPU time that the matcher takes for a tick."""

    def __init__(self, rule_set: RuleSet, processes: int = PROCESSES) -> None:
        self.matcher = Matcher(rule_set, lifetime=False)
        made = [row(2000 + i, command=f"test_{i % 40}", exe=f"/usr/bin/test_{i}", cmdline=f"/usr/bin/test_{i} --a {i}")
                for i in range(processes)]
        self.rows: dict[Key, Row] = {key(each): each for each in made}
        self.seq = 0

    def tick(self, changed: Iterable[Key]) -> float:
        """Milliseconds of CPU time."""
        keys = set(changed)
        for each in keys if self.seq else ():
            self.rows[each] = {**self.rows[each], "cpu_percent": float(self.seq % 100)}
        made = Tick(closing(self.seq, len(self.rows)), dict(self.rows), keys)
        self.seq += 1
        began = time.thread_time()
        self.matcher.tick(made)
        return 1000 * (time.thread_time() - began)


def setup_of(machine: Actual, place: Path) -> Setup:
    """A dry run."""
    return Setup(builtin(), machine, AuditLog(place / "audit.log"), place, dry_run=True)


def decisions(count: int = 100) -> tuple[list[float], set[str]]:
    """Milliseconds from a match of a real process to the decision (a dry run: nothing is sent), and the outcomes.

    As root it becomes user 1000 first and stays it: what belongs to root is refused before all is asked.
    """
    machine = here()
    with tempfile.TemporaryDirectory() as place:
        # One for nothing imports all that is needed, while this user may still read it.
        reap_batch([manual(machine, os.getpid(), time.time())], setup_of(machine, Path(place)))
    if os.geteuid() == 0:
        os.setresuid(1000, 1000, 1000)
    with tempfile.TemporaryDirectory() as place:
        setup = setup_of(machine, Path(place))
        with subprocess.Popen(["sleep", "600"]) as victim:
            try:
                time.sleep(1.5)  # younger ones cannot be distinguished from another process of their pid
                took, outcomes = [], set()
                for _ in range(count):
                    made = manual(setup.machine, victim.pid, time.time())
                    began = time.perf_counter()
                    (action,) = reap_batch([made], setup)
                    took.append(1000 * (time.perf_counter() - began))
                    outcomes.add(action["outcome"])
            finally:
                victim.kill()
    return took, outcomes


def main() -> None:
    """Print a line for each rule set."""
    for name, rule_set in ((f"{RULES} rules", rules()), ("built-in rules", builtin())):
        machine = Machine(rule_set)
        keys = list(machine.rows)
        first = machine.tick(keys)
        idle = [machine.tick(()) for _ in range(200)]
        some = [machine.tick(keys[:50]) for _ in range(60)]
        every = [machine.tick(keys) for _ in range(10)]
        print(f"{name}, {PROCESSES} processes, ms of CPU time a tick: first {first:.1f}; idle {statistics.median(idle):.4f}"
              f" (at most {max(idle):.3f}); 50 active {statistics.median(some):.2f};"
              f" all active {statistics.median(every):.1f}")
    took, outcomes = decisions()
    print(f"one decision ({', '.join(sorted(outcomes))}): {statistics.median(took):.2f} ms (at most {max(took):.2f})")


if __name__ == "__main__":
    main()
