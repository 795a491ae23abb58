"""The tables of the reaper, declared from the fields of the records: what rules matched, and what was done."""

from __future__ import annotations

from rogue_hunter.schema import RECORDS
from rogue_hunter.store.table import Table, column

_MATCH = {f.name: f for f in RECORDS["match"]}
_OWN = ("ts", "seq", "matched_s", "boot_id", "pid", "start_ticks", "rule")

MATCHES = Table(
    "matches",
    (
        column("id", int, "", "number of the match"),
        *(_MATCH[name] for name in ("boot_id", "pid", "start_ticks", "rule")),
        column("first_seen", float, "s", "epoch seconds at which the rule began to match", True),
        column("last_seen", float, "s", "epoch seconds at which that was said last", True),
        column("times", int, "", "how often it was said: once a minute while it lasts", True),
        *(f for name, f in _MATCH.items() if name not in _OWN),
    ),
    "one row a process and rule: a rule that matched it, with the readings of the last time",
    ("UNIQUE (boot_id, pid, start_ticks, rule)",),
    ("CREATE INDEX matches_last ON matches (last_seen)",),
)

ACTIONS = Table(
    "actions",
    (column("id", int, "", "number of the action"), *RECORDS["action"]),
    "one row a decision of the reaper: what was done about a process, or why it was left alone",
    # The same line of the audit file can come from the reaper itself and from the file.
    ("UNIQUE (run, audit_seq)",),
    ("CREATE INDEX actions_ts ON actions (ts)",),
)

REAP = (MATCHES, ACTIONS)
"""All of them, in the order in which they are made."""
