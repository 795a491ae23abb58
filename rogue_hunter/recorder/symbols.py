"""Names for what a process runs: addresses of call chains, the frames of a Python process, the line of a bash script.

For a helper process: reading the tables of the kernel, of files of a process, and of code that was compiled while it
ran takes a tenth of a second and more. A process is read only while it is the one that was recorded; what cannot be
named is its module and offset.

The names of an ELF file are those of .symtab and .dynsym, and the starts of functions in .eh_frame_hdr. Only the
addresses that are asked for are looked up, in one pass over the symbols: a table of a million symbols is read in half a
second and leaves nothing in memory. The file is read through a function, not mapped: a mapped file that is cut short
while it is read ends the reader with SIGBUS.

The frames of a Python process come from py-spy, where it is installed; how far a bash has read its script, from its
descriptor of the file.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import struct
import subprocess
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rogue_hunter.files import read_start
from rogue_hunter.host.linux.parse import parse_stat
from rogue_hunter.stream import wire

KERNEL_BYTES = 64 << 20
MAPS_BYTES = 8 << 20
JIT_BYTES = 32 << 20
READ_BYTES = 64 << 20
"""Limits of what is read of kallsyms, maps, perf-PID.map, and of one table of a program."""
DEBUG = Path("/usr/lib/debug/.build-id")
_MAP = re.compile(rb"([0-9a-f]{1,16})-([0-9a-f]{1,16}) (\S{4}) ([0-9a-f]{1,16}) ([0-9a-f]{1,8}):([0-9a-f]{1,8}) "
                  rb"(\d{1,20}) *(.*)")

EXITED, NO_MAPS, NOWHERE = "[exited]", "[no permission to read its maps]", "[no code]"
"""Names where there is none: the process is gone, its maps cannot be read, the address is in no code."""

Address = tuple[int, bool]
"""An address, and whether it is the kernel's."""


class Area(NamedTuple):
    """One executable mapping of a process."""

    start: int
    end: int
    offset: int
    device: int
    inode: int
    path: str


def parse_maps(data: bytes) -> list[Area]:
    """The executable mappings of /proc/PID/maps, in the order of addresses."""
    found = []
    for line in data.split(b"\n"):
        match = _MAP.fullmatch(line)
        if match is not None and match[3][2:3] == b"x":
            start, end, offset, major, minor = (int(match[i], 16) for i in (1, 2, 4, 5, 6))
            found.append(Area(start, end, offset, os.makedev(major, minor), int(match[7]),
                                  match[8].decode("utf-8", "backslashreplace")))
    return found


class Table(NamedTuple):
    """Names by address, sorted; sizes are 0 where they are not known."""

    starts: list[int]
    sizes: list[int]
    names: list[str]

    def name(self, address: int) -> str | None:
        """The name at an address."""
        at = bisect_right(self.starts, address) - 1
        if at < 0 or (self.sizes[at] and address >= self.starts[at] + self.sizes[at]):
            return None
        return self.names[at]


def parse_kallsyms(data: bytes) -> Table | None:
    """The functions of /proc/kallsyms; None if the kernel hides their addresses."""
    found = []
    for line in data.split(b"\n"):
        address, _, rest = line.partition(b" ")
        if rest[:1] in (b"t", b"T", b"w", b"W"):
            with suppress(ValueError):
                found.append((int(address, 16), rest[2:].split(b"\t", 1)[0].decode("utf-8", "backslashreplace")))
    found.sort()
    if not found or found[-1][0] == 0:
        return None
    return Table([a for a, _ in found], [0] * len(found), [n for _, n in found])


def parse_jit(data: bytes) -> Table:
    """The functions of a perf-PID.map: lines of start, size and name."""
    found = []
    for line in data.split(b"\n"):
        parts = line.split(b" ", 2)
        if len(parts) == 3:
            with suppress(ValueError):
                found.append((int(parts[0], 16), int(parts[1], 16), parts[2].decode("utf-8", "backslashreplace")))
    found.sort()
    return Table([f[0] for f in found], [f[1] for f in found], [f[2][: NAME_MAX] for f in found])


