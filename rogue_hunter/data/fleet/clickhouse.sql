-- Made by python -m tests.tools.docs. ClickHouse 25.8 or newer: clickhouse-client --multiquery < clickhouse.sql
-- First make the consumer: nats consumer add ROGUE_HUNTER clickhouse --pull --ack explicit --deliver all --defaults
-- Set nats_url, and nats_credential_file or nats_username. The identity of a host is the one in the subject, which the
-- server lets only that host use. A message that arrives twice has the same time, host_id and row: views show it once.
CREATE DATABASE IF NOT EXISTS rogue_hunter;

CREATE TABLE IF NOT EXISTS rogue_hunter.wire (line String) ENGINE = NATS
SETTINGS nats_url = 'localhost:4222', nats_subjects = 'rh.v1.*.minute', nats_stream = 'ROGUE_HUNTER',
    nats_consumer_name = 'clickhouse', nats_format = 'LineAsString', nats_handle_error_mode = 'stream';

CREATE TABLE IF NOT EXISTS rogue_hunter.machine_minutes_rows (
    "host_id" LowCardinality(String),
    "row" Int64,
    "received" Float64,
    "minute" Int64,
    "boot_id" LowCardinality(String),
    "ticks" Int64,
    "seconds" Float64,
    "late_s" Nullable(Float64),
    "asleep_s" Nullable(Float64),
    "cpus" Nullable(Int64),
    "cpu_busy_cores" Nullable(Float64),
    "cpu_busy_cores_max" Nullable(Float64),
    "cpu_steal_cores" Nullable(Float64),
    "unattributed_cpu_cores" Nullable(Float64),
    "memory_total_bytes" Nullable(Int64),
    "memory_available_bytes" Nullable(Int64),
    "pressure_cpu_some_ms_per_s" Nullable(Float64),
    "pressure_memory_full_ms_per_s" Nullable(Float64),
    "pressure_io_full_ms_per_s" Nullable(Float64),
    "disk_bytes" Nullable(Int64),
    "processes" Nullable(Int64),
    "started" Nullable(Int64),
    "exited" Nullable(Int64),
    "max_score" Nullable(Int64),
    "pauses" Nullable(Int64),
    "pause_s" Nullable(Float64),
    "self_cpu_percent" Nullable(Float64),
    "run_delay_ms_per_s" Nullable(Float64),
    "pressure_memory_some_ms_per_s" Nullable(Float64),
    "pressure_io_some_ms_per_s" Nullable(Float64),
    "device_bytes" Nullable(Int64),
    "device_requests_s" Nullable(Float64),
    "device_wait_ms" Nullable(Float64),
    "refaults" Nullable(Int64),
    "direct_reclaims" Nullable(Int64),
    "oom_kills" Nullable(Int64),
    "clock_step_s" Nullable(Float64),
    "continued" Nullable(Int64),
    "self_run_delay_ms" Nullable(Float64),
    "self_throttled_ms" Nullable(Float64),
    "unreadable" Nullable(Int64),
    "uninterruptible" Nullable(Int64)
) ENGINE = ReplacingMergeTree
PARTITION BY positiveModulo(intDiv(toInt64(minute), 86400), 64) ORDER BY (minute, host_id, row)
TTL toDateTime(received) + INTERVAL 30 DAY
SETTINGS index_granularity = 32768, min_age_to_force_merge_seconds = 600, min_age_to_force_merge_on_partition_only = 1;

