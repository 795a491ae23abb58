"""The names of a process: what patterns and the whitelist are compared with.

A name is what the process runs, never what it is handed: `less my_test.py` is less and not my_test.py, but
`python3 my_test.py` is python3 and my_test.py, because an interpreter's script is its program.

What could not be read is unknown, which is different from empty: a row without `exe` or `cmdline` may belong to any
program. Only names that are certain are listed, and `names_unread` and `line_unread` give the reason why there may be
others.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Collection, Iterable
from typing import NamedTuple

from rogue_hunter.sampling.naming import programs_of, script_of
from rogue_hunter.stream.tick import Row
from rogue_hunter.text.redact import LIMIT

SUBJECT_LIMIT = 4096
"""Characters of a name or line that patterns see. The wire carries no more of a command line."""

COMM_LIMIT = 15
"""Bytes of the kernel's short name on Linux (TASK_COMM_LEN - 1): a longer program name is cut to this."""


class Program(NamedTuple):
    """`names` of what runs, without repeats: the short name, path and last part of the program and of argv[0], path
    and last part of an interpreter's script. `line` is the last part of argv[0] with the arguments after it, None if
    it is unknown.

    `names_unread` and `line_unread` say what could not be read, empty when names or line are complete.
    """

    names: tuple[str, ...]
    line: str | None
    names_unread: str = ""
    line_unread: str = ""


NO_NAME = "its name cannot be read"
NO_ARGUMENTS = "its arguments cannot be read"
NO_PROGRAM = "its program cannot be read"
CUT = f"its command line is longer than the {LIMIT} bytes that are read"


def described(row: Row) -> bool:
    """Have the arguments been read? Hosts read them after the first sight of a process; "" means that it has none."""
    return row.get("cmdline") is not None


def program_of(row: Row, directory: str = "") -> Program:
    """The names in a process row; an absent `command`, `exe` or `cmdline` is unknown. With its working `directory`,
    also the whole path of a script.

    A dead process that waits for its parent (state defunct, one thread, arguments read as empty) has no program.
    """
    exe, cmdline = row.get("exe"), row.get("cmdline")
    if exe is None and cmdline == "" and row.get("state") == "defunct" and row.get("threads") == 1:
        exe = ""
    return _program(row.get("command"), exe, cmdline, directory)


@functools.lru_cache(maxsize=4096)
def _program(command: str | None, exe: str | None, cmdline: str | None, directory: str) -> Program:
    path = (exe or "").removesuffix(" (deleted)")[:SUBJECT_LIMIT]
    known = [(command or "")[:SUBJECT_LIMIT], _last(path), path]
    if cmdline is None:
        return Program(_distinct(known), None, NO_ARGUMENTS, NO_ARGUMENTS)
    # Redaction cuts between characters, of which the longest has four bytes.
    cut = len(cmdline) > SUBJECT_LIMIT or len(cmdline.encode("utf-8", "surrogatepass")) > LIMIT - 4
    first, rest = _split(path, cmdline[:SUBJECT_LIMIT])
    if exe is None:
        # A path with blanks looks like a program with arguments, and the script depends on the program.
        certain = not (first.startswith("/") and rest)
        names = _distinct([*known, _last(first), first] if certain else known)
        return Program(names, _line(first, rest) if certain and not cut else None, NO_PROGRAM, NO_PROGRAM)
    # Under another name busybox is that program: `less x.sh` runs no script.
    multiple = _last(path) == "busybox" != _last(first)
    runs = (not multiple and programs_of(_last(path), rest.split(" "))) or programs_of(_last(first), rest.split(" "))
    script = runs[-1] if runs else None
    names = _distinct([*known, _last(first), first, *(name for each in runs for name in (_last(each), each)),
                       os.path.normpath(os.path.join(directory, script)) if script and directory else ""])
    interprets = any(script_of(_last(name), ("script",)) for name in (path, first))
    ends = not rest or (interprets and (script is None or rest.endswith(script)))   # the cut may be in a name
    unread = NO_NAME if command is None else CUT if cut and ends else ""
    return Program(names, None if cut else _line(first, rest), unread, CUT if cut else "")


def _split(path: str, cmdline: str) -> tuple[str, str]:
    """argv[0] and the rest. A path with blanks in it is recognised by the path that the kernel gives."""
    if path and (cmdline == path or cmdline.startswith(path + " ")):
        return path, cmdline[len(path) + 1:]
    first, _, rest = cmdline.partition(" ")
    return first, rest


def _line(first: str, rest: str) -> str:
    return f"{_last(first)} {rest}" if rest else _last(first)


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name))


@functools.lru_cache(maxsize=4096)
def with_subcommand(program: Program) -> Program:
    """With one more name, the program and its subcommand: `cargo build` for `cargo build --release`.

    For patterns that protect: `^cargo build$` means the build, with any options.
    """
    words = (program.line or "").split(" ")
    if len(words) < 3 or words[1].startswith("-"):
        return program
    return program._replace(names=(*program.names, f"{words[0]} {words[1]}"))


def _last(path: str) -> str:
    """The last part of a path; a login shell's `-bash` is bash."""
    return path.rpartition("/")[2].removeprefix("-")


def listed(program: Program, entries: Iterable[str]) -> str | None:
    """The first of `entries` that is exactly one of the program's known names, ignoring case; None if there is none.

    An entry longer than the kernel's short name also protects the process whose short name is its beginning. One with a
    blank also counts in the command line, where it may be the name of a script: `python3 /srv/my job.py`. A path also
    protects what another path of the same file names: the kernel gives the path of a program without symbolic links.
    """
    names = {name.casefold() for name in program.names}
    line = f" {program.line or ''} ".casefold().replace("/", " ")
    return next((entry for entry in entries if entry.casefold() in names or _comm(entry) in names
                 or (" " in entry and f" {entry.casefold()} " in line)
                 or (entry.startswith(("/", "~")) and _leads_to(entry, program.names))), None)


def whitelisted(program: Program, entries: Collection[str]) -> bool | None:
    """Is the program one of `entries`? None if it cannot be ruled out, because not all of its names are known."""
    if listed(program, entries) is not None:
        return True
    return None if entries and program.names_unread else False


def _leads_to(entry: str, names: Iterable[str]) -> bool:
    real = os.path.realpath(os.path.expanduser(entry))
    return any(os.path.realpath(name) == real for name in names if name.startswith("/"))


@functools.cache
def _comm(entry: str) -> str:
    """The kernel's short name of a program of this name: cut by bytes, decoded as a comm is."""
    return entry.encode()[:COMM_LIMIT].decode("utf-8", "backslashreplace").casefold()
