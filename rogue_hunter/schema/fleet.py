"""The record of many machines: the first line of a message from a host to a hub."""

from __future__ import annotations

from rogue_hunter.schema.field import Field


def _f(name: str, kind: type, unit: str, doc: str, *, required: bool = False) -> Field:
    return Field(name, kind, unit, doc, "ship", required=required)


FLEET_BATCH = (
    _f("row", int, "ms", "number of the message: `sent` in milliseconds", required=True),
    _f("host_id", str, "", "identity of the host; the subject of the message has the same", required=True),
    _f("sent", float, "s", "epoch seconds by the clock of the host when the message was sent", required=True),
    _f("minute", int, "s", "epoch seconds until which rows that are complete are in it", required=True),
    _f("host", str, "", "host name"),
    _f("boot_id", str, "", "the present boot of the host: two at the same time are two machines with one identity"),
    _f("os", str, "", "linux or macos"),
    _f("os_version", str, "", "release of the kernel"),
    _f("version", str, "", "version of rh-ship"),
    _f("redacted", int, "", "texts in which a secret was masked only when they were sent", required=True),
    _f("tables", dict, "", "table -> {base, after, through, rows}: all `rows` rows after `after` up to and with "
       "`through` are in the message, and all before were sent; `base` is where this host began", required=True),
)

RECORDS: dict[str, tuple[Field, ...]] = {"fleet_batch": FLEET_BATCH}

SUMMARY: dict[str, str] = {
    "fleet_batch": "the head of a message from rh-ship: whose rows follow, and which; each of them is a record of "
                   "its own type with its number in the database, `row`",
}