CREATE VIEW IF NOT EXISTS rogue_hunter.machine_minutes AS SELECT * FROM rogue_hunter.machine_minutes_rows FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS rogue_hunter.machine_minutes_in TO rogue_hunter.machine_minutes_rows AS
SELECT splitByChar('.', _subject)[3] AS host_id, JSONExtract(line, 'row', 'Int64') AS row,
    toUnixTimestamp64Milli(now64(3)) / 1000. AS received,
    JSONExtract(line, 'minute', 'Int64') AS "minute",
    JSONExtract(line, 'boot_id', 'String') AS "boot_id",
    JSONExtract(line, 'ticks', 'Int64') AS "ticks",
    JSONExtract(line, 'seconds', 'Float64') AS "seconds",
    JSONExtract(line, 'late_s', 'Nullable(Float64)') AS "late_s",
    JSONExtract(line, 'asleep_s', 'Nullable(Float64)') AS "asleep_s",
    JSONExtract(line, 'cpus', 'Nullable(Int64)') AS "cpus",
    JSONExtract(line, 'cpu_busy_cores', 'Nullable(Float64)') AS "cpu_busy_cores",
    JSONExtract(line, 'cpu_busy_cores_max', 'Nullable(Float64)') AS "cpu_busy_cores_max",
    JSONExtract(line, 'cpu_steal_cores', 'Nullable(Float64)') AS "cpu_steal_cores",
    JSONExtract(line, 'unattributed_cpu_cores', 'Nullable(Float64)') AS "unattributed_cpu_cores",
    JSONExtract(line, 'memory_total_bytes', 'Nullable(Int64)') AS "memory_total_bytes",
    JSONExtract(line, 'memory_available_bytes', 'Nullable(Int64)') AS "memory_available_bytes",
    JSONExtract(line, 'pressure_cpu_some_ms_per_s', 'Nullable(Float64)') AS "pressure_cpu_some_ms_per_s",
    JSONExtract(line, 'pressure_memory_full_ms_per_s', 'Nullable(Float64)') AS "pressure_memory_full_ms_per_s",
    JSONExtract(line, 'pressure_io_full_ms_per_s', 'Nullable(Float64)') AS "pressure_io_full_ms_per_s",
    JSONExtract(line, 'disk_bytes', 'Nullable(Int64)') AS "disk_bytes",
    JSONExtract(line, 'processes', 'Nullable(Int64)') AS "processes",
    JSONExtract(line, 'started', 'Nullable(Int64)') AS "started",
    JSONExtract(line, 'exited', 'Nullable(Int64)') AS "exited",
    JSONExtract(line, 'max_score', 'Nullable(Int64)') AS "max_score",
    JSONExtract(line, 'pauses', 'Nullable(Int64)') AS "pauses",
    JSONExtract(line, 'pause_s', 'Nullable(Float64)') AS "pause_s",
    JSONExtract(line, 'self_cpu_percent', 'Nullable(Float64)') AS "self_cpu_percent",
    JSONExtract(line, 'run_delay_ms_per_s', 'Nullable(Float64)') AS "run_delay_ms_per_s",
    JSONExtract(line, 'pressure_memory_some_ms_per_s', 'Nullable(Float64)') AS "pressure_memory_some_ms_per_s",
    JSONExtract(line, 'pressure_io_some_ms_per_s', 'Nullable(Float64)') AS "pressure_io_some_ms_per_s",
    JSONExtract(line, 'device_bytes', 'Nullable(Int64)') AS "device_bytes",
    JSONExtract(line, 'device_requests_s', 'Nullable(Float64)') AS "device_requests_s",
    JSONExtract(line, 'device_wait_ms', 'Nullable(Float64)') AS "device_wait_ms",
    JSONExtract(line, 'refaults', 'Nullable(Int64)') AS "refaults",
    JSONExtract(line, 'direct_reclaims', 'Nullable(Int64)') AS "direct_reclaims",
    JSONExtract(line, 'oom_kills', 'Nullable(Int64)') AS "oom_kills",
    JSONExtract(line, 'clock_step_s', 'Nullable(Float64)') AS "clock_step_s",
    JSONExtract(line, 'continued', 'Nullable(Int64)') AS "continued",
    JSONExtract(line, 'self_run_delay_ms', 'Nullable(Float64)') AS "self_run_delay_ms",
    JSONExtract(line, 'self_throttled_ms', 'Nullable(Float64)') AS "self_throttled_ms",
    JSONExtract(line, 'unreadable', 'Nullable(Int64)') AS "unreadable",
    JSONExtract(line, 'uninterruptible', 'Nullable(Int64)') AS "uninterruptible"
FROM rogue_hunter.wire
WHERE JSONExtractString(line, 'type') = 'machine_minute' AND JSONExtractInt(line, 'v') = 1;

CREATE TABLE IF NOT EXISTS rogue_hunter.command_minutes_rows (
    "host_id" LowCardinality(String),
    "row" Int64,
    "received" Float64,
    "minute" Int64,
    "command" LowCardinality(String),
    "processes" Int64,
    "pid" Nullable(Int64),
    "unit" Nullable(String),
    "cpu_seconds" Nullable(Float64),
    "memory_bytes" Nullable(Int64),
    "disk_bytes" Nullable(Int64),
    "gpu_seconds" Nullable(Float64),
    "wakeups" Nullable(Int64),
    "run_delay_s" Nullable(Float64),
    "max_score" Nullable(Int64),
    "rogue_s" Nullable(Float64)
) ENGINE = ReplacingMergeTree
PARTITION BY positiveModulo(intDiv(toInt64(minute), 86400), 64) ORDER BY (minute, host_id, row)
TTL toDateTime(received) + INTERVAL 30 DAY
SETTINGS index_granularity = 32768, min_age_to_force_merge_seconds = 600, min_age_to_force_merge_on_partition_only = 1;

