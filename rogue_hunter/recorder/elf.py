"""Function names of an ELF file: .symtab, .dynsym, and the starts of functions in .eh_frame_hdr.

Only the addresses that are asked for are looked up, in one pass over the symbols: a table of a million symbols is read
in half a second and leaves nothing in memory. The file is read through a function, not mapped: a mapped file that is
cut short while it is read ends the reader with SIGBUS.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

Read = Callable[[int, int], bytes]
"""The bytes of the file at an offset, as many as there are up to a size; none for an offset that no file has."""

_LOAD, _NOTE, _EH_FRAME = 1, 4, 0x6474E550
_SYMTAB, _DYNSYM = 2, 11
_FUNCTIONS = (2, 10)
"""Types of symbols: functions, and functions that are chosen when they are linked (GNU_IFUNC)."""
_BUILD_ID = 3
SYMBOL_BYTES = 24
SYMBOLS_MAX = FUNCTIONS_MAX = 2_000_000
NOTES_MAX = 1 << 16
NAME_MAX = 512
"""Bytes of a symbol's name that are kept: names of C++ templates reach kilobytes."""


class Segment(NamedTuple):
    """A part of the file that is mapped: offset and size in the file, address in memory."""

    kind: int
    offset: int
    size: int
    address: int


@dataclass(frozen=True, slots=True)
class Elf:
    """The headers of a 64-bit ELF file."""

    order: str
    segments: tuple[Segment, ...]
    sections: tuple[tuple[int, int, int, int], ...]
    """Of each section: type, offset, size, number of the section with its names."""

    def address(self, offset: int) -> int | None:
        """The address in the file's own numbering of what lies at a file offset; None if it is not mapped."""
        for kind, start, size, address in self.segments:
            if kind == _LOAD and start <= offset < start + size:
                return address + offset - start
        return None


def parse(read: Read) -> Elf:
    """The headers. Raises ValueError for what is no 64-bit ELF file."""
    head = read(0, 64)
    if len(head) < 64 or head[:4] != b"\x7fELF" or head[4] != 2 or head[5] not in (1, 2):
        raise ValueError("not a 64-bit ELF file")
    order = "<" if head[5] == 1 else ">"
    *_, phoff, shoff, _, _, phsize, phcount, shsize, shcount, _ = struct.unpack(order + "HHIQQQIHHHHHH", head[16:])
    segments = [Segment(kind, offset, size, address) for kind, _, offset, address, _, size, _, _
                in _table(read, order + "IIQQQQQQ", phoff, phcount if phsize == 56 else 0)]
    sections = [(kind, offset, size, link) for _, kind, _, _, offset, size, link, _, _, _
                in _table(read, order + "IIQQQQIIQQ", shoff, shcount if shsize == 64 else 0)]
    return Elf(order, tuple(segments), tuple(sections))


def _table(read: Read, form: str, offset: int, count: int) -> Iterator[tuple[int, ...]]:
    """The entries of a table, as far as they lie within the file."""
    size = struct.calcsize(form)
    data = read(offset, size * count)
    return struct.iter_unpack(form, data[: len(data) - len(data) % size])


def build_id(read: Read, elf: Elf) -> str | None:
    """The build id in hexadecimal digits; None if the file has none."""
    for kind, offset, size, _ in elf.segments:
        data = read(offset, min(size, NOTES_MAX)) if kind == _NOTE else b""
        at = 0
        while at + 12 <= len(data):
            name, length, note = struct.unpack_from(elf.order + "III", data, at)
            body = at + 12 + (name + 3 & ~3)
            if note == _BUILD_ID and data[at + 12: at + 16] == b"GNU\0" and 0 < length <= 64 and \
                    body + length <= len(data):
                return data[body: body + length].hex()
            at = body + (length + 3 & ~3)
    return None


def functions(read: Read, elf: Elf, wanted: Sequence[int]) -> dict[int, str]:
    """Address -> name of the function that holds it, of those that are known. `wanted` are addresses in the file's own
    numbering, sorted. A function without a name is its start in hexadecimal digits."""
    found: dict[int, str] = {}
    for table in (_SYMTAB, _DYNSYM):
        for kind, offset, size, link in elf.sections:
            if kind == table and link < len(elf.sections) and len(found) < len(wanted):
                _, names, names_size, _ = elf.sections[link]
                for address, at in _holders(read, elf.order, offset, size, wanted).items():
                    if address not in found and at < names_size and (name := _name(read(names + at, NAME_MAX))):
                        found[address] = name
    left = [address for address in wanted if address not in found]
    if left and (starts := sorted(_starts(read, elf))):
        for address in left:
            at = bisect_right(starts, address) - 1
            if at >= 0:
                found[address] = f"{starts[at]:#x}"
    return found


def _holders(read: Read, order: str, offset: int, size: int, wanted: Sequence[int]) -> dict[int, int]:
    """Wanted address -> offset of the name of the function that holds it: of those, the one that begins last."""
    best: dict[int, tuple[int, int]] = {}
    for name, info, _, section, start, length in _table(read, order + "IBBHQQ", offset,
                                                        min(size // SYMBOL_BYTES, SYMBOLS_MAX)):
        if info & 15 not in _FUNCTIONS or not section:
            continue
        # Of a function without a size a page is taken for its own.
        end = start + (length or 4096)
        at = bisect_left(wanted, start)
        while at < len(wanted) and wanted[at] < end:
            if start >= best.get(wanted[at], (-1, 0))[0]:
                best[wanted[at]] = start, name
            at += 1
    return {address: name for address, (_, name) in best.items()}


def _name(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def _starts(read: Read, elf: Elf) -> Iterator[int]:
    """The addresses at which functions begin, by the table of .eh_frame_hdr; stripped files have it too."""
    for kind, offset, size, address in elf.segments:
        head = read(offset, 12) if kind == _EH_FRAME else b""
        # Version 1; pointer pc-relative, count unsigned, table relative to the header: all signed or unsigned 4 bytes.
        if len(head) == 12 and head[:4] == b"\x01\x1b\x03\x3b":
            count: int = struct.unpack_from(elf.order + "I", head, 8)[0]
            for start, _ in _table(read, elf.order + "ii", offset + 12, min(count, FUNCTIONS_MAX, size // 8)):
                yield address + start
