"""The tables of captures, declared from the fields of the records. Everything of a capture goes when it goes."""

from __future__ import annotations

from rogue_hunter.schema import RECORDS
from rogue_hunter.store.table import Table, column

FORENSIC_CAPTURES = Table(
    "forensic_captures",
    (
        column("id", int, "", "number of the capture"),
        column("captured_at", float, "s", "epoch seconds when the capture began", True),
        column("event_id", int, "", "the event that asked for it"),
        column("pause_id", int, "", "the pause that asked for it"),
        *(f for f in RECORDS["capture"] if f.stage != "report" and f.name != "ts"),
    ),
    "one row a capture of evidence, or a number of requests that were skipped",
    ("UNIQUE (capture)", "FOREIGN KEY (event_id) REFERENCES process_events (id) ON DELETE CASCADE",
     "FOREIGN KEY (pause_id) REFERENCES pauses (id) ON DELETE CASCADE"),
    ("CREATE INDEX forensic_captures_at ON forensic_captures (captured_at)",
     "CREATE INDEX forensic_captures_event ON forensic_captures (event_id)",
     "CREATE INDEX forensic_captures_pause ON forensic_captures (pause_id)"),
)


def _of_capture(name: str, kind: str, doc: str, order: str = "") -> Table:
    """The table of a record that belongs to a capture."""
    return Table(
        name,
        (column("id", int, "", "number of the row"), column("capture_id", int, "", "the capture", True),
         *(f for f in RECORDS[kind] if f.name != "capture")),
        doc,
        ("FOREIGN KEY (capture_id) REFERENCES forensic_captures (id) ON DELETE CASCADE",),
        (f"CREATE INDEX {name}_capture ON {name} (capture_id{order})",),
    )


CHILDREN: dict[str, Table] = {
    "spindump_report": _of_capture("spindump_reports", "spindump_report", "what a capture looked at, as a whole"),
    "spindump_process": _of_capture("spindump_processes", "spindump_process", "the processes of a capture",
                                    ", process"),
    "spindump_thread": _of_capture("spindump_threads", "spindump_thread", "their threads, by the process's number",
                                   ", process"),
    "spindump_blocker": _of_capture("spindump_blockers", "spindump_blocker", "which thread waited for whom",
                                    ", process"),
    "log_entry": _of_capture("log_entries", "log_entry", "what was logged before a capture", ", ts"),
    "buffer_context": _of_capture("buffer_context", "buffer_context", "what the ring held before a capture"),
}
"""Record type -> the table of its rows."""

FORENSICS = (FORENSIC_CAPTURES, *CHILDREN.values())