CREATE VIEW IF NOT EXISTS rogue_hunter.command_minutes AS SELECT * FROM rogue_hunter.command_minutes_rows FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS rogue_hunter.command_minutes_in TO rogue_hunter.command_minutes_rows AS
SELECT splitByChar('.', _subject)[3] AS host_id, JSONExtract(line, 'row', 'Int64') AS row,
    toUnixTimestamp64Milli(now64(3)) / 1000. AS received,
    JSONExtract(line, 'minute', 'Int64') AS "minute",
    JSONExtract(line, 'command', 'String') AS "command",
    JSONExtract(line, 'processes', 'Int64') AS "processes",
    JSONExtract(line, 'pid', 'Nullable(Int64)') AS "pid",
    JSONExtract(line, 'unit', 'Nullable(String)') AS "unit",
    JSONExtract(line, 'cpu_seconds', 'Nullable(Float64)') AS "cpu_seconds",
    JSONExtract(line, 'memory_bytes', 'Nullable(Int64)') AS "memory_bytes",
    JSONExtract(line, 'disk_bytes', 'Nullable(Int64)') AS "disk_bytes",
    JSONExtract(line, 'gpu_seconds', 'Nullable(Float64)') AS "gpu_seconds",
    JSONExtract(line, 'wakeups', 'Nullable(Int64)') AS "wakeups",
    JSONExtract(line, 'run_delay_s', 'Nullable(Float64)') AS "run_delay_s",
    JSONExtract(line, 'max_score', 'Nullable(Int64)') AS "max_score",
    JSONExtract(line, 'rogue_s', 'Nullable(Float64)') AS "rogue_s"
FROM rogue_hunter.wire
WHERE JSONExtractString(line, 'type') = 'command_minute' AND JSONExtractInt(line, 'v') = 1;

CREATE TABLE IF NOT EXISTS rogue_hunter.process_slices_rows (
    "host_id" LowCardinality(String),
    "row" Int64,
    "received" Float64,
    "slice" Float64,
    "boot_id" LowCardinality(String),
    "seconds" Float64,
    "pid" Int64,
    "start_ticks" Int64,
    "user" LowCardinality(Nullable(String)),
    "command" LowCardinality(Nullable(String)),
    "name" LowCardinality(Nullable(String)),
    "cmdline" Nullable(String),
    "unit" Nullable(String),
    "nice" Nullable(Int64),
    "own" Nullable(Bool),
    "state" LowCardinality(Nullable(String)),
    "cpu_seconds" Nullable(Float64),
    "children_cpu_seconds" Nullable(Float64),
    "disk_bytes" Nullable(Int64),
    "memory_bytes" Nullable(Int64),
    "gpu_seconds" Nullable(Float64),
    "pageins" Nullable(Int64),
    "run_delay_s" Nullable(Float64),
    "uninterruptible_s" Nullable(Float64),
    "max_score" Nullable(Int64),
    "rogue_s" Nullable(Float64)
) ENGINE = ReplacingMergeTree
PARTITION BY positiveModulo(intDiv(toInt64(slice), 86400), 64) ORDER BY (slice, host_id, row)
TTL toDateTime(received) + INTERVAL 30 DAY
SETTINGS index_granularity = 32768, min_age_to_force_merge_seconds = 600, min_age_to_force_merge_on_partition_only = 1;

