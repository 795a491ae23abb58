"""schema.py is the one declaration: what it says is complete, free of contradictions and keeps its own rules."""

from __future__ import annotations

import re

import pytest

from rogue_hunter import schema
from rogue_hunter.schema import RECORDS, events, field, sampling

ALL = [(kind, field) for kind, fields in RECORDS.items() for field in fields]


def words(text: str) -> list[str]:
    """The names in a text."""
    return text.split()


# The wire contract, as published: a name that vanishes here breaks a reader somewhere.
PROCESS = words("""ts seq pid start_ticks start_time ppid uid user command exe cmdline cgroup tty
state state_raw priority nice threads age_s
cpu_seconds_total cpu_user_seconds_total cpu_system_seconds_total children_cpu_seconds_total cpu_percent
memory_bytes memory_peak_bytes pageins_total pageins_per_s faults_total faults_per_s
disk_read_bytes_total disk_write_bytes_total disk_bytes_per_s
context_switches_total context_switches_per_s syscalls_total syscalls_per_s mach_messages_total mach_messages_per_s
instructions_total cycles_total ipc wakeups_total wakeups_per_s energy_joules_total energy_watts
run_delay_seconds_total run_delay_ms_per_s qos_interactive_seconds_total qos_interactive_ms_per_s
gpu_seconds_total gpu_ms_per_s
model score band disproportionality dominant_resource cpu_share gpu_share memory_share disk_share wakeups_share
blocking_score contention_score pressure_score efficiency_score dominant_category dominant_metrics terms""")
TICK = words("""ts seq mono_ns host boot_id os interval_s late_s asleep_s cpus cpu_busy_cores memory_total_bytes
memory_available_bytes processes active started exited unreadable errors unattributed_cpu_cores self_cpu_percent
self_memory_bytes max_score""")
EVENT = words("""ts kind event boot_id entered duration_s peak_score peak_band reason pid start_ticks command band score
cpu_percent cpu_percent_low cpu_percent_high memory_bytes_low memory_bytes_high score_low score_high""")


@pytest.mark.parametrize(("kind", "names"), [("process", PROCESS), ("tick", TICK), ("event", EVENT)])
def test_contract(kind: str, names: list[str]) -> None:
    """Every field of the wire contract is declared."""
    assert set(names) <= {f.name for f in RECORDS[kind]}


def test_order_of_a_process_record() -> None:
    """The fields of a process record have the order of the contract: identity, state, resources, score."""
    names = [f.name for f in sampling.PROCESS]
    assert [name for name in names if name in PROCESS] == PROCESS


@pytest.mark.parametrize("kind", RECORDS)
def test_names_are_unique(kind: str) -> None:
    """A name stands for one field of a record."""
    names = [f.name for f in RECORDS[kind]]
    assert len(names) == len(set(names))
    assert not {"type", "v"} & set(names)
    assert kind in schema.SUMMARY


@pytest.mark.parametrize("kind", RECORDS)
def test_fields(kind: str) -> None:
    """A field has a lower-case name, a JSON type, a meaning, known platforms and a column type that fits."""
    for one in RECORDS[kind]:
        assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", one.name)
        assert one.type in (int, float, str, bool, list, dict), one
        assert one.doc and not one.doc.endswith("."), one
        assert set(one.platforms.split()) <= {"linux", "macos"} and one.platforms, one
        assert one.sql == {int: "INTEGER", bool: "INTEGER", float: "REAL"}.get(one.type, "TEXT"), one
        assert not one.metric or one.type in (int, float), one
        assert not one.choices or one.type is str, one


# The unit is part of the name: this ending means that unit, wherever it is used.
ENDINGS = {
    "_bytes": "bytes",
    "_bytes_total": "bytes",
    "_bytes_per_s": "bytes/s",
    "_ms_per_s": "ms/s",
    "_seconds_total": "s",
    "_percent": "%",
    "_watts": "W",
    "_joules_total": "J",
    "_cores": "cores",
    "_ns": "ns",
    "_share": "1",
    "_score": "0-100",
}


@pytest.mark.parametrize("kind", RECORDS)
def test_unit_is_in_the_name(kind: str) -> None:
    """An ending of a name and its unit say the same."""
    for one in RECORDS[kind]:
        name = re.sub("_(low|high)$", "", one.name)
        for ending, unit in ENDINGS.items():
            if name.endswith(ending) and not any(len(e) > len(ending) and name.endswith(e) for e in ENDINGS):
                assert one.unit == unit, one.name
        if name.endswith("_per_s") and not name.endswith(("_bytes_per_s", "_ms_per_s")):
            assert one.unit == "1/s", one.name


def test_same_name_same_meaning() -> None:
    """A field that the records of a pipeline share has one type and one unit: an event's score is a process's score."""
    seen: dict[str, tuple[type, str]] = {}
    for kind, one in ALL:
        if kind in ("process", "tick", "event", "error", "pause"):
            assert seen.setdefault(one.name, (one.type, one.unit)) == (one.type, one.unit), one.name


def test_ranges_cover_the_metrics() -> None:
    """A snapshot has a low and a high of every metric and of nothing else."""
    names = {f.name for f in events.EVENT}
    tails = {name for name in names if name.endswith(("_low", "_high"))}
    assert tails == {f.name + tail for f in sampling.METRICS for tail in ("_low", "_high")}


def test_enumerations() -> None:
    """The bands rise, and what a field may say is what the enumerations say."""
    assert field.BANDS == ("low", "medium", "elevated", "high", "critical")
    choices = {f.name: f.choices for kind in ("process", "event") for f in RECORDS[kind] if f.choices}
    assert choices["state"] == field.STATES
    assert choices["band"] == choices["peak_band"] == field.BANDS
    assert choices["dominant_resource"] == field.RESOURCES
    assert choices["kind"] == events.EVENT_KINDS == ("enter", "band", "peak", "checkpoint", "exit")
    assert choices["reason"] == events.EXIT_REASONS


def test_identity_is_required() -> None:
    """No record about a process can be without the identity of the process."""
    for kind in ("process", "event"):
        required = {f.name for f in RECORDS[kind] if f.required}
        assert {"ts", "pid", "start_ticks"} <= required
    assert "boot_id" in {f.name for f in events.EVENT if f.required}
