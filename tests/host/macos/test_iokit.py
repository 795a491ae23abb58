"""GPU time by process: the parser on property lists of every kind, and the framework calls on a counting fake."""

from __future__ import annotations

import ctypes
import os
import plistlib
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rogue_hunter.host.macos import iokit
from tests.macos.fake import build

CLIENTS = [
    {"IORegistryEntryID": 2, "IOObjectClass": "AGXDeviceUserClient", "IOUserClientCreator": "pid 533, WindowServer",
     "AppUsage": [{"API": "Metal", "accumulatedGPUTime": 1_000_000_000}, {"API": "GL", "accumulatedGPUTime": 5}]},
    {"IORegistryEntryID": 3, "IOUserClientCreator": "pid 533, WindowServer",
     "AppUsage": [{"accumulatedGPUTime": 233_367_620}]},
    {"IORegistryEntryID": 4, "IOUserClientCreator": "pid 900, game, of the name", "accumulatedGPUTime": 7},
    {"IORegistryEntryID": 5, "IOUserClientCreator": "pid 901, idle"},
    {"IORegistryEntryID": 6, "IOClass": "no client", "AppUsage": [{"accumulatedGPUTime": 99}]},
]
TREE = [{"IORegistryEntryID": 1, "IOObjectClass": "AGXAcceleratorG13X", "IORegistryEntryChildren": CLIENTS}]


def test_clients_are_summed() -> None:
    """All clients of a process and all entries of a client add up; a client without a time is left out, not 0."""
    assert iokit.parse_ioreg(plistlib.dumps(TREE)) == {533: 1_233_367_625, 900: 7}


def test_an_entry_counts_once() -> None:
    """An entry that is printed under its parent and again as a root is one entry."""
    assert iokit.parse_ioreg(plistlib.dumps([*TREE, CLIENTS[0], *TREE])) == {533: 1_233_367_625, 900: 7}


def test_no_gpu() -> None:
    """ioreg prints nothing where nothing matches: no process uses a GPU, which is known."""
    assert iokit.parse_ioreg(b"") == iokit.parse_ioreg(b"\n") == {}


@pytest.mark.parametrize("data", [b"x", b"<plist><dict>", b"bplist00\xff\xff", b"<plist><integer>x</integer></plist>"])
def test_what_is_no_property_list(data: bytes) -> None:
    """Raised as a ValueError, for any error of the parser inside."""
    with pytest.raises(ValueError, match="not a property list"):
        iokit.parse_ioreg(data)


@pytest.mark.parametrize(("creator", "pid"), [
    ("pid 533, WindowServer", 533), ("pid 1", 1), ("pid , x", None), ("pid 5x, y", None), (17, None), (None, None),
    ("PID 5, x", None),
])
def test_creators(creator: object, pid: int | None) -> None:
    """The pid in what a client says of who made it."""
    assert iokit.parse_creator(creator) == pid


def test_nonsense_times() -> None:
    """Times that are no counters are not summed."""
    assert iokit.client_ns({"AppUsage": [{"accumulatedGPUTime": t} for t in (-1, True, "5", 2**64, 4)]}) == 4
    assert iokit.client_ns({"AppUsage": "x", "accumulatedGPUTime": None}) is None


values = st.recursive(st.integers(-2**63, 2**64 - 1) | st.text(max_size=5) | st.booleans(),
                      lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
                          ["AppUsage", "accumulatedGPUTime", "IOUserClientCreator", "IORegistryEntryChildren",
                           "IORegistryEntryID"]), inner, max_size=4), max_leaves=12)


@pytest.mark.slow
@settings(max_examples=100 if "RH_LONG" in os.environ else 20)
@given(values)
def test_any_property_list(tree: object) -> None:
    """No property list makes the parser fail, and no time is negative."""
    assert all(ns >= 0 for ns in iokit.parse_ioreg(plistlib.dumps(tree, fmt=plistlib.FMT_BINARY)).values())


def test_reader_failures() -> None:
    """Where ioreg is missing, fails or hangs the answer is None; a recorded file is read each time."""
    for error in (FileNotFoundError("ioreg"), subprocess.TimeoutExpired("ioreg", 10)):
        def fail(error: Exception = error) -> bytes:
            raise error

        assert iokit.ioreg_reader(fail)() is None
    assert iokit.ioreg_reader(lambda: b"junk")() is None


def test_recorded_reader(tmp_path: Path) -> None:
    """The file may be missing, appear and change."""
    reader = iokit.recorded_reader(tmp_path / "gpu.plist")
    assert reader() is None
    (tmp_path / "gpu.plist").write_bytes(plistlib.dumps(TREE))
    assert reader() == {533: 1_233_367_625, 900: 7}


def test_frameworks() -> None:
    """Through IOKit's calls: the children of every accelerator, and everything that was made or iterated released
    exactly once, however often it is read."""
    path = str(build())
    counts = ctypes.CDLL(path)
    before = counts.fake_iokit_alive()      # of tests before this one
    registry = iokit.Registry(path, path)
    kept = counts.fake_iokit_alive()
    for _ in range(50):
        assert registry.read() == {533: 1_233_367_630, 900: 7000}
    assert counts.fake_iokit_alive() == kept == before + 3    # the three names that are kept for good
    assert counts.fake_iokit_bad() == 0


def test_an_iterator_that_ends_early_is_read_again() -> None:
    """When a client comes or goes, the walk ends without an error: it is repeated, and given up after the second."""
    path = str(build())
    registry, fake = iokit.Registry(path, path), ctypes.CDLL(path)
    for cuts, wanted in ((1, {533: 1_233_367_630, 900: 7000}), (2, None)):
        kept = fake.fake_iokit_alive()
        fake.fake_iokit_cut(cuts)
        assert registry.read() == wanted
        fake.fake_iokit_cut(0)
        assert fake.fake_iokit_alive() == kept and fake.fake_iokit_bad() == 0
    assert registry.read() is not None


def test_missing_frameworks() -> None:
    """A missing framework or function is an OSError, which the caller answers with ioreg."""
    with pytest.raises(OSError, match="no/such"):
        iokit.Registry("/no/such/IOKit")
    with pytest.raises(OSError, match="IOServiceMatching"):
        iokit.Registry("libc.so.6")