CREATE VIEW IF NOT EXISTS rogue_hunter.process_slices AS SELECT * FROM rogue_hunter.process_slices_rows FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS rogue_hunter.process_slices_in TO rogue_hunter.process_slices_rows AS
SELECT splitByChar('.', _subject)[3] AS host_id, JSONExtract(line, 'row', 'Int64') AS row,
    toUnixTimestamp64Milli(now64(3)) / 1000. AS received,
    JSONExtract(line, 'slice', 'Float64') AS "slice",
    JSONExtract(line, 'boot_id', 'String') AS "boot_id",
    JSONExtract(line, 'seconds', 'Float64') AS "seconds",
    JSONExtract(line, 'pid', 'Int64') AS "pid",
    JSONExtract(line, 'start_ticks', 'Int64') AS "start_ticks",
    JSONExtract(line, 'user', 'Nullable(String)') AS "user",
    JSONExtract(line, 'command', 'Nullable(String)') AS "command",
    JSONExtract(line, 'name', 'Nullable(String)') AS "name",
    JSONExtract(line, 'cmdline', 'Nullable(String)') AS "cmdline",
    JSONExtract(line, 'unit', 'Nullable(String)') AS "unit",
    JSONExtract(line, 'nice', 'Nullable(Int64)') AS "nice",
    JSONExtract(line, 'own', 'Nullable(Bool)') AS "own",
    JSONExtract(line, 'state', 'Nullable(String)') AS "state",
    JSONExtract(line, 'cpu_seconds', 'Nullable(Float64)') AS "cpu_seconds",
    JSONExtract(line, 'children_cpu_seconds', 'Nullable(Float64)') AS "children_cpu_seconds",
    JSONExtract(line, 'disk_bytes', 'Nullable(Int64)') AS "disk_bytes",
    JSONExtract(line, 'memory_bytes', 'Nullable(Int64)') AS "memory_bytes",
    JSONExtract(line, 'gpu_seconds', 'Nullable(Float64)') AS "gpu_seconds",
    JSONExtract(line, 'pageins', 'Nullable(Int64)') AS "pageins",
    JSONExtract(line, 'run_delay_s', 'Nullable(Float64)') AS "run_delay_s",
    JSONExtract(line, 'uninterruptible_s', 'Nullable(Float64)') AS "uninterruptible_s",
    JSONExtract(line, 'max_score', 'Nullable(Int64)') AS "max_score",
    JSONExtract(line, 'rogue_s', 'Nullable(Float64)') AS "rogue_s"
FROM rogue_hunter.wire
WHERE JSONExtractString(line, 'type') = 'process_slice' AND JSONExtractInt(line, 'v') = 1;

CREATE TABLE IF NOT EXISTS rogue_hunter.events_rows (
    "host_id" LowCardinality(String),
    "row" Int64,
    "received" Float64,
    "ts" Float64 CODEC(NONE),
    "kind" LowCardinality(String),
    "event" String,
    "boot_id" LowCardinality(String),
    "entered" Float64,
    "duration_s" Float64,
    "scope" Nullable(String),
    "processes" Nullable(Int64),
    "peak_score" Int64,
    "peak_band" LowCardinality(String),
    "reason" Nullable(String),
    "pid" Int64,
    "start_ticks" Int64,
    "start_time" Nullable(Float64),
    "ppid" Nullable(Int64),
    "uid" Nullable(Int64),
    "user" LowCardinality(Nullable(String)),
    "command" LowCardinality(Nullable(String)),
    "exe" Nullable(String),
    "cmdline" Nullable(String),
    "name" LowCardinality(Nullable(String)),
    "cgroup" Nullable(String),
    "unit" Nullable(String),
    "orphan_of" Nullable(String),
    "state" LowCardinality(Nullable(String)),
    "threads" Nullable(Int64),
    "cpu_percent" Nullable(Float64),
    "memory_bytes" Nullable(Int64),
    "disk_bytes_per_s" Nullable(Float64),
    "gpu_ms_per_s" Nullable(Float64),
    "wakeups_per_s" Nullable(Float64),
    "run_delay_ms_per_s" Nullable(Float64),
    "model" LowCardinality(Nullable(String)),
    "score" Nullable(Int64),
    "band" LowCardinality(Nullable(String)),
    "disproportionality" Nullable(Float64),
    "dominant_resource" LowCardinality(Nullable(String)),
    "dominant_category" Nullable(String)
) ENGINE = ReplacingMergeTree
PARTITION BY positiveModulo(intDiv(toInt64(ts), 86400), 64) ORDER BY (ts, host_id, row)
TTL toDateTime(received) + INTERVAL 30 DAY
SETTINGS index_granularity = 32768, min_age_to_force_merge_seconds = 600, min_age_to_force_merge_on_partition_only = 1;

