"""The macOS kernel's bytes and numbers: decoding and the record's fields, without any library."""

from __future__ import annotations

import ctypes
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rogue_hunter.host.macos import abi, decode
from rogue_hunter.host.macos.decode import Task, Usage, Who
from rogue_hunter.schema.sampling import PROCESS


def area(path: bytes, *argv: bytes, argc: int | None = None, environment: tuple[bytes, ...] = (b"HOME=/x",)) -> bytes:
    """What KERN_PROCARGS2 gives."""
    head = struct.pack("=i", len(argv) if argc is None else argc) + path + b"\0"
    head += b"\0" * (-len(head) % 8)
    return head + b"".join(word + b"\0" for word in (*argv, *environment))


@pytest.mark.parametrize(("raw", "argv"), [
    (area(b"/bin/ls", b"ls", b"-l", b""), ["ls", "-l", ""]),
    (area(b"/bin/ls", b"ls", b"A=b"), ["ls", "A=b"]),
    (area(b"/bin/zsh", b"-zsh"), ["-zsh"]),
    (area(b"/bin/x", b"x\xff\x1b", b"\xe2\x80"), ["x\\xff\x1b", "\\xe2\\x80"]),
    (area(b"/bin/x", argc=0), []),
    (area(b"/bin/x", argc=-5), []),
    (b"\x01\0\0\0no end", []),
    (area(b"/bin/env", b"env", b"SECRET=1", environment=()), ["env", "SECRET=1"]),
])
def test_arguments(raw: bytes, argv: list[str]) -> None:
    """argc strings after the path, of any bytes."""
    assert decode.decode_arguments(raw) == argv


def test_the_environment_is_never_shown() -> None:
    """A count that reaches into the environment, because the program blanked its own name, does not show it."""
    blanked = area(b"/bin/tool", b"", b"--run", b"file", environment=(b"AWS_SECRET_ACCESS_KEY=abc", b"HOME=/x"))
    assert decode.decode_arguments(blanked) == ["--run", "file"]
    assert decode.decode_arguments(area(b"/bin/tool", b"", environment=(b"PASSWORD=abc",))) == []


@given(st.binary(max_size=300))
def test_any_arguments(raw: bytes) -> None:
    """No bytes fail but those too short to hold a count."""
    if len(raw) < 5:
        with pytest.raises(ValueError, match="cut short"):
            decode.decode_arguments(raw)
    else:
        for word in decode.decode_arguments(raw):
            word.encode()


@given(st.binary(min_size=464, max_size=464), st.integers(0, 6))
def test_any_rusage(raw: bytes, version: int) -> None:
    """Any bytes decode; what the version lacks is None; the later fields are those of the structure."""
    size = ctypes.sizeof(abi.RUSAGE[version])
    usage = decode.decode_rusage(raw[:size], version)
    assert usage.cpu_user_ticks == int.from_bytes(raw[16:24], "little")
    assert (usage.children_ticks is None) == (version < 1) and (usage.disk_read_bytes is None) == (version < 2)
    assert (usage.memory_peak_bytes is None) == (version < 4)
    assert usage.disk_write_bytes is None or usage.disk_write_bytes < 2**63


@given(st.binary(min_size=232, max_size=232))
def test_any_taskallinfo(raw: bytes) -> None:
    """Any bytes decode to text and numbers that can be written."""
    who, task = decode.decode_taskallinfo(raw)
    who.command.encode()
    assert who.start_us is not None and who.start_us >= 0
    assert task.faults is None or task.faults != abi.INT32_MAX


def test_names() -> None:
    """The longer name where there is one, ended by NUL, any bytes visible."""
    b = abi.ProcBsdInfo(pbi_comm=b"short", pbi_name=b"a longer name\xff", pbi_nice=-3, e_tdev=0xFFFFFFFF)
    who = decode.decode_bsdinfo(bytes(b))
    assert (who.command, who.nice, who.tty_device) == ("a longer name\\xff", -3, None)
    assert decode.decode_bsdinfo(bytes(abi.ProcBsdInfo(pbi_comm=b"short"))).command == "short"


def usage(**counters: int) -> Usage:
    """Counters at zero but for these."""
    return decode.NOTHING._replace(**counters)


@given(st.integers(0, 2**40), st.integers(0, 2**40), st.floats(0.001, 100))
def test_rates_are_never_negative(now: int, before: int, seconds: float) -> None:
    """A counter that grew has its rate; one that fell has none."""
    names = ("cpu_user_ticks", "wakeups", "pageins", "disk_read_bytes", "energy_nj", "qos_interactive_ticks")
    rates = decode.rate_fields(usage(**dict.fromkeys(names, now)), None, usage(**dict.fromkeys(names, before)), None,
                               seconds, 1e-9)
    assert all(value >= 0 for value in rates.values())
    assert ("wakeups_per_s" in rates) == (now >= before)
    if now >= before:
        assert rates["wakeups_per_s"] == pytest.approx((now - before) / seconds, abs=0.01)


def test_fields_are_the_schemas() -> None:
    """Every field made here is declared, with the declared type."""
    declared = {f.name: f.type for f in PROCESS}
    full = Usage(5, 5, 1, 1, 1, 1, 0, b"", 1, 1, 1, 1, 1, 1, 1, 1, 1)
    task = Task(1, 1, 1, 1, 1, 1, 1)
    who = Who(1, 0, 0, "x", 2, 0, 1, 1_000_000)
    made = {**decode.identity_fields(who), **decode.state_fields(who, task, None),
            **decode.total_fields(full, task, 1e-9), **decode.rate_fields(full, task, decode.NOTHING,
                                                                          decode.NO_TASK_YET, 1.0, 1e-9)}
    assert {name: type(value) for name, value in made.items()} == {name: declared[name] for name in made}


@pytest.mark.parametrize(("states", "word"), [
    ([3, 1, 4], "running"), ([3, 4, 3], "uninterruptible"), ([3, 2], "sleeping"), ([2, 5], "stopped"),
    ([5], "halted"), ([], None), ([99], None),
])
def test_thread_states(states: list[int], word: str | None) -> None:
    """The liveliest thread names the state, as ps(1) does it."""
    assert decode.threads_state(states) == word


@pytest.mark.parametrize(("before", "now", "busy"), [
    ([10, 5, 100, 0, 0, 0, 0, 0], [20, 5, 110, 0, 10, 0, 0, 10], 1.5),      # half of one CPU, all of another
    ([2**32 - 5, 0, 0, 0], [5, 0, 10, 0], 0.5),                             # one state wraps
    ([1, 2, 3, 4], [1, 2, 3, 4], None),                                     # no time has passed
    ([1, 2, 3, 4], [1, 2, 3, 4, 9, 9, 9, 9], None),                         # another number of CPUs
    ([0, 0, 0, 0, 7, 7, 7, 7], [0, 0, 50, 0, 7, 7, 7, 7], 0.0),             # one idle, one without ticks
])
def test_busy_cores(before: list[int], now: list[int], busy: float | None) -> None:
    """The busy part of each CPU's ticks, added up."""
    assert decode.busy_cores(decode.decode_cpu_load(now), decode.decode_cpu_load(before)) == busy
