"""Writes rogue_hunter/data/fleet/clickhouse.sql: tables, views and materialized views of ClickHouse, from the declarations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rogue_hunter.fleet.tables import KEY, MADE, ROLLUPS, STORED, stored
from rogue_hunter.schema.field import Field

_CLICKHOUSE = {int: "Int64", float: "Float64", bool: "Bool"}


def clickhouse() -> Iterator[str]:
    """Lines of the file for ClickHouse: its own NATS engine reads the stream, a materialized view fills each table."""
    yield from _CLICKHOUSE_HEAD.splitlines()
    for table in STORED:
        time = table.columns[0].name
        # Times in fractions of a second hardly compress, and every question reads them.
        kinds = {c.name: f"{_clickhouse_type(c)}{' CODEC(NONE)' if c.name == 'ts' else ''}"
                 for c in stored(table)}
        # A question names a time. A row that arrives twice has the same one, so both are in one partition. A host can
        # send any time: the number of partitions is limited. Merged into one part, FINAL has nothing to merge.
        yield from _clickhouse_table(table.name, kinds, "ReplacingMergeTree", f"{time}, host_id, row", "received",
                                     f"positiveModulo(intDiv(toInt64({time}), 86400), {PARTITIONS})")
        yield "SELECT splitByChar('.', _subject)[3] AS host_id, JSONExtract(line, 'row', 'Int64') AS row,"
        yield "    toUnixTimestamp64Milli(now64(3)) / 1000. AS received,"
        yield ",\n".join(f"    {_extract(c)} AS \"{c.name}\"" for c in table.columns)
        yield "FROM rogue_hunter.wire"
        yield f"WHERE JSONExtractString(line, 'type') = '{table.kind}' AND JSONExtractInt(line, 'v') = 1;"
    for each in ROLLUPS:
        kinds = {name: f"LowCardinality({made})" if (made := _plain_type(kind)) == "String" else made
                 for name, (kind, _) in each.keys.items()}
        kinds |= {name: f"SimpleAggregateFunction({least}, Nullable({_plain_type(kind)}))"
                  for name, (least, kind, _) in each.measures.items()}
        yield from _clickhouse_table(each.name, kinds, "AggregatingMergeTree", ", ".join(reversed(tuple(each.keys))))
        yield f"{each.select(f'rogue_hunter.{each.source.name}_rows')};"


PARTITIONS = 64
"""More than the days that rows are kept; ClickHouse refuses an insert into more than 100."""


def _clickhouse_table(name: str, kinds: Mapping[str, str], engine: str, order: str, ends: str = "",
                      partition: str = "") -> Iterator[str]:
    """A table, the view of it in which each row is once, and the begin of what fills it."""
    columns = ",\n".join(f'    "{column}" {kind}' for column, kind in kinds.items())
    yield f"\nCREATE TABLE IF NOT EXISTS rogue_hunter.{name}_rows (\n{columns}\n) ENGINE = {engine}"
    yield f"{f'PARTITION BY {partition} ' if partition else ''}ORDER BY ({order})"
    if ends:
        yield f"TTL toDateTime({ends}) + INTERVAL 30 DAY"
    yield ("SETTINGS index_granularity = 32768, min_age_to_force_merge_seconds = 600, "
           "min_age_to_force_merge_on_partition_only = 1;")
    yield f"\nCREATE VIEW IF NOT EXISTS rogue_hunter.{name} AS SELECT * FROM rogue_hunter.{name}_rows FINAL"
    yield "SETTINGS do_not_merge_across_partitions_select_final = 1;"
    yield f"\nCREATE MATERIALIZED VIEW IF NOT EXISTS rogue_hunter.{name}_in TO rogue_hunter.{name}_rows AS"


def _plain_type(kind: type) -> str:
    return _CLICKHOUSE.get(kind, "String")


def _clickhouse_type(field: Field) -> str:
    if field.name == "host_id":
        return "LowCardinality(String)"
    kind = _plain_type(field.type)
    if not (field.required or field in KEY):
        kind = f"Nullable({kind})"
    return f"LowCardinality({kind})" if field.name in _FEW else kind


_FEW = frozenset({
    "boot_id", "command", "name", "user", "kind", "cause", "culprit", "culprit_release", "os", "os_version", "version",
    "band", "peak_band", "model", "dominant_resource", "state", "rule", "outcome", "status", "trigger", "host"})
"""Texts of few different values: ClickHouse keeps a number for each."""


def _extract(field: Field) -> str:
    if field.name in MADE:
        return MADE[field.name]
    if field.type in (list, dict):
        return f"nullIf(JSONExtractRaw(line, '{field.name}'), '')"
    kind = _plain_type(field.type)
    return f"JSONExtract(line, '{field.name}', '{kind if field.required else f'Nullable({kind})'}')"


_CLICKHOUSE_HEAD = """\
-- Made by python -m tests.tools.docs. ClickHouse 25.8 or newer: clickhouse-client --multiquery < clickhouse.sql
-- First make the consumer: nats consumer add ROGUE_HUNTER clickhouse --pull --ack explicit --deliver all --defaults
-- Set nats_url, and nats_credential_file or nats_username. The identity of a host is the one in the subject, which the
-- server lets only that host use. A message that arrives twice has the same time, host_id and row: views show it once.
CREATE DATABASE IF NOT EXISTS rogue_hunter;

CREATE TABLE IF NOT EXISTS rogue_hunter.wire (line String) ENGINE = NATS
SETTINGS nats_url = 'localhost:4222', nats_subjects = 'rh.v1.*.minute', nats_stream = 'ROGUE_HUNTER',
    nats_consumer_name = 'clickhouse', nats_format = 'LineAsString', nats_handle_error_mode = 'stream';"""