CREATE VIEW IF NOT EXISTS rogue_hunter.events AS SELECT * FROM rogue_hunter.events_rows FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS rogue_hunter.events_in TO rogue_hunter.events_rows AS
SELECT splitByChar('.', _subject)[3] AS host_id, JSONExtract(line, 'row', 'Int64') AS row,
    toUnixTimestamp64Milli(now64(3)) / 1000. AS received,
    JSONExtract(line, 'ts', 'Float64') AS "ts",
    JSONExtract(line, 'kind', 'String') AS "kind",
    JSONExtract(line, 'event', 'String') AS "event",
    JSONExtract(line, 'boot_id', 'String') AS "boot_id",
    JSONExtract(line, 'entered', 'Float64') AS "entered",
    JSONExtract(line, 'duration_s', 'Float64') AS "duration_s",
    JSONExtract(line, 'scope', 'Nullable(String)') AS "scope",
    JSONExtract(line, 'processes', 'Nullable(Int64)') AS "processes",
    JSONExtract(line, 'peak_score', 'Int64') AS "peak_score",
    JSONExtract(line, 'peak_band', 'String') AS "peak_band",
    JSONExtract(line, 'reason', 'Nullable(String)') AS "reason",
    JSONExtract(line, 'pid', 'Int64') AS "pid",
    JSONExtract(line, 'start_ticks', 'Int64') AS "start_ticks",
    JSONExtract(line, 'start_time', 'Nullable(Float64)') AS "start_time",
    JSONExtract(line, 'ppid', 'Nullable(Int64)') AS "ppid",
    JSONExtract(line, 'uid', 'Nullable(Int64)') AS "uid",
    JSONExtract(line, 'user', 'Nullable(String)') AS "user",
    JSONExtract(line, 'command', 'Nullable(String)') AS "command",
    JSONExtract(line, 'exe', 'Nullable(String)') AS "exe",
    JSONExtract(line, 'cmdline', 'Nullable(String)') AS "cmdline",
    JSONExtract(line, 'name', 'Nullable(String)') AS "name",
    JSONExtract(line, 'cgroup', 'Nullable(String)') AS "cgroup",
    JSONExtract(line, 'unit', 'Nullable(String)') AS "unit",
    JSONExtract(line, 'orphan_of', 'Nullable(String)') AS "orphan_of",
    JSONExtract(line, 'state', 'Nullable(String)') AS "state",
    JSONExtract(line, 'threads', 'Nullable(Int64)') AS "threads",
    JSONExtract(line, 'cpu_percent', 'Nullable(Float64)') AS "cpu_percent",
    JSONExtract(line, 'memory_bytes', 'Nullable(Int64)') AS "memory_bytes",
    JSONExtract(line, 'disk_bytes_per_s', 'Nullable(Float64)') AS "disk_bytes_per_s",
    JSONExtract(line, 'gpu_ms_per_s', 'Nullable(Float64)') AS "gpu_ms_per_s",
    JSONExtract(line, 'wakeups_per_s', 'Nullable(Float64)') AS "wakeups_per_s",
    JSONExtract(line, 'run_delay_ms_per_s', 'Nullable(Float64)') AS "run_delay_ms_per_s",
    JSONExtract(line, 'model', 'Nullable(String)') AS "model",
    JSONExtract(line, 'score', 'Nullable(Int64)') AS "score",
    JSONExtract(line, 'band', 'Nullable(String)') AS "band",
    JSONExtract(line, 'disproportionality', 'Nullable(Float64)') AS "disproportionality",
    JSONExtract(line, 'dominant_resource', 'Nullable(String)') AS "dominant_resource",
    JSONExtract(line, 'dominant_category', 'Nullable(String)') AS "dominant_category"
FROM rogue_hunter.wire
WHERE JSONExtractString(line, 'type') = 'event' AND JSONExtractInt(line, 'v') = 1;

CREATE TABLE IF NOT EXISTS rogue_hunter.pauses_rows (
    "host_id" LowCardinality(String),
    "row" Int64,
    "received" Float64,
    "ts" Float64 CODEC(NONE),
    "pause" String,
    "boot_id" LowCardinality(String),
    "start" Float64,
    "end" Float64,
    "duration_s" Float64,
    "cause" LowCardinality(String),
    "culprits" String,
    "unexplained_share" Nullable(Float64),
    "evidence" String,
    "culprit" LowCardinality(Nullable(String)),
    "os_version" LowCardinality(Nullable(String)),
    "culprit_release" LowCardinality(String)
) ENGINE = ReplacingMergeTree
PARTITION BY positiveModulo(intDiv(toInt64(ts), 86400), 64) ORDER BY (ts, host_id, row)
TTL toDateTime(received) + INTERVAL 30 DAY
SETTINGS index_granularity = 32768, min_age_to_force_merge_seconds = 600, min_age_to_force_merge_on_partition_only = 1;

