"""libproc's declarations and calls: what needs no Mac, no compiler and no fake."""

from __future__ import annotations

import ctypes
import sys

import pytest

from rogue_hunter.host.macos import abi, libproc
from rogue_hunter.host.protocol import HostError
from tests.macos import facts

TABLE = facts.read(facts.TABLE.read_text())


@pytest.mark.parametrize("struct", TABLE.structs, ids=lambda s: s.name)
def test_structures_match_the_table(struct: facts.Struct) -> None:
    """Each structure has the size, and each field the place, that Apple's headers give it."""
    assert facts.struct_problems(struct, getattr(abi, struct.python)) == []


def test_constants_match_the_table() -> None:
    """Each constant has its value, and none is missing from the table."""
    declared = {name: value for name, value in vars(abi).items() if name.isupper() and isinstance(value, int)}
    assert declared == {name: value for name, (value, _) in TABLE.consts.items()}


def test_calls_match_the_table() -> None:
    """Each function's result and arguments have the types of its prototype."""
    signatures = libproc.SIGNATURES | libproc.OPTIONAL
    assert {call.name for call in TABLE.calls} == set(signatures)
    for call in TABLE.calls:
        assert facts.call_problems(call, signatures[call.name]) == []


def test_wrong_places_are_seen() -> None:
    """A field that slipped by eight bytes, a structure that lost its tail and a narrow argument are each reported."""
    v0 = next(s for s in TABLE.structs if s.name == "rusage_info_v0")
    fields = list(abi.RusageInfoV0._fields_)
    slipped = type("Slipped", (ctypes.Structure,), {"_fields_": [fields[0], fields[2], fields[1], *fields[3:]]})
    assert len(facts.struct_problems(v0, slipped)) == 2
    short = type("Short", (ctypes.Structure,), {"_fields_": fields[:-1]})
    assert any("88 bytes, not 96" in problem for problem in facts.struct_problems(v0, short))
    pidinfo = next(c for c in TABLE.calls if c.name == "proc_pidinfo")
    narrow = (ctypes.c_int, (ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_int))
    assert facts.call_problems(pidinfo, narrow)


def test_each_rusage_begins_with_the_one_before() -> None:
    """An older kernel's answer decodes by the older structure, field for field the same."""
    for older, newer in zip(abi.RUSAGE, abi.RUSAGE[1:], strict=False):
        assert newer._fields_[: len(older._fields_)] == older._fields_
    assert ctypes.sizeof(abi.RUSAGE[6]) == 464


@pytest.mark.skipif(sys.platform == "darwin", reason="this platform has a libproc")
def test_a_missing_library_is_one_clear_error() -> None:
    """Off macOS, without a library, and with a file that is not one: one clear sentence each."""
    with pytest.raises(HostError, match="no libproc"):
        libproc.Library()
    with pytest.raises(HostError, match="cannot load /no/such"):
        libproc.Library("/no/such.dylib")
    with pytest.raises(HostError, match=r"libc\.so\.6 lacks proc_listallpids"):
        libproc.Library("libc.so.6")
