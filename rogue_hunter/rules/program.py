"""What a process is called: the names under which a rule or the whitelist may know it.

A name is what the process runs, never what it is handed: `less my_test.py` is less and not my_test.py, but
`python3 my_test.py` is python3 and my_test.py, because an interpreter's script is its program.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import NamedTuple

from rogue_hunter.stream.tick import Row
from rogue_hunter.text.interpreters import script_of

SUBJECT_LIMIT = 4096
"""Characters of a name or line that patterns see. The wire carries no more of a command line."""

COMM_LIMIT = 15
"""Bytes of the kernel's short name on Linux (TASK_COMM_LEN - 1): a longer program name is cut to this."""


class Program(NamedTuple):
    """`names` of what runs, without repeats: the short name, path and last part of the program and of argv[0], path
    and last part of an interpreter's script. `line` is the last part of argv[0] with the arguments after it."""

    names: tuple[str, ...]
    line: str


def program_of(row: Row) -> Program:
    """The names in a process row; a key that is missing adds none."""
    return _program(row.get("command", ""), row.get("exe", ""), row.get("cmdline", ""))


@functools.lru_cache(maxsize=4096)
def _program(command: str, exe: str, cmdline: str) -> Program:
    exe = exe.removesuffix(" (deleted)")[:SUBJECT_LIMIT]
    cmdline = cmdline[:SUBJECT_LIMIT]
    if exe and (cmdline == exe or cmdline.startswith(exe + " ")):
        first, rest = exe, cmdline[len(exe) + 1:]  # a path with blanks in it, told by the path that the kernel knows
    else:
        first, _, rest = cmdline.partition(" ")
    names = [command[:SUBJECT_LIMIT], _last(exe), exe, _last(first), first]
    script = script_of(_last(exe), rest.split(" ")) or script_of(_last(first), rest.split(" "))
    if script is not None:
        names += [_last(script), script]
    line = f"{_last(first)} {rest}" if rest else _last(first)
    return Program(tuple(dict.fromkeys(n for n in names if n)), line)


@functools.lru_cache(maxsize=4096)
def with_subcommand(program: Program) -> Program:
    """With one name more, the program and its subcommand: `cargo build` is what `cargo build --release` is called.

    For patterns that protect: `^cargo build$` means the build, whatever its options.
    """
    words = program.line.split(" ")
    if len(words) < 3 or words[1].startswith("-"):
        return program
    return Program((*program.names, f"{words[0]} {words[1]}"), program.line)


def _last(path: str) -> str:
    """The last part of a path; a login shell's `-bash` is bash."""
    return path.rpartition("/")[2].removeprefix("-")


def listed(program: Program, entries: Iterable[str]) -> str | None:
    """The first of `entries` that is exactly one of the program's names, whatever the case; None when none is.

    An entry longer than the kernel's short name also protects the process whose short name is its beginning.
    """
    names = {name.casefold() for name in program.names}
    return next((entry for entry in entries if entry.casefold() in names or _comm(entry) in names), None)


@functools.cache
def _comm(entry: str) -> str:
    """The kernel's short name of a program of this name: cut by bytes, read as a comm is."""
    return entry.encode()[:COMM_LIMIT].decode("utf-8", "backslashreplace").casefold()
