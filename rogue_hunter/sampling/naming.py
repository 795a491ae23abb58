"""The name that people read for a process, the script that an interpreter runs, and rogue-hunter's own processes.

Used for the names under which a rule knows a process, and for the name that people read.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping

from rogue_hunter.stream.tick import Row

# Interpreter -> the options that take the next word as their value. What follows an option of _CODE is code, not a
# file. (`-m`, `-jar`, `-f` need no entry: the word after them is the program's name.)
_VALUED: Mapping[str, frozenset[str]] = {
    "python": frozenset({"-W", "-X", "--check-hash-based-pycs"}), "perl": frozenset({"-I"}),
    "ruby": frozenset({"-I", "-r", "-C", "-E"}),
    "node": frozenset({"-r", "--require", "--import", "--loader", "--experimental-loader", "-C", "--conditions",
                       "--env-file"}),
    "php": frozenset({"-c", "-d", "-z", "-S", "-t"}), "lua": frozenset({"-l"}),
    "sh": frozenset({"--rcfile", "--init-file"}), "tcl": frozenset({"-encoding"}),
    "java": frozenset({"-cp", "-classpath", "--class-path", "-p", "--module-path", "--add-opens", "--add-exports",
                       "--add-reads", "--add-modules", "--limit-modules", "--upgrade-module-path", "--patch-module",
                       "--source", "--enable-native-access"}),
    "osascript": frozenset({"-l", "-s"}),
    "deno": frozenset({"-c", "--config", "--import-map", "-L", "--log-level", "--location", "--seed", "--cert",
                       "--ext"}),
    "julia": frozenset({"-t", "--threads", "-p", "--procs", "-L", "--load", "-C", "-J"}),
    "pwsh": frozenset({"-ExecutionPolicy", "-ep", "-WorkingDirectory", "-wd", "-OutputFormat", "-InputFormat"}),
    "loader": frozenset({"--library-path", "--preload", "--argv0", "--inhibit-rpath", "--audit", "-L", "-cpu", "-E",
                         "-U", "-g", "-s", "-0"}),
}
# Flags are bundled (-lc, -we): what follows the one for code is code, in the same word or the next. After -o and +O of
# a shell: an option's name.
_CODE: Mapping[str, re.Pattern[str]] = {
    "python": re.compile(r"-[bBdEhiIOPqsSuvx]*c.*"),
    "perl": re.compile(r"-(?![MmI])[a-zA-Z0-9]*[eE]|-[acnplsStTuUwWX0-9]*[eE].*"),
    "ruby": re.compile(r"-(?![rIKEFCTW])[a-z0-9]*e|-[anplsw0-9]*e.*"),
    "node": re.compile(r"-[pe]{1,2}|--(?:eval|print)(?:=.*)?"), "php": re.compile(r"-[rBRE].*"),
    "lua": re.compile(r"-e.*"), "osascript": re.compile(r"-e"), "sh": re.compile(r"-[a-zA-Z]*c[a-zA-Z]*"),
    "julia": re.compile(r"-[eE].*|--(?:eval|print)(?:=.*)?"), "tcl": re.compile(r"-c"), "r": re.compile(r"-e"),
    "deno": re.compile(r"eval|repl"), "pwsh": re.compile(r"(?i)-(?:c|command|e|enc|encodedcommand)"),
}
_INPUT: Mapping[str, re.Pattern[str]] = {"sh": re.compile(r"-[a-zA-Z]*s[a-zA-Z]*"), "php": re.compile(r"--?")}
"""What makes an interpreter read its standard input, so that all that follows is arguments; of the others it is `-`."""
_STDIN = re.compile("-")
_PYTHON_VALUED = re.compile(r"-[bBdEhiIOPqsSuvx]*[WX]")
_PYTHON_MODULE = re.compile(r"-[bBdEhiIOPqsSuvx]*m(.+)")
_SHELL_VALUED = re.compile(r"[-+][a-zA-Z]*[oO]")
_SUBCOMMANDS: Mapping[str, frozenset[str]] = {
    "deno": frozenset({"run", "test", "serve", "bench", "task"}), "node": frozenset({"run"}),
    "dotnet": frozenset({"exec"})}
"""Words before the name of the file."""
_FAMILY = re.compile(
    r"^(?:(?P<python>python|pypy|pythonw)|(?P<perl>perl)|(?P<ruby>ruby|jruby|truffleruby)|(?P<node>node|nodejs|bun)"
    r"|(?P<php>php)|(?P<lua>lua|luajit)|(?P<sh>sh|bash|dash|zsh|ksh|mksh|ash|fish|busybox)|(?P<tcl>tclsh|wish|expect)"
    r"|(?P<java>java)|(?P<osascript>osascript)|(?P<deno>deno)|(?P<r>Rscript|R)|(?P<julia>julia)|(?P<pwsh>pwsh)"
    r"|(?P<dotnet>dotnet)|(?P<mono>mono|mono-sgen))[0-9.]*[a-z]?$"
    r"|^(?P<loader>ld-(?:linux|musl)[^/]*|qemu-(?:aarch64|arm|i386|mips\w*|ppc\w*|riscv\w*|s390x|x86_64)(?:-static)?)$"
)


def script_of(interpreter: str, arguments: Iterable[str]) -> str | None:
    """The script or module that `interpreter` (a file name) runs; None if it runs none or is not an interpreter."""
    found = programs_of(interpreter, arguments)
    return found[-1] if found else None


def programs_of(interpreter: str, arguments: Iterable[str]) -> list[str]:
    """The script that `interpreter` runs, and before it the program that a loader or busybox runs it with."""
    found: list[str] = []
    words = iter(arguments)
    while work := work_of(interpreter, words):
        found.append(work)
        if interpreter != "busybox" and not interpreter.startswith(("ld-", "qemu-")):
            break
        interpreter = work.rpartition("/")[2]
    return found


def work_of(interpreter: str, arguments: Iterable[str]) -> str | None:
    """The first of these; "" if the interpreter runs code from its command line or its standard input."""
    found = _FAMILY.match(interpreter)
    if found is None:
        return None
    family = found.lastgroup or ""
    code, valued = _CODE.get(family), _VALUED.get(family, frozenset())
    words = iter(arguments)
    for word in words:
        if (code is not None and code.fullmatch(word)) or _INPUT.get(family, _STDIN).fullmatch(word):
            return ""
        if word == "--" or (word == "-" and family == "sh"):
            return next(words, None)
        if word in valued or (family == "sh" and _SHELL_VALUED.fullmatch(word)) or (
                family == "python" and _PYTHON_VALUED.fullmatch(word)):
            next(words, None)
        elif family == "python" and (module := _PYTHON_MODULE.fullmatch(word)):
            return module[1]
        elif family == "r" and word.startswith("--file="):
            return word[7:] or None
        elif not word.startswith(("-", "+")) and word not in _SUBCOMMANDS.get(family, ()):
            if interpreter == "R" or (family == "dotnet" and "." not in word):
                return None
            if family != "java" or not word.startswith("@"):
                return word or None
    return None


COMM_BYTES = 15
"""Length of the kernel's short name on Linux (TASK_COMM_LEN - 1): a longer program name is cut to this."""

