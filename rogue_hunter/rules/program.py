"""What a process is called: the names under which a rule or the whitelist may know it.

A name is what the process runs, never what it is handed: `less my_test.py` is less and not my_test.py, but
`python3 my_test.py` is python3 and my_test.py, because an interpreter's script is its program.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from rogue_hunter.stream.tick import Row

SUBJECT_LIMIT = 4096
"""Characters of a name or line that patterns see. The wire carries no more of a command line."""

COMM_LIMIT = 15
"""Bytes of the kernel's short name on Linux (TASK_COMM_LEN - 1): a longer program name is cut to this."""

# Interpreter -> the options that take the next word as their value. What follows an option in _CODE is code, not a
# file. (`-m`, `-jar`, `-f` need no entry: the word after them is the program's name.)
_VALUED: Mapping[str, frozenset[str]] = {
    "python": frozenset({"-W", "-X", "--check-hash-based-pycs"}), "perl": frozenset({"-I"}),
    "ruby": frozenset({"-I", "-r", "-C", "-E"}),
    "node": frozenset({"-r", "--require", "--import", "--loader", "-C", "--conditions", "--env-file"}),
    "php": frozenset({"-c", "-d", "-z"}), "lua": frozenset({"-l"}), "sh": frozenset({"--rcfile", "--init-file"}),
    "tcl": frozenset({"-encoding"}), "java": frozenset({"-cp", "-classpath", "--class-path", "-p", "--module-path"}),
    "osascript": frozenset({"-l", "-s"}), "deno": frozenset({"-c", "--config"}),
}
_CODE: Mapping[str, frozenset[str]] = {
    "python": frozenset({"-c"}), "perl": frozenset({"-e", "-E"}), "ruby": frozenset({"-e"}),
    "node": frozenset({"-e", "--eval", "-p", "--print"}), "php": frozenset({"-r"}), "lua": frozenset({"-e"}),
    "osascript": frozenset({"-e"}),
}
# A shell's flags are bundled: with c in it (-c, -lc) code follows, with o at its end (-o, -euo, +O) an option's name.
_SHELL_CODE = re.compile(r"-[a-zA-Z]*c[a-zA-Z]*")
_SHELL_VALUED = re.compile(r"[-+][a-zA-Z]*[oO]")
_SUBCOMMANDS: Mapping[str, frozenset[str]] = {"deno": frozenset({"run", "test"}), "node": frozenset({"run"})}
_FAMILY = re.compile(
    r"^(?:(?P<python>python|pypy|pythonw)|(?P<perl>perl)|(?P<ruby>ruby|jruby|truffleruby)|(?P<node>node|nodejs|bun)"
    r"|(?P<php>php)|(?P<lua>lua|luajit)|(?P<sh>sh|bash|dash|zsh|ksh|mksh|ash|fish|busybox)|(?P<tcl>tclsh|wish|expect)"
    r"|(?P<java>java)|(?P<osascript>osascript)|(?P<deno>deno)|(?P<r>Rscript))[0-9.]*[a-z]?$"
)


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


def script_of(interpreter: str, arguments: Iterable[str]) -> str | None:
    """The script or module that `interpreter` (a program's last name) runs, None when it runs none or is none."""
    found = _FAMILY.match(interpreter)
    if found is None:
        return None
    family = found.lastgroup or ""
    words = iter(arguments)
    for word in words:
        if word in _CODE.get(family, ()) or (family == "sh" and _SHELL_CODE.fullmatch(word)):
            return None
        if word == "--":
            return next(words, None)
        if word in _VALUED.get(family, ()) or (family == "sh" and _SHELL_VALUED.fullmatch(word)):
            next(words, None)
        elif not word.startswith(("-", "+")) and word not in _SUBCOMMANDS.get(family, ()):
            return word or None
    return None


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