CREATE VIEW IF NOT EXISTS rogue_hunter.pauses AS SELECT * FROM rogue_hunter.pauses_rows FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS rogue_hunter.pauses_in TO rogue_hunter.pauses_rows AS
SELECT splitByChar('.', _subject)[3] AS host_id, JSONExtract(line, 'row', 'Int64') AS row,
    toUnixTimestamp64Milli(now64(3)) / 1000. AS received,
    JSONExtract(line, 'ts', 'Float64') AS "ts",
    JSONExtract(line, 'pause', 'String') AS "pause",
    JSONExtract(line, 'boot_id', 'String') AS "boot_id",
    JSONExtract(line, 'start', 'Float64') AS "start",
    JSONExtract(line, 'end', 'Float64') AS "end",
    JSONExtract(line, 'duration_s', 'Float64') AS "duration_s",
    JSONExtract(line, 'cause', 'String') AS "cause",
    nullIf(JSONExtractRaw(line, 'culprits'), '') AS "culprits",
    JSONExtract(line, 'unexplained_share', 'Nullable(Float64)') AS "unexplained_share",
    nullIf(JSONExtractRaw(line, 'evidence'), '') AS "evidence",
    JSONExtract(line, 'culprit', 'Nullable(String)') AS "culprit",
    JSONExtract(line, 'os_version', 'Nullable(String)') AS "os_version",
    concat(coalesce(culprit, '?'), ' ', coalesce(os_version, '?')) AS "culprit_release"
FROM rogue_hunter.wire
WHERE JSONExtractString(line, 'type') = 'pause' AND JSONExtractInt(line, 'v') = 1;

CREATE TABLE IF NOT EXISTS rogue_hunter.captures_rows (
    "host_id" LowCardinality(String),
    "row" Int64,
    "received" Float64,
    "ts" Float64 CODEC(NONE),
    "capture" String,
    "trigger" LowCardinality(String),
    "status" LowCardinality(String),
    "reason" Nullable(String),
    "skipped" Nullable(Int64),
    "event" Nullable(String),
    "pause" Nullable(String),
    "boot_id" LowCardinality(Nullable(String)),
    "pid" Nullable(Int64),
    "start_ticks" Nullable(Int64),
    "command" LowCardinality(Nullable(String)),
    "os" LowCardinality(Nullable(String)),
    "duration_s" Nullable(Float64),
    "processes" Nullable(Int64),
    "threads" Nullable(Int64),
    "blockers" Nullable(Int64),
    "log_entries" Nullable(Int64)
) ENGINE = ReplacingMergeTree
PARTITION BY positiveModulo(intDiv(toInt64(ts), 86400), 64) ORDER BY (ts, host_id, row)
TTL toDateTime(received) + INTERVAL 30 DAY
SETTINGS index_granularity = 32768, min_age_to_force_merge_seconds = 600, min_age_to_force_merge_on_partition_only = 1;

CREATE VIEW IF NOT EXISTS rogue_hunter.captures AS SELECT * FROM rogue_hunter.captures_rows FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS rogue_hunter.captures_in TO rogue_hunter.captures_rows AS
SELECT splitByChar('.', _subject)[3] AS host_id, JSONExtract(line, 'row', 'Int64') AS row,
    toUnixTimestamp64Milli(now64(3)) / 1000. AS received,
    JSONExtract(line, 'ts', 'Float64') AS "ts",
    JSONExtract(line, 'capture', 'String') AS "capture",
    JSONExtract(line, 'trigger', 'String') AS "trigger",
    JSONExtract(line, 'status', 'String') AS "status",
    JSONExtract(line, 'reason', 'Nullable(String)') AS "reason",
    JSONExtract(line, 'skipped', 'Nullable(Int64)') AS "skipped",
    JSONExtract(line, 'event', 'Nullable(String)') AS "event",
    JSONExtract(line, 'pause', 'Nullable(String)') AS "pause",
    JSONExtract(line, 'boot_id', 'Nullable(String)') AS "boot_id",
    JSONExtract(line, 'pid', 'Nullable(Int64)') AS "pid",
    JSONExtract(line, 'start_ticks', 'Nullable(Int64)') AS "start_ticks",
    JSONExtract(line, 'command', 'Nullable(String)') AS "command",
    JSONExtract(line, 'os', 'Nullable(String)') AS "os",
    JSONExtract(line, 'duration_s', 'Nullable(Float64)') AS "duration_s",
    JSONExtract(line, 'processes', 'Nullable(Int64)') AS "processes",
    JSONExtract(line, 'threads', 'Nullable(Int64)') AS "threads",
    JSONExtract(line, 'blockers', 'Nullable(Int64)') AS "blockers",
    JSONExtract(line, 'log_entries', 'Nullable(Int64)') AS "log_entries"
FROM rogue_hunter.wire
WHERE JSONExtractString(line, 'type') = 'capture' AND JSONExtractInt(line, 'v') = 1;

