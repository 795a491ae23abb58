"""Every record type and every field, declared once.

The wire format, the SQL columns, the packaged JSON Schemas and the field tables of rogue-hunter(5) are all made
from these declarations; a test compares each with what is committed.
"""

from __future__ import annotations

from rogue_hunter.schema import capture, daemon, events, report, rules, sampling, slices
from rogue_hunter.schema.field import Field

_PARTS = (sampling, events, slices, capture, rules, report, daemon)

RECORDS: dict[str, tuple[Field, ...]] = {name: fields for part in _PARTS for name, fields in part.RECORDS.items()}
"""Record type -> its fields, without `type` and `v`, which every record begins with."""

SUMMARY: dict[str, str] = {name: text for part in _PARTS for name, text in part.SUMMARY.items()}
"""Record type -> what it is, in one line."""
