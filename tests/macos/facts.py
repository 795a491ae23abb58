"""The table of ABI facts, and how the ctypes declarations are held to it."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parent / "abi_facts.txt"

SCALARS: dict[str, Any] = {
    "int": ctypes.c_int, "u_int": ctypes.c_uint, "uint32_t": ctypes.c_uint32, "uint64_t": ctypes.c_uint64,
    "size_t": ctypes.c_size_t, "kern_return_t": ctypes.c_int, "mach_port_t": ctypes.c_uint32,
    "host_t": ctypes.c_uint32, "host_flavor_t": ctypes.c_int, "qos_class_t": ctypes.c_uint32,
    "processor_flavor_t": ctypes.c_int, "vm_map_t": ctypes.c_uint32, "vm_address_t": ctypes.c_size_t,
    "vm_size_t": ctypes.c_size_t,
    "dev_t": ctypes.c_int32, "mode_t": ctypes.c_uint16,
}
POINTERS = ("mach_timebase_info_t", "host_info_t", "host_info64_t")
"""Typedefs that are pointers; every other pointer is spelled with a star."""


@dataclass
class Struct:
    """A C structure: `members` is member -> (offset, size)."""

    name: str
    python: str
    size: int
    note: str = ""
    members: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass
class Call:
    """A C function."""

    result: str
    name: str
    arguments: list[str]


@dataclass
class Facts:
    """The whole table. `consts` is name -> (value, note)."""

    structs: list[Struct] = field(default_factory=list)
    consts: dict[str, tuple[int, str]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)


def read(text: str) -> Facts:
    """Parse the table."""
    facts = Facts()
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        words = rest.split()
        if kind == "struct":
            facts.structs.append(Struct(words[0], words[1], int(words[2]), *words[3:]))
        elif kind == "field":
            facts.structs[-1].members[words[0]] = (int(words[1]), int(words[2]))
        elif kind == "const":
            facts.consts[words[0]] = (int(words[1]), words[2] if len(words) > 2 else "")
        elif kind == "call":
            found = re.fullmatch(r"(.+?) (\w+)\((.*)\)", rest)
            assert found, line
            arguments = [] if found[3] == "void" else [a.strip() for a in found[3].split(",")]
            facts.calls.append(Call(found[1], found[2], arguments))
        else:
            assert not line or line.startswith("#"), line
    return facts


def struct_problems(struct: Struct, declared: type[ctypes.Structure]) -> list[str]:
    """Where a ctypes structure differs from the table."""
    problems = []
    if ctypes.sizeof(declared) != struct.size:
        problems.append(f"{struct.name}: {ctypes.sizeof(declared)} bytes, not {struct.size}")
    wanted = {member.rsplit(".", 1)[-1]: place for member, place in struct.members.items()}
    have = {name: (getattr(declared, name).offset, getattr(declared, name).size)
            for name, *_ in declared._fields_ if not name.startswith("_")}
    for name in wanted.keys() | have.keys():
        if wanted.get(name) != have.get(name):
            problems.append(f"{struct.name}.{name}: declared at {have.get(name)}, is at {wanted.get(name)}")
    return problems


def is_pointer(c_type: str) -> bool:
    """Is this C type a pointer?"""
    return c_type.endswith("*") or c_type in POINTERS


def call_problems(call: Call, signature: tuple[Any, tuple[Any, ...]]) -> list[str]:
    """Where a ctypes signature differs from the table."""
    result, arguments = signature
    problems = []
    if len(arguments) != len(call.arguments):
        return [f"{call.name}: {len(arguments)} arguments, not {len(call.arguments)}"]
    for c_type, declared in zip([call.result, *call.arguments], [result, *arguments], strict=True):
        if is_pointer(c_type):
            fits = declared in (ctypes.c_void_p, ctypes.c_char_p) or issubclass(declared, ctypes._Pointer)
        else:
            fits = ctypes.sizeof(declared) == ctypes.sizeof(SCALARS[c_type]) and declared is SCALARS[c_type]
        if not fits:
            problems.append(f"{call.name}: {declared} for {c_type}")
    return problems
