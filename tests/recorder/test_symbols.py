"""Names of addresses: this interpreter's own functions, a program that is compiled here, and damaged files."""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rogue_hunter.recorder.symbols import (
    EXITED,
    NO_MAPS,
    SCRIPT_BLOCK,
    Read,
    Symbols,
    build_id,
    function_names,
    parse_elf,
    parse_jit,
    parse_kallsyms,
    parse_maps,
    script_line,
)

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="ELF files and /proc are Linux's")
PROGRAM = """
__attribute__((noinline)) int inner(int x) { volatile int y = x; return y * 3; }
__attribute__((noinline)) int outer(int x) { return inner(x) + 1; }
int main(int c, char **v) { int s = 0; for (;;) s += outer(c); }
"""


def reader(data: bytes) -> Read:
    return lambda offset, size: data[offset: offset + min(size, 1 << 26)] if 0 <= offset < len(data) else b""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A program with symbols, and the same without."""
    if shutil.which("gcc") is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("elf")
    (folder / "x.c").write_text(PROGRAM)
    subprocess.run(["gcc", "-O1", "-fno-omit-frame-pointer", "-Wl,--build-id", "-o", folder / "whole", folder / "x.c"],
                   check=True)
    shutil.copy(folder / "whole", folder / "bare")
    subprocess.run(["strip", folder / "bare"], check=True)
    return {name: folder / name for name in ("whole", "bare")}


def address_of(program: Path, name: str) -> int:
    lines = subprocess.run(["nm", program], capture_output=True, check=True, text=True).stdout.splitlines()
    return next(int(line.split()[0], 16) for line in lines if line.endswith(f" {name}"))


@LINUX
def test_functions_of_a_program(programs: dict[str, Path]) -> None:
    """By symbols; of a stripped program by the start of the function, which is the same."""
    inner, outer = (address_of(programs["whole"], name) for name in ("inner", "outer"))
    wanted = sorted([inner + 4, outer, outer + 5])
    for name, expected in (("whole", {inner + 4: "inner", outer: "outer", outer + 5: "outer"}),
                           ("bare", {inner + 4: hex(inner), outer: hex(outer), outer + 5: hex(outer)})):
        read = reader(programs[name].read_bytes())
        headers = parse_elf(read)
        assert function_names(read, headers, wanted) == expected
        assert len(build_id(read, headers) or "") == 40
    assert function_names(read, headers, []) == {}


@LINUX
def test_damaged_files(programs: dict[str, Path]) -> None:
    """No exception but ValueError for files with changed bytes and cut ends; the answers stay names."""
    rng = random.Random(5)
    for name, program in programs.items():
        whole = program.read_bytes()
        wanted = list(range(0x1000, 0x1300, 16))
        for _ in range(400):
            data = bytearray(whole[: rng.randrange(len(whole))] if rng.random() < 0.3 else whole)
            for _ in range(rng.randint(1, 6)):
                at = rng.randrange(min(len(data), 64 if rng.random() < 0.5 else len(data)) or 1)
                if data:
                    data[at: at + 4] = rng.randbytes(4)
            read = reader(bytes(data))
            try:
                headers = parse_elf(read)
            except ValueError:
                continue
            build_id(read, headers)
            assert all(isinstance(each, str) for each in function_names(read, headers, wanted).values()), name
    for data in (b"", b"\x7fELF", os.urandom(200), b"\x7fELF\x02\x01" + b"\xff" * 100):
        try:
            function_names(reader(data), parse_elf(reader(data)), [1])
        except ValueError:
            continue


@LINUX
def test_this_process() -> None:
    """The address of a function of libc is named; another start time is another process; nothing is a kernel address."""
    libc = ctypes.CDLL(None)
    address = ctypes.cast(libc.getpid, ctypes.c_void_p).value or 0
    start = int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[19])
    symbols = Symbols()
    named = symbols.names(os.getpid(), start, [(address + 1, False), (1, False)])
    assert "getpid" in named[address + 1, False] and named[1, False] == "[no code]"
    assert symbols.names(os.getpid(), start + 1, [(address, False)]) == {(address, False): EXITED}
    assert symbols.names(1 << 22, None, [(address, False)]) == {(address, False): EXITED}
    assert symbols.names(os.getpid(), start, [(0xffffffff81000000, True)]).popitem()[1].endswith("_[k]")


def test_a_machine_of_files(tmp_path: Path) -> None:
    """Kernel symbols, code that was compiled at run time, a map that must not be read, a file of another owner."""
    proc = tmp_path / "7"
    (proc / "root/tmp").mkdir(parents=True)
    (proc / "stat").write_bytes(b"7 (java) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 99 0 0 " + b"0 " * 30)
    (tmp_path / "kallsyms").write_bytes(b"ffffffff81000000 T _text\nffffffff81000100 t work_fn\t[mod]\nffffffff82000000 D data\n")
    (proc / "status").write_bytes(b"Name:\tjava\nNSpid:\t7\t3\n")
    symbols = Symbols(root=tmp_path)
    wanted = [(0x5000, False), (0x5100, False), (0xffffffff81000180, True)]
    assert symbols.names(7, 99, wanted)[0x5000, False] == NO_MAPS
    (proc / "maps").write_bytes(b"5000-6000 rwxp 00000000 00:00 0 \nx\n7000-8000 r--p 00000000 00:00 0 /a\n")
    (proc / "root/tmp/perf-3.map").write_bytes(b"5000 80 Loop.run;x\nbad\n5200 10 later\n")
    named = symbols.names(7, 99, wanted)
    assert named == {(0x5000, False): "Loop.run;x", (0x5100, False): "[anonymous memory]",
                     (0xffffffff81000180, True): "work_fn_[k]"}
    if os.geteuid() == 0:
        os.chown(proc / "root/tmp/perf-3.map", 12345, -1)
        assert symbols.names(7, 99, wanted)[0x5000, False] == "[anonymous memory]"


@pytest.mark.parametrize("parse", [parse_maps, parse_kallsyms, parse_jit])
def test_mutated_tables(parse: Callable[[bytes], object]) -> None:
    """Text of the kernel and of virtual machines, with changed bytes."""
    rng = random.Random(9)
    whole = (b"55d0c000-55d0d000 r-xp 00001000 fe:01 1234   /usr/bin/x y\nffffffff81000000 T _text\t[m]\n"
             b"7f00 10 name with spaces\n") * 4
    for _ in range(5000):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 10)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        parse(bytes(data))
    assert parse_kallsyms(b"0000000000000000 T hidden\n") is None
    assert struct.calcsize("P") in (4, 8)


def test_the_line_of_a_script(tmp_path: Path) -> None:
    """Known where bash moved back to the end of a command; not at the end of a block or of the file, within a line, of
    another program, or of another process with this pid."""
    folder = tmp_path / "7"
    for name in ("fd", "fdinfo"):
        (folder / name).mkdir(parents=True)
    script = tmp_path / "a.sh"
    script.write_bytes(b"one\ntwo\nthree\n" + b"#" * (SCRIPT_BLOCK - 15) + b"\nlast\n")
    (folder / "fd/255").symlink_to(script)
    (folder / "exe").symlink_to("/usr/bin/bash")
    for at, expected in ((8, "a.sh (read to line 2)"), (5, None), (0, None), (SCRIPT_BLOCK, None),
                         (script.stat().st_size, None), (1 << 60, None)):
        (folder / "fdinfo/255").write_text(f"pos:\t{at}\nflags:\t02100000\n")
        assert script_line(7, "/usr/bin/bash", tmp_path) == expected, at
    (folder / "fdinfo/255").write_text("pos:\t8\n")
    assert script_line(7, "/bin/bash", tmp_path) is script_line(7, "/usr/bin/dash", tmp_path) is None
    assert script_line(8, "/usr/bin/bash", tmp_path) is None
    (folder / "fdinfo/255").write_bytes(b"\xffpos")
    assert script_line(7, "/usr/bin/bash", tmp_path) is None
