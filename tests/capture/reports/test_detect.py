"""Reports as they come by mail: compressed, quoted, with the line ends of another system."""

from __future__ import annotations

import errno
import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.capture.reports.detect import plain, quote_of, read, unquoted
from rogue_hunter.stream.wire import dumps
from tests.tools.spindump import FIXTURES, SAMPLES, check

HEAVY = (FIXTURES / "heavy.txt").read_bytes()


def records(data: bytes) -> list[dict[str, Any]]:
    """What is read out of a file of these bytes."""
    return check(read(io.BufferedReader(io.BytesIO(data))))   # type: ignore[arg-type]


def quoted(data: bytes, mark: bytes = b"> ") -> bytes:
    return b"".join((mark + line if line.strip() else mark.rstrip() + b"\n") for line in data.splitlines(keepends=True))


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "two gzip members": lambda data: gzip.compress(data[:1000]) + gzip.compress(data[1000:]),
    "carriage returns": lambda data: data.replace(b"\n", b"\r"),
    "carriage returns in gzip": lambda data: gzip.compress(data.replace(b"\n", b"\r")),
    "CRLF": lambda data: data.replace(b"\n", b"\r\n"),
    "quoted": quoted,
    "quoted twice": lambda data: quoted(data, b"> > "),
    "quoted tightly": lambda data: quoted(data, b">>"),
    "quoted, below an answer": lambda data: b"Hello,\n\nsee below.\n\nOn Monday somebody wrote:\n" + quoted(data),
    "quoted in gzip": lambda data: gzip.compress(quoted(data)),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_records_are_those_of_the_plain_report(form: str) -> None:
    usual, seen = records(HEAVY), records(FORMS[form](HEAVY))
    skip = ("lines",)
    assert [{k: v for k, v in each.items() if k not in skip} for each in seen] == \
        [{k: v for k, v in each.items() if k not in skip} for each in usual]
    assert usual[-1]["type"] == "spindump_report" and usual[-1]["complete"] is True


@pytest.mark.slow
def test_real_reports_in_every_form() -> None:
    if not SAMPLES.is_dir():
        pytest.skip("the folder of real samples is not here")
    data = next(SAMPLES.glob("spindump/macos-10.15.7*")).read_bytes()
    usual = records(data)
    for form, change in FORMS.items():
        if "two" not in form:
            assert len(records(change(data))) == len(usual), form


def test_records_of_captures_are_unpacked_too() -> None:
    data = b"".join(dumps(each) + b"\n" for each in records(HEAVY))
    assert records(gzip.compress(data)) == records(data)


def test_a_damaged_or_cut_archive_gives_what_comes_out_of_it() -> None:
    packed = gzip.compress(HEAVY)
    cut = records(packed[:-400])
    assert "cut short" in cut[-1]["message"] and any(each["type"] == "spindump_process" for each in cut)
    damaged = bytearray(packed)
    damaged[-6] ^= 1
    assert "damaged" in records(bytes(damaged))[-1]["message"]
    assert [each["type"] for each in records(b"\x1f\x8b\x08aaaa")] == ["error", "error"]
    assert "once more" in records(gzip.compress(packed))[0]["message"]


def test_what_comes_out_is_bounded() -> None:
    """A bomb: 30 kB that hold 30 MB. Only up to the limit is read, which is reported."""
    bomb = gzip.compress(b"Report Version: 60\n" + b" " * 30_000_000)
    assert len(bomb) < 40_000
    stream, problem = plain(io.BufferedReader(io.BytesIO(bomb)), 1 << 20)    # type: ignore[arg-type]
    assert len(stream.read()) == 1 << 20
    assert problem.text == "it unpacks to more than 1 MiB: the rest is not read"
    assert stream.read() == b""


def test_a_disk_that_fails_is_no_fault_of_the_file() -> None:
    class Failing(io.RawIOBase):
        def __init__(self) -> None:
            self.left = gzip.compress(HEAVY)[:500]

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any, /) -> int:
            if not self.left:
                raise OSError(errno.EIO, "Input/output error")
            data, self.left = self.left[:len(buffer)], self.left[len(buffer):]
            buffer[:len(data)] = data
            return len(data)

    with pytest.raises(OSError, match="Input/output"):
        list(read(io.BufferedReader(Failing())))


def test_marks_of_quotation() -> None:
    assert quote_of(b"> Report Version: 60\n") == b"> "
    assert quote_of(b"> > Process:  x [1]\n") == b"> > "
    assert quote_of(b"Report Version: 60\n") == quote_of(b"> hello\n") == quote_of(b"") == b""
    assert list(unquoted([b"> a\n", b">\n", b"b\n", b"> > c\n"], b"> ")) == [b"a\n", b"\n", b"b\n", b"> c\n"]


def test_the_command_takes_it(tmp_path: Path, rh: Callable[..., Any]) -> None:
    file = tmp_path / "report.txt.gz"
    file.write_bytes(gzip.compress(quoted(HEAVY)))
    done = rh("forensics", "blame", file)
    assert done.returncode == 0 and done.stderr == b"" and done.stdout
    file.write_bytes(gzip.compress(HEAVY)[:-200])
    done = rh("forensics", "parse", file)
    assert done.returncode == 65 and b"cut short" in done.stderr and b"Traceback" not in done.stderr
