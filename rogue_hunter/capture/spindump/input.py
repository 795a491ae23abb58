"""Normalise an input file: gunzip, line endings, e-mail quote marks."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_UNPACKED = 1 << 30
"""Bytes that are unpacked from a compressed file. The largest real report has 40 MB; a gzip file can unpack to a
thousand times its size."""

GZIP = b"\x1f\x8b"

_BUFFER = 1 << 16


class Problem:
    """`text`: what was wrong with the input, known once it is read; empty if nothing was."""

    text = ""


def plain(stream: io.BufferedReader, limit: int = MAX_UNPACKED) -> tuple[io.BufferedReader, Problem]:
    """The stream as text with line feeds: gzip is unpacked up to `limit` bytes; carriage returns end the lines of a
    file that has no line feeds.

    The stream ends where unpacking fails; the Problem has the reason. Raises nothing itself.
    """
    problem = Problem()
    if stream.peek(2).startswith(GZIP):
        import gzip

        stream = _buffered(_Unpacked(gzip.GzipFile(fileobj=stream), limit, problem))
    if _carriage_returns(stream.peek(_BUFFER)):
        stream = _buffered(_Translated(stream))
    return stream, problem


def _buffered(raw: io.RawIOBase) -> io.BufferedReader:
    return io.BufferedReader(raw, _BUFFER)


def _carriage_returns(start: bytes) -> bool:
    return b"\r" in start and b"\n" not in start


class _Filter(io.RawIOBase):
    """A stream that is read through `_more`."""

    _more: Callable[[int], bytes]

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill the buffer; 0 at the end."""
        data = self._more(len(buffer))
        buffer[:len(data)] = data
        return len(data)


class _Unpacked(_Filter):
    """The bytes of a gzip file, up to a limit."""

    def __init__(self, packed: io.BufferedIOBase, limit: int, problem: Problem) -> None:
        self._packed = packed
        self._left = limit
        self._limit = limit
        self._problem = problem

    def _more(self, size: int) -> bytes:
        if self._problem.text:
            return b""
        try:
            data = self._packed.read1(size)
        except (EOFError, zlib.error, OSError) as error:
            # An OSError with a number is a read error of the disk, not a damaged file.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            cut = isinstance(error, EOFError)
            self._problem.text = f"compressed with gzip, and {'cut short' if cut else f'damaged: {error}'}"
            return b""
        if len(data) > self._left:
            self._problem.text = f"it unpacks to more than {self._limit >> 20} MiB: the rest is not read"
            data = data[:self._left]
        self._left -= len(data)
        return data


class _Translated(_Filter):
    """Carriage returns as line feeds."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream

    def _more(self, size: int) -> bytes:
        return self._stream.read1(size).replace(b"\r", b"\n")


_QUOTED = re.compile(rb"((?:> ?){1,8})(?:Report Version:|Date/Time: |Process:  |Data Source: |Powerstats for:)")


def quote_of(line: bytes) -> bytes:
    """The e-mail quote marks before the first line of a report; empty if there are none."""
    found = _QUOTED.match(line)
    return found.group(1) if found else b""


def unquoted(lines: Iterable[bytes], quote: bytes) -> Iterator[bytes]:
    """The lines without `quote`. An empty line often lacks the space after its mark."""
    bare = quote.rstrip()
    for line in lines:
        if line.startswith(quote):
            yield line[len(quote):]
        elif line.rstrip() == bare:
            yield b"\n"
        else:
            yield line
