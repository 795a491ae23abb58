"""A plugin of Datasette (--plugins-dir): numbers of pauses, events and captures are links, times are local, sizes and
shares have their unit. It stands alone: Datasette may be installed elsewhere than rogue-hunter."""

from datetime import datetime

from datasette import hookimpl
from markupsafe import Markup, escape

LINKS = {"pause_id": "pauses", "event_id": "process_events", "capture_id": "forensic_captures"}
"""Column of a query or a view -> the table whose row it is the number of. Tables have links of their own."""
TIMES = {"ts", "minute", "slice", "entry_time", "exit_time", "start_time", "end_time", "captured_at", "peak_time",
         "last_seen", "first_seen", "oldest_event", "updated_at", "first_ts", "audit_ts"}
"""Columns with epoch seconds."""

IDENTITIES = {"boot_id", "event", "pause", "capture", "bundle", "run"}
"""Columns with long names that only machines read: their beginning is shown, with the whole one as a tip."""

LONG = 160
"""Characters of a command line from which its cell has three lines and scrolls."""


@hookimpl
def render_cell(value, column, table, database, datasette):
    """The cell as HTML; None for one that Datasette shows as it is. JSON and CSV are not changed."""
    if column == "at" and isinstance(value, str):
        return Markup('<span style="white-space: nowrap">{}</span>').format(value)
    if column == "evidence" and isinstance(value, str):     # JSON without a space would not wrap
        return Markup("{}").format(value.replace(',"', ', "'))
    if column == "cmdline" and isinstance(value, str) and len(value) > LONG:
        return Markup('<div style="width: 36em; max-height: 4.5em; overflow: auto">{}</div>').format(value)
    if column in IDENTITIES and isinstance(value, str) and len(value) > 12:
        return Markup('<span title="{}" style="white-space: nowrap">{}…</span>').format(value, value[:8])
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if column in LINKS and table not in LINKS.values():
        path = datasette.urls.row(database, LINKS[column], str(int(value)))
        return Markup('<a href="{}">{}</a>').format(path, int(value))
    words = _words(column, value)
    return None if words is None else Markup('<span title="{}" style="white-space: nowrap">{}</span>').format(
        value, escape(words))


def _words(column, value):
    if column in TIMES and 1e8 < value < 1e11:
        return datetime.fromtimestamp(value).isoformat(" ", "seconds")
    if "bytes" in column.split("_"):
        per = "/s" if column.endswith("_per_s") else ""
        power = 0
        while abs(value) >= 999.5 and power < 4:
            value, power = value / 1024, power + 1
        unit = ("B", "KiB", "MiB", "GiB", "TiB")[power]
        return f"{value:.0f} {unit}{per}" if not power or abs(value) >= 99.95 else f"{value:.1f} {unit}{per}"
    if column == "share" or column.endswith("_share"):
        return f"{100 * value:.1f} %"
    return None