CREATE TABLE IF NOT EXISTS rogue_hunter.actions_rows (
    "host_id" LowCardinality(String),
    "row" Int64,
    "received" Float64,
    "ts" Float64 CODEC(NONE),
    "boot_id" LowCardinality(String),
    "pid" Int64,
    "start_ticks" Int64,
    "user" LowCardinality(Nullable(String)),
    "command" LowCardinality(Nullable(String)),
    "exe" Nullable(String),
    "cmdline" Nullable(String),
    "rule" LowCardinality(String),
    "priority" Nullable(String),
    "reason" Nullable(String),
    "evidence" Nullable(String),
    "outcome" LowCardinality(String),
    "detail" Nullable(String),
    "signal" Nullable(String),
    "dry_run" Bool,
    "cpu_recovered_percent" Nullable(Float64),
    "host" LowCardinality(Nullable(String)),
    "run" Nullable(String),
    "audit_seq" Nullable(Int64),
    "score" Nullable(Int64),
    "band" LowCardinality(Nullable(String))
) ENGINE = ReplacingMergeTree
PARTITION BY positiveModulo(intDiv(toInt64(ts), 86400), 64) ORDER BY (ts, host_id, row)
TTL toDateTime(received) + INTERVAL 30 DAY
SETTINGS index_granularity = 32768, min_age_to_force_merge_seconds = 600, min_age_to_force_merge_on_partition_only = 1;

CREATE VIEW IF NOT EXISTS rogue_hunter.actions AS SELECT * FROM rogue_hunter.actions_rows FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS rogue_hunter.actions_in TO rogue_hunter.actions_rows AS
SELECT splitByChar('.', _subject)[3] AS host_id, JSONExtract(line, 'row', 'Int64') AS row,
    toUnixTimestamp64Milli(now64(3)) / 1000. AS received,
    JSONExtract(line, 'ts', 'Float64') AS "ts",
    JSONExtract(line, 'boot_id', 'String') AS "boot_id",
    JSONExtract(line, 'pid', 'Int64') AS "pid",
    JSONExtract(line, 'start_ticks', 'Int64') AS "start_ticks",
    JSONExtract(line, 'user', 'Nullable(String)') AS "user",
    JSONExtract(line, 'command', 'Nullable(String)') AS "command",
    JSONExtract(line, 'exe', 'Nullable(String)') AS "exe",
    JSONExtract(line, 'cmdline', 'Nullable(String)') AS "cmdline",
    JSONExtract(line, 'rule', 'String') AS "rule",
    JSONExtract(line, 'priority', 'Nullable(String)') AS "priority",
    JSONExtract(line, 'reason', 'Nullable(String)') AS "reason",
    JSONExtract(line, 'evidence', 'Nullable(String)') AS "evidence",
    JSONExtract(line, 'outcome', 'String') AS "outcome",
    JSONExtract(line, 'detail', 'Nullable(String)') AS "detail",
    JSONExtract(line, 'signal', 'Nullable(String)') AS "signal",
    JSONExtract(line, 'dry_run', 'Bool') AS "dry_run",
    JSONExtract(line, 'cpu_recovered_percent', 'Nullable(Float64)') AS "cpu_recovered_percent",
    JSONExtract(line, 'host', 'Nullable(String)') AS "host",
    JSONExtract(line, 'run', 'Nullable(String)') AS "run",
    JSONExtract(line, 'audit_seq', 'Nullable(Int64)') AS "audit_seq",
    JSONExtract(line, 'score', 'Nullable(Int64)') AS "score",
    JSONExtract(line, 'band', 'Nullable(String)') AS "band"
FROM rogue_hunter.wire
WHERE JSONExtractString(line, 'type') = 'action' AND JSONExtractInt(line, 'v') = 1;

CREATE TABLE IF NOT EXISTS rogue_hunter.batches_rows (
    "host_id" LowCardinality(String),
    "row" Int64,
    "received" Float64,
    "sent" Float64,
    "minute" Int64,
    "host" LowCardinality(Nullable(String)),
    "boot_id" LowCardinality(Nullable(String)),
    "os" LowCardinality(Nullable(String)),
    "os_version" LowCardinality(Nullable(String)),
    "version" LowCardinality(Nullable(String)),
    "redacted" Int64,
    "tables" String
) ENGINE = ReplacingMergeTree
PARTITION BY positiveModulo(intDiv(toInt64(sent), 86400), 64) ORDER BY (sent, host_id, row)
TTL toDateTime(received) + INTERVAL 30 DAY
SETTINGS index_granularity = 32768, min_age_to_force_merge_seconds = 600, min_age_to_force_merge_on_partition_only = 1;

