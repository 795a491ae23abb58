"""Apple's own headers judge the ctypes declarations, for both architectures, through zig's C compiler.

The assertions are generated from the declarations themselves, so that what is compiled is what runs on a Mac.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rogue_hunter.host.macos import abi
from rogue_hunter.host.macos.libproc import OPTIONAL, SIGNATURES
from tests.macos import facts
from tests.macos.fake import zig, zig_lib

TABLE = facts.read(facts.TABLE.read_text())
TARGETS = ("aarch64-macos", "x86_64-macos")
HEADERS = ("stddef.h", "stdint.h", "stdlib.h", "libproc.h", "sys/proc_info.h", "sys/resource.h", "sys/sysctl.h",
           "sys/proc.h", "sys/stat.h", "sys/errno.h", "mach/mach.h", "mach/mach_time.h", "pthread/qos.h")


def assertions() -> list[str]:
    """One _Static_assert for every size, field, constant and function."""
    lines = []
    for struct in TABLE.structs:
        if struct.note == "private":
            continue
        declared: type[ctypes.Structure] = getattr(abi, struct.python)
        c_name = f"struct {struct.name}"
        if struct.note == "prefix":
            lines.append(f'_Static_assert(sizeof({c_name}) >= {ctypes.sizeof(declared)}, "{c_name}");')
        else:
            lines.append(f'_Static_assert(sizeof({c_name}) == {ctypes.sizeof(declared)}, "{c_name}");')
        for member in struct.members:
            place = getattr(declared, member.rsplit(".", 1)[-1])
            label = f"{struct.name}.{member}"
            lines.append(f'_Static_assert(offsetof({c_name}, {member}) == {place.offset}, "{label}");')
            lines.append(f'_Static_assert(sizeof((({c_name} *)0)->{member}) == {place.size}, "{label}");')
    for name, (_, note) in TABLE.consts.items():
        if note != "private":
            lines.append(f'_Static_assert(({name}) == {getattr(abi, name)}, "{name}");')
    lines.append('_Static_assert(sizeof(natural_t) == 4 && sizeof(*(processor_info_array_t)0) == 4, "words");')
    lines.append('_Static_assert(__builtin_types_compatible_p(__typeof__(mach_task_self_), mach_port_t), "task");')
    lines.append('_Static_assert(sizeof(audit_token_t) == 8 * sizeof(uint32_t), "audit_token_t");')
    for c_type, declared_type in facts.SCALARS.items():
        lines.append(f'_Static_assert(sizeof({c_type}) == {ctypes.sizeof(declared_type)}, "{c_type}");')
    for call in TABLE.calls:
        whole = f"{call.result} (*)({', '.join(call.arguments) or 'void'})"
        lines.append(f'_Static_assert(__builtin_types_compatible_p(__typeof__(&{call.name}), {whole}), "{call.name}");')
    return lines


@pytest.fixture(scope="module", params=TARGETS)
def judge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[str]], str]:
    """Compile assertions for one target; gives the compiler's complaints."""
    compiler = zig()
    directory: Path = tmp_path_factory.mktemp(str(request.param))

    def compile_(lines: list[str]) -> str:
        source = directory / "assertions.c"
        source.write_text("".join(f"#include <{h}>\n" for h in HEADERS) + "\n".join(lines) + "\n")
        # An object, not -fsyntax-only: zig then looks for the object it never made and fails after 20 s.
        done = subprocess.run([*compiler, "-target", request.param, "-c", str(source), "-o", str(directory / "a.o")],
                              capture_output=True, text=True, check=False)
        assert done.returncode in (0, 1), done.stderr
        return "" if done.returncode == 0 else done.stderr

    return compile_


def test_headers_agree(judge: Callable[[list[str]], str]) -> None:
    """Every field, size, constant and function is where and what Apple's headers say."""
    lines = assertions()
    assert len(lines) > 450
    assert judge(lines) == ""


WRONG = (
    ("rusage_info_v4.ri_phys_footprint", "== 72,", "== 80,"),
    ("rusage_info_v6.ri_energy_nj", "== 336,", "== 328,"),
    ("proc_taskinfo.pti_csw", "== 4,", "== 8,"),
    ("kinfo_proc.kp_eproc.e_ppid", "== 560,", "== 556,"),
    ("struct proc_bsdinfo", "== 136,", "== 144,"),
    ("SRUN", "== 2,", "== 1,"),
    ("proc_pidinfo", "uint64_t,", "uint32_t,"),
)


def test_headers_refuse_what_is_wrong(judge: Callable[[list[str]], str]) -> None:
    """Each wrong offset, size, constant or argument is refused and named, and nothing else: the assertions do assert."""
    lines = assertions()
    for name, right, wrong in WRONG:
        at = [i for i, line in enumerate(lines) if line.endswith(f'"{name}");') and right in line]
        assert at, f"no assertion about {name} has {right}"
        lines[at[0]] = lines[at[0]].replace(right, wrong)
    errors = [line for line in judge(lines).splitlines() if re.search(r"\berror:", line)]
    assert len(errors) == len(WRONG) and all(any(name in line for line in errors) for name, _, _ in WRONG), errors


def test_symbols_are_exported() -> None:
    """libSystem exports every function that is called, by the list that Apple's linker links against."""
    listed = (zig_lib() / "libc" / "darwin" / "libSystem.tbd").read_text()
    exported = set(re.findall(r"[\[ ,'\"]_(\w+)", listed))
    assert {*SIGNATURES, *OPTIONAL} - exported == set()
    assert "proc_no_such_function" not in exported


def test_declarations_are_all_asserted() -> None:
    """Nothing is declared without an assertion."""
    declared = {name for name, value in vars(abi).items()
                if isinstance(value, type) and issubclass(value, ctypes.Structure) and value is not ctypes.Structure}
    assert {s.python for s in TABLE.structs} == declared
    assert {c.name for c in TABLE.calls} == {*SIGNATURES, *OPTIONAL}
