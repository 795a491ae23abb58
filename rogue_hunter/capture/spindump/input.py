"""A file as somebody sent it, made into lines: unpacked, with line feeds, without the marks of a mail quoting it."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_UNPACKED = 1 << 30
"""Bytes that are taken out of a compressed file. The largest real report has 40 MB; gzip can hold a thousand times its
own size, and nobody waits for a terabyte of zeros."""

GZIP = b"\x1f\x8b"

_BUFFER = 1 << 16


class Problem:
    """What was wrong with the bytes, once they are read; empty while nothing was."""

    text = ""


def plain(stream: io.BufferedReader, limit: int = MAX_UNPACKED) -> tuple[io.BufferedReader, Problem]:
    """The stream as text with line feeds: gzip is unpacked up to `limit` bytes, the carriage returns of a file without
    line feeds are taken for its ends of lines.

    What cannot be unpacked ends the stream and is said in the Problem; what came before it can be read. Raises nothing
    itself.
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
    """The bytes of a gzip file, so many at most."""

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
            # OSError is also a disk that cannot be read, which is not the file's fault.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            cut = isinstance(error, EOFError)
            self._problem.text = f"compressed with gzip, and {'cut short' if cut else f'damaged: {error}'}"
            return b""
        if len(data) > self._left:
            self._problem.text = f"more than {self._limit >> 20} MiB come out of it: the rest is not read"
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
    """The marks of quotation before the first line of a report; empty when there are none."""
    found = _QUOTED.match(line)
    return found.group(1) if found else b""


def unquoted(lines: Iterable[bytes], quote: bytes) -> Iterator[bytes]:
    """The lines without `quote`. An empty line often lost the blank behind its mark."""
    bare = quote.rstrip()
    for line in lines:
        if line.startswith(quote):
            yield line[len(quote):]
        elif line.rstrip() == bare:
            yield b"\n"
        else:
            yield line