CREATE VIEW IF NOT EXISTS rogue_hunter.batches AS SELECT * FROM rogue_hunter.batches_rows FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS rogue_hunter.batches_in TO rogue_hunter.batches_rows AS
SELECT splitByChar('.', _subject)[3] AS host_id, JSONExtract(line, 'row', 'Int64') AS row,
    toUnixTimestamp64Milli(now64(3)) / 1000. AS received,
    JSONExtract(line, 'sent', 'Float64') AS "sent",
    JSONExtract(line, 'minute', 'Int64') AS "minute",
    JSONExtract(line, 'host', 'Nullable(String)') AS "host",
    JSONExtract(line, 'boot_id', 'Nullable(String)') AS "boot_id",
    JSONExtract(line, 'os', 'Nullable(String)') AS "os",
    JSONExtract(line, 'os_version', 'Nullable(String)') AS "os_version",
    JSONExtract(line, 'version', 'Nullable(String)') AS "version",
    JSONExtract(line, 'redacted', 'Int64') AS "redacted",
    nullIf(JSONExtractRaw(line, 'tables'), '') AS "tables"
FROM rogue_hunter.wire
WHERE JSONExtractString(line, 'type') = 'fleet_batch' AND JSONExtractInt(line, 'v') = 1;

CREATE TABLE IF NOT EXISTS rogue_hunter.commands_rows (
    "host_id" LowCardinality(String),
    "command" LowCardinality(String),
    "first_ts" SimpleAggregateFunction(min, Nullable(Float64)),
    "last_ts" SimpleAggregateFunction(max, Nullable(Float64)),
    "highest" SimpleAggregateFunction(max, Nullable(Int64))
) ENGINE = AggregatingMergeTree
ORDER BY (command, host_id)
SETTINGS index_granularity = 32768, min_age_to_force_merge_seconds = 600, min_age_to_force_merge_on_partition_only = 1;

CREATE VIEW IF NOT EXISTS rogue_hunter.commands AS SELECT * FROM rogue_hunter.commands_rows FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS rogue_hunter.commands_in TO rogue_hunter.commands_rows AS
SELECT e.host_id AS host_id, coalesce(e.command, e.unit, '?') AS command, min(e.ts) AS first_ts, max(e.ts) AS last_ts, max(e.score) AS highest FROM rogue_hunter.events_rows AS e GROUP BY e.host_id, coalesce(e.command, e.unit, '?');

CREATE TABLE IF NOT EXISTS rogue_hunter.culprits_rows (
    "host_id" LowCardinality(String),
    "command" LowCardinality(String),
    "version" LowCardinality(String),
    "last_ts" SimpleAggregateFunction(max, Nullable(Float64))
) ENGINE = AggregatingMergeTree
ORDER BY (version, command, host_id)
SETTINGS index_granularity = 32768, min_age_to_force_merge_seconds = 600, min_age_to_force_merge_on_partition_only = 1;

CREATE VIEW IF NOT EXISTS rogue_hunter.culprits AS SELECT * FROM rogue_hunter.culprits_rows FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS rogue_hunter.culprits_in TO rogue_hunter.culprits_rows AS
SELECT e.host_id AS host_id, coalesce(e.culprit, '?') AS command, coalesce(e.os_version, '?') AS version, max(e.ts) AS last_ts FROM rogue_hunter.pauses_rows AS e GROUP BY e.host_id, coalesce(e.culprit, '?'), coalesce(e.os_version, '?');

CREATE TABLE IF NOT EXISTS rogue_hunter.host_hours_rows (
    "host_id" LowCardinality(String),
    "hour" Float64,
    "name" SimpleAggregateFunction(max, Nullable(String)),
    "last_ts" SimpleAggregateFunction(max, Nullable(Float64)),
    "behind" SimpleAggregateFunction(min, Nullable(Float64))
) ENGINE = AggregatingMergeTree
ORDER BY (hour, host_id)
SETTINGS index_granularity = 32768, min_age_to_force_merge_seconds = 600, min_age_to_force_merge_on_partition_only = 1;

CREATE VIEW IF NOT EXISTS rogue_hunter.host_hours AS SELECT * FROM rogue_hunter.host_hours_rows FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS rogue_hunter.host_hours_in TO rogue_hunter.host_hours_rows AS
SELECT e.host_id AS host_id, floor(e.received / 3600) * 3600 AS hour, max(e.host) AS name, max(e.received) AS last_ts, min(e.received - e.sent) AS behind FROM rogue_hunter.batches_rows AS e GROUP BY e.host_id, floor(e.received / 3600) * 3600;
