"""The name that people read for a process, the script that an interpreter runs, and rogue-hunter's own processes.

Used for the names under which a rule knows a process, and for the name that people read.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping

from rogue_hunter.stream.tick import Row

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


def script_of(interpreter: str, arguments: Iterable[str]) -> str | None:
    """The script or module that `interpreter` (a file name) runs; None if it runs none or is not an interpreter."""
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


COMM_BYTES = 15
"""Length of the kernel's short name on Linux (TASK_COMM_LEN - 1): a longer program name is cut to this."""

COMMANDS = frozenset({"bench", "config", "forensics", "match", "mcp", "metrics", "pipe", "prune", "reap", "report",
                      "sample", "score", "service", "tail", "top", "track"})
"""What follows `rh-` in the name of a command of this package. rh-check is not listed: it starts the tests."""

# kworker/POOL:ID[H][-QUEUE|+QUEUE], kworker/R-QUEUE for a rescuer (kernel/workqueue.c, wq_worker_comm).
_KWORKER = re.compile(r"kworker/(?:R|[u\d][^-+]*)(?:[-+](.+))?")
_OWN = re.compile(r"(?:^|\s)-m rogue_hunter(?:\.\S+)?(?:\s|$)")


_DESCRIPTORS = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")
"""A script that comes through a descriptor has no name."""


def name_of(row: Row) -> str:
    """The script or module of an interpreter, the queue of a kernel worker, else the program; "?" when none is known.

    The short name that the kernel keeps is the last resort: a process, or one of its threads, sets it at will
    (Node's "MainThread", Firefox's "GeckoMain").
    """
    return _name(row.get("command", ""), row.get("exe", ""), row.get("cmdline", ""))


def called(command: str, name: str) -> str:
    """The name with the interpreter before it: `python3 backup.py`. Not made safe for a terminal."""
    alike = not command or name.startswith(command[:COMM_BYTES]) or command.startswith(name)
    return name or command or "?" if alike else f"{command} {name}"


@functools.lru_cache(maxsize=4096)
def _name(command: str, exe: str, cmdline: str) -> str:
    if not exe and not cmdline:
        queue = _KWORKER.fullmatch(command)
        return (f"kworker/{queue[1]}" if queue[1] else "kworker") if queue else command or "?"
    first, rest = _split(exe, cmdline)
    words = rest.split(" ")
    program, called = _last(exe), _last(first).rstrip(":")
    script = script_of(program, words) or script_of(called, words)
    if script is not None and not script.startswith(_DESCRIPTORS):
        return (_own_command(words) if script == "rogue_hunter" else None) or _last(script) or script
    if program.startswith("memfd:"):
        program = called or program.removeprefix("memfd:")
    # A program of many names (busybox) is what it was called as; a title written over the arguments is no program.
    if called and (not program or _cut(called) == command):
        return called
    return program or command or "?"


def looks_own(row: Row) -> bool:
    """True for what has the arguments of a command of this package or of a helper process of one. No proof: any program
    can be called so."""
    exe, cmdline = row.get("exe", ""), row.get("cmdline", "")
    if "rogue_hunter" not in cmdline and "rh-" not in cmdline:
        return False
    first, rest = _split(exe, cmdline)
    words = rest.split(" ")
    for interpreter in (_last(exe), _last(first)):
        script = script_of(interpreter, words)
        if script is not None:
            name = script.rpartition("/")[2]
            if name.startswith("rh-") and name[3:] in COMMANDS:
                return True
            return script.split(".")[0] == "rogue_hunter" and _OWN.search(cmdline) is not None
    return False


def _own_command(words: list[str]) -> str | None:
    """`rh-X` for `-m rogue_hunter X`."""
    for i in range(len(words) - 2):
        if words[i] == "-m" and words[i + 1] == "rogue_hunter" and words[i + 2] in COMMANDS:
            return f"rh-{words[i + 2]}"
    return None


def _split(exe: str, cmdline: str) -> tuple[str, str]:
    """The program as it was called, and the arguments. A path with blanks in it is recognized by `exe`."""
    if exe and (cmdline == exe or cmdline.startswith(exe + " ")):
        return exe, cmdline[len(exe) + 1:]
    first, _, rest = cmdline.partition(" ")
    return first, rest


def _last(path: str) -> str:
    """The last part of a path; a login shell's `-bash` is bash."""
    return path.removesuffix(" (deleted)").rpartition("/")[2].removeprefix("-")


def _cut(name: str) -> str:
    return name.encode()[:COMM_BYTES].decode("utf-8", "backslashreplace")
