"""Interpreters: which programs are one, and which script or module one of them runs.

Used for the names under which a rule knows a process, and for the name that people read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

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
