"""The tables of the database, declared from the same fields as the records."""

from __future__ import annotations

from dataclasses import dataclass

from rogue_hunter.schema import EVENT, SNAPSHOT, Field

APPLICATION_ID = 0x52476846
"""PRAGMA application_id of our files ("RGhF"), so that a file of another program is never migrated."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table: columns in order, what else stands in its definition, and its indexes."""

    name: str
    columns: tuple[Field, ...]
    doc: str
    rules: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()

    def create(self) -> list[str]:
        """The statements that make the table."""
        lines = [f"  {c.name} {_definition(c)}" for c in self.columns] + [f"  {rule}" for rule in self.rules]
        return [f"CREATE TABLE {self.name} (\n" + ",\n".join(lines) + "\n)", *self.indexes]

    def insert(self, *columns: str) -> str:
        """An INSERT with named parameters, of these columns or of all but id."""
        names = columns or tuple(c.name for c in self.columns if c.name != "id")
        return f"INSERT INTO {self.name} ({', '.join(names)}) VALUES ({', '.join(':' + n for n in names)})"


def _definition(column: Field) -> str:
    if column.name == "id":
        return "INTEGER PRIMARY KEY"
    return column.sql + (" NOT NULL" if column.required else "")


def _c(name: str, kind: type, unit: str, doc: str, required: bool = False) -> Field:
    return Field(name, kind, unit, doc, "store", required=required)


DAEMON_STATE = Table(
    "daemon_state",
    (
        _c("key", str, "", "what is said"),
        _c("value", str, "", "JSON"),
        _c("updated_at", float, "s", "epoch seconds"),
    ),
    "what the running rh-pipe says of itself",
    ("PRIMARY KEY (key)",),
)

_BY_NAME = {f.name: f for f in SNAPSHOT}

PROCESS_EVENTS = Table(
    "process_events",
    (
        _c("id", int, "", "number of the event"),
        _c("event", str, "", "its stable key", True),
        _c("boot_id", str, "", "identity of the boot", True),
        *(_BY_NAME[name] for name in ("pid", "start_ticks", "start_time", "ppid", "command", "exe", "cmdline", "cgroup",
                                      "uid", "user", "tty", "model")),
        _c("entry_time", float, "s", "epoch seconds of the enter record", True),
        _c("exit_time", float, "s", "epoch seconds of the exit record; NULL while the event is open"),
        _c("reason", str, "", "why it ended"),
        _c("last_seen", float, "s", "epoch seconds of its last snapshot", True),
        _c("entry_band", str, "", "band at the beginning"),
        _c("entry_score", int, "0-100", "score at the beginning"),
        _c("peak_band", str, "", "highest band"),
        _c("peak_score", int, "0-100", "highest score"),
        _c("peak_snapshot_id", int, "", "snapshot of the highest score"),
        _c("dominant_resource", str, "", "the resource at the highest score"),
        _c("dominant_category", str, "", "the category at the highest score"),
    ),
    "one row an event: a process's stay at or above the tracking band",
    ("UNIQUE (event)",),
    (
        # One process has at most one open event, whatever dies when.
        "CREATE UNIQUE INDEX process_events_open ON process_events (boot_id, pid, start_ticks) "
        "WHERE exit_time IS NULL",
        "CREATE INDEX process_events_entry ON process_events (entry_time)",
        "CREATE INDEX process_events_exit ON process_events (exit_time)",
    ),
)

_IN_SNAPSHOT = tuple(
    f for f in EVENT
    if f.name in _BY_NAME or f.name.endswith(("_low", "_high"))
)

PROCESS_SNAPSHOTS = Table(
    "process_snapshots",
    (
        _c("id", int, "", "number of the snapshot"),
        _c("event_id", int, "", "the event", True),
        _c("snapshot_type", str, "", "enter, band, peak, checkpoint or exit", True),
        _c("captured_at", float, "s", "epoch seconds", True),
        *_IN_SNAPSHOT,
    ),
    "the whole row of a process at a moment of its event, with the low and high of each metric over the ring",
    ("FOREIGN KEY (event_id) REFERENCES process_events (id) ON DELETE CASCADE",),
    ("CREATE INDEX process_snapshots_event ON process_snapshots (event_id, captured_at)",),
)

TABLES = (DAEMON_STATE, PROCESS_EVENTS, PROCESS_SNAPSHOTS)