COMMANDS = frozenset({"bench", "config", "forensics", "hub", "match", "mcp", "metrics", "pipe", "prune", "reap",
                      "report", "sample", "score", "service", "ship", "tail", "top", "track"})
"""What follows `rh-` in the name of a command of this package. rh-check is not listed: it starts the tests."""
OWN_NAMES = frozenset(f"rh-{name}" for name in COMMANDS)

# kworker/POOL:ID[H][-QUEUE|+QUEUE], kworker/R-QUEUE for a rescuer (kernel/workqueue.c, wq_worker_comm).
_KWORKER = re.compile(r"kworker/(?:R|[u\d][^-+]*)(?:[-+](.+))?")
_OWN = re.compile(r"(?:^|\s)-m rogue_hunter(?:\.\S+)?(?:\s|$)")


_DESCRIPTORS = re.compile(r"/dev/(?:fd/|stdin)|/proc/(?:self|thread-self|[0-9]+)(?:/task/[0-9]+)?/fd/")
"""A script that comes through a descriptor has no name."""
_WINE = re.compile(r"(?i)([^\\/]+\.exe)(?=\s|$)")
"""A program of Windows, in the arguments of wine."""


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
    first, rest = split_line(exe, cmdline)
    words = rest.split(" ")
    program, called = _last(exe), _last(first).rstrip(":")
    if program.startswith("wine") and (found := _WINE.search(cmdline)):
        return found[1]
    interprets = bool(_FAMILY.match(program.casefold()))
    if interprets and called and not _FAMILY.match(called.casefold()) and "ld-" not in program:
        return called   # a title written over the arguments ("gunicorn: worker"), or a name given on purpose
    # What a program says that it is counts only where the kernel does not say what it is.
    script = script_of(program, words) or (script_of(called, words) if interprets or not program else None)
    if script is not None and not _DESCRIPTORS.match(script):
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
    first, rest = split_line(exe, cmdline)
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


def split_line(exe: str, cmdline: str) -> tuple[str, str]:
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