@dataclass(slots=True)
class Symbols:
    """Resolves addresses. `root` is /proc. Files are read once, also when several processes map them."""

    root: Path = Path("/proc")
    debug: Path = DEBUG
    _kernel: Table | None = None
    _files: dict[tuple[str, int], str] = field(default_factory=dict)

    def names(self, pid: int, start_ticks: int | None, wanted: Iterable[Address]) -> dict[Address, str]:
        """Address -> name, for all of `wanted`. With `start_ticks`, of this process only: of another process that has
        its pid now, nothing is read."""
        found: dict[Address, str] = {}
        kernel = [each for each in wanted if each[1]]
        user = sorted({address for address, is_kernel in wanted if not is_kernel})
        if kernel:
            if self._kernel is None:
                self._kernel = parse_kallsyms(_read(self.root / "kallsyms", KERNEL_BYTES)) or Table([], [], [])
            for each in kernel:
                found[each] = f"{self._kernel.name(each[0]) or '[kernel]'}_[k]"
        if user:
            found.update({(address, False): name for address, name in self._user(pid, start_ticks, user).items()})
        return found

    def _user(self, pid: int, start_ticks: int | None, wanted: list[int]) -> dict[int, str]:
        folder = self.root / str(pid)
        maps = parse_maps(_read(folder / "maps", MAPS_BYTES))
        try:
            start = parse_stat(_read(folder / "stat", 4096)).start
        except ValueError:
            return dict.fromkeys(wanted, EXITED)
        if start_ticks not in (None, start):
            return dict.fromkeys(wanted, EXITED)
        if not maps:
            return dict.fromkeys(wanted, NO_MAPS)
        found: dict[int, str] = {}
        starts = [each.start for each in maps]
        jit: Table | None = None
        inside: dict[Area, list[int]] = {}
        for address in wanted:
            at = bisect_right(starts, address) - 1
            if at < 0 or address >= maps[at].end:
                found[address] = NOWHERE
            elif maps[at].path.startswith("/") and maps[at].inode:
                inside.setdefault(maps[at], []).append(address)
            else:
                if jit is None:
                    jit = self._jit(pid)
                found[address] = jit.name(address) or maps[at].path or "[anonymous memory]"
        for each, addresses in inside.items():
            found.update(self._file(folder, each, addresses))
        return found

    def _file(self, folder: Path, area: Area, wanted: list[int]) -> dict[int, str]:
        """Names of addresses in one file."""
        module = area.path.removesuffix(" (deleted)").rpartition("/")[2] or area.path
        found = {address: f"{module}+{address - area.start + area.offset:#x}" for address in wanted}
        with suppress(OSError, ValueError), _opened(folder / f"root{area.path}", area) as read:
            headers = parse_elf(read)
            own = {address: headers.address(address - area.start + area.offset) for address in wanted}
            build = build_id(read, headers) or f"{area.device}:{area.inode}"
            left = sorted({at for at in own.values() if at is not None and (build, at) not in self._files})
            names = function_names(read, headers, left)
            if any(names.get(at, "0x").startswith("0x") for at in left) and ":" not in build:
                names.update(self._debug(build, left))
            self._files.update({(build, at): name for at, name in names.items()})
            for address, at in own.items():
                name = self._files.get((build, at)) if at is not None else None
                if name is not None:
                    found[address] = f"{module}+{name}" if name.startswith("0x") else name
        return found

    def _debug(self, build: str, wanted: list[int]) -> dict[int, str]:
        """Names from the separate file of debugging symbols, where it is installed."""
        with suppress(OSError, ValueError), _opened(self.debug / build[:2] / f"{build[2:]}.debug", None) as read:
            names = function_names(read, parse_elf(read), wanted)
            return {at: name for at, name in names.items() if not name.startswith("0x")}
        return {}

    def _jit(self, pid: int) -> Table:
        """What a virtual machine wrote about the code that it made (perf-PID.map in /tmp, as the process sees it). The
        file must be the process's own: anyone may write to /tmp."""
        folder = self.root / str(pid)
        status = _read(folder / "status", 4096)
        inner = _last_word(status, b"NSpid:") or str(pid)
        data = b""
        with suppress(OSError):
            path = folder / "root/tmp" / f"perf-{inner}.map"
            if os.lstat(path).st_uid in (0, os.stat(folder).st_uid):
                data = _read(path, JIT_BYTES)
        return parse_jit(data)


def _last_word(status: bytes, key: bytes) -> str | None:
    for line in status.split(b"\n"):
        if line.startswith(key):
            words = line.split()
            return words[-1].decode("ascii", "replace") if len(words) > 1 else None
    return None


def _read(path: Path, size: int) -> bytes:
    """The first `size` bytes of a file; none if it cannot be read."""
    with suppress(OSError):
        return read_start(path, size, flags=os.O_NOFOLLOW)
    return b""


