"""Ticks and rules by hand, for the tests of rules and matching."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rogue_hunter.rules.load import parse
from rogue_hunter.rules.matcher import Matcher
from rogue_hunter.rules.model import RuleSet
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Record, Row, Tick

EPOCH = 1_700_000_000.0
"""Wall clock of the first tick."""


def rules(*conditions: str, name: str = "r", action: str = "", extra: str = "") -> RuleSet:
    """A rule set of one rule with these lines of conditions."""
    text = f'[[rules]]\nname = "{name}"\n[rules.conditions]\n' + "\n".join(conditions) + "\n" + action + "\n" + extra
    return parse(text.encode(), "test.toml")


class Machine:
    """Processes that change and a clock that is set by hand; every tick is matched. All that rules ask for is known.

    Rows that are not set again stay the same object, as they do in a real stream.
    """

    def __init__(self, ruleset: RuleSet, *, hz: float = 3.0, boot: str = "boot", **how: Any) -> None:
        self.matcher = Matcher(ruleset, **how)
        self.interval_s = 1 / hz
        self.boot = boot
        self.now_s = 1000.0
        self.ts = EPOCH
        self.seq = 0
        self.rows: dict[Key, Row] = {}
        self.changed: set[Key] = set()
        self.exited: list[Key] = []

    def set(self, pid: int, *, age_s: float = 0.0, start_ticks: int = 7, **fields: Any) -> Key:
        """Give the process a new row; `age_s` as it will be at the next tick. What is None is unknown."""
        key = (pid, start_ticks)
        name = fields.get("command", "victim")
        before = self.rows.get(key, {"pid": pid, "start_ticks": start_ticks, "ppid": 500, "command": name,
                                     "exe": f"/bin/{name}", "cmdline": name,
                                     "start_time": self.ts + self.interval_s - age_s, "threads": 1})
        self.rows[key] = {name: value for name, value in {**before, **fields}.items() if value is not None}
        self.changed.add(key)
        return key

    def end(self, key: Key) -> None:
        """The process is gone."""
        del self.rows[key]
        self.exited.append(key)

    def tick(self, *, interval_s: float | None = None, ts_step_s: float = 0.0, hidden: Iterable[Key] = (),
             lost: float = 0.0, **closing: Any) -> list[Record]:
        """Let time pass and match. `hidden` rows are left out; `lost` seconds belong to ticks that never came."""
        interval = interval_s if interval_s is not None else self.interval_s
        self.now_s += interval + lost
        self.ts += interval + lost + ts_step_s
        shown = {k: r for k, r in self.rows.items() if k not in set(hidden)}
        row: Row = {"ts": round(self.ts, 3), "seq": self.seq, "mono_ns": round(self.now_s * 1e9), "boot_id": self.boot,
                    "os": "linux", "interval_s": round(interval, 6), "late_s": 0.0, "cpus": 8,
                    "processes": len(self.rows), **closing}
        tick = Tick(row, shown, self.changed & shown.keys(), tuple(self.exited))
        self.seq += 1
        self.changed, self.exited = set(), []
        return self.matcher.tick(tick)

    def run(self, seconds: float) -> list[Record]:
        """Tick for so long; all records."""
        found: list[Record] = []
        for _ in range(round(seconds / self.interval_s)):
            found += self.tick()
        return found