@contextmanager
def _opened(path: Path, area: Area | None) -> Iterator[Read]:
    """A reader of a regular file; with `area` it must be the one that is mapped there. Raises OSError, ValueError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        info = os.fstat(fd)
        # Overlay file systems show another device in maps than stat does: the inode decides.
        if not stat.S_ISREG(info.st_mode) or (area is not None and info.st_ino != area.inode):
            raise ValueError("not the program that is mapped")

        def read(offset: int, size: int) -> bytes:
            return os.pread(fd, min(size, READ_BYTES), offset) if 0 <= offset < info.st_size else b""

        yield read
    finally:
        os.close(fd)


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


def parse_elf(read: Read) -> Elf:
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


def function_names(read: Read, elf: Elf, wanted: Sequence[int]) -> dict[int, str]:
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


DUMP_S = 3.0
FRAMES_MAX = 60
_PYTHON = re.compile(r"(?:python|pypy)[\d.]*[a-z]*$")

RunScript = Callable[[Sequence[str], float], bytes]


def _output_of(argv: Sequence[str], seconds: float) -> bytes:
    """The output of a command; empty if it fails or is late."""
    try:
        done = subprocess.run(list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              timeout=seconds, check=False)
    except (OSError, subprocess.SubprocessError):
        return b""
    return done.stdout if done.returncode == 0 else b""


def is_python(exe: str) -> bool:
    """True for the path of an interpreter of Python."""
    return _PYTHON.search(exe.removesuffix(" (deleted)")) is not None


def python_frames(pid: int, exe: str, run: RunScript = _output_of, found: str | None = None) -> list[str]:
    """The frames of its busiest thread now, outermost first, as `function (file:line)`; empty without py-spy.

    The process is not stopped for it. `found`: the path of py-spy (default: as PATH has it).
    """
    spy = found or shutil.which("py-spy")
    if not is_python(exe) or spy is None:
        return []
    return parse_dump(run([spy, "dump", "--json", "--nonblocking", "--pid", str(pid)], DUMP_S))


def parse_dump(data: bytes) -> list[str]:
    """The frames of the first thread that runs, else of the first thread, of `py-spy dump --json`."""
    try:
        threads = wire.loads(data)
        running = [each for each in threads if each.get("active")] or threads
        return [_python_frame(each) for each in running[0]["frames"][:FRAMES_MAX]][::-1]
    except (ValueError, TypeError, LookupError, AttributeError):
        return []


def _python_frame(frame: Any) -> str:
    file = str(frame.get("short_filename") or frame.get("filename") or "?").rpartition("/")[2]
    return f"{frame.get('name') or '?'} ({file}:{frame.get('line') or '?'})"


def record_command(pid: int, exe: str, seconds: float, hz: int) -> list[str] | None:
    """The command that prints the collapsed stacks of a Python process over some time; None without py-spy."""
    spy = shutil.which("py-spy")
    if spy is None or not is_python(exe):
        return None
    return [spy, "record", "--format", "raw", "--nonblocking", "--output", "/dev/stdout", "--rate", str(hz),
            "--duration", str(max(1, round(seconds))), "--pid", str(pid)]


def exe_of(pid: int, root: Path = Path("/proc")) -> str:
    """The path of its program; empty if it cannot be read."""
    try:
        return str((root / str(pid) / "exe").readlink())
    except OSError:
        return ""


SCRIPT_FD = 255
"""The descriptor from which bash reads its script (shell.c, open_shell_script)."""
SCRIPT_BLOCK = 8192
"""Bash reads a script in such blocks at most (input.c), and moves back to the end of the command that it runs before it
starts a process."""
SCRIPT_BYTES = 1 << 20
_SCRIPT_AT = re.compile(rb"pos:\t(\d{1,19})\n")


def script_line(pid: int, exe: str, root: Path = Path("/proc")) -> str | None:
    """`script.sh (read to line 7)` of a bash that runs a script; None where that cannot be known: another program, no
    permission, or a position that is only the end of a block or of the file, because the commands that run start no
    process."""
    if exe.rpartition("/")[2] != "bash":
        return None
    folder = root / str(pid)
    with suppress(OSError, ValueError):
        if str((folder / "exe").readlink()) != exe:     # the process has exited, and its pid is another's
            return None
        name = (folder / f"fd/{SCRIPT_FD}").readlink().name
        match = _SCRIPT_AT.match((folder / f"fdinfo/{SCRIPT_FD}").read_bytes())
        fd = os.open(folder / f"fd/{SCRIPT_FD}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            data = os.pread(fd, SCRIPT_BYTES, 0)
        finally:
            os.close(fd)
        at = int(match[1]) if match else 0
        lines = data.count(b"\n", 0, at)
        if 0 < at < len(data) and at % SCRIPT_BLOCK and data[at - 1:at] == b"\n":
            return f"{name} (read to line {lines})"
    return None
