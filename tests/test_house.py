"""The law of the house, held by looking at the source: who imports whom, who may speak, how long a file may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

import rogue_hunter
from rogue_hunter.cli import names

PACKAGE = Path(rogue_hunter.__file__).parent
FILES = sorted(file for file in PACKAGE.rglob("*.py") if "data" not in file.relative_to(PACKAGE).parts)
"""The modules; what lies in data/ is for other programs."""

ROOMS = (
    "text", "schema", "config", "stream", "host", "sampling", "scoring", "tracking", "rules", "reaper", "capture",
    "recorder", "store", "verdict", "report", "daemon", "service", "fleet", "tui",
    "commandline", "cli",
)
"""The rooms, lowest first. A room imports from itself and from lower ones."""
TOP = {"__init__": -1, "paths": 0, "files": 0, "worker": 0, "metrics": ROOMS.index("rules"), "bench": ROOMS.index("daemon"), "__main__": len(ROOMS)}
"""Modules at the top of the package: each counts as part of the room with this number."""
PENDING_CIRCLES: set[tuple[str, str]] = set()
MODULES_MAX = 18
"""Modules in one folder, __init__ not counted."""

HOMES: dict[str, Callable[[str], bool]] = {
    "click": lambda path: path.startswith(("cli/", "commandline/")),
    "orjson": lambda path: path == "stream/wire.py",
    "sqlite_utils": lambda path: path == "store/migrations.py",
    "tabulate": lambda path: path.startswith("report/"),
    "watchdog": lambda path: path == "daemon/reload.py",
    "prometheus_client": lambda path: path == "metrics.py",
    "textual": lambda path: path == "tui/app.py",
    "rich": lambda path: path == "tui/app.py",
    "mcp": lambda path: path == "report/agent.py",
    "pynvml": lambda path: path.startswith("host/"),
    "nats": lambda path: path == "fleet/bus.py",
    "cryptography": lambda path: path == "fleet/bus.py",
    "duckdb": lambda path: path == "fleet/warehouse.py",
}
"""Third-party package -> its one home."""
COSTLY = {"sqlite_utils", "tabulate", "watchdog", "prometheus_client", "pynvml", "textual", "rich", "mcp", "nats",
          "cryptography", "duckdb"}
"""65 to 200 ms each: imported in the function that needs them. Widgets are subclasses of Textual's: their module is
imported in the function that needs it."""

CEILING = 500
"""Lines of a module."""


def path_of(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"), str(file))


@cache
def import_statements(file: Path) -> tuple[ast.Import | ast.ImportFrom, ...]:
    """Those anywhere in a file; to walk through the whole package takes a second."""
    return tuple(node for node in ast.walk(tree_of(file)) if isinstance(node, ast.Import | ast.ImportFrom))


def module_of(file: Path) -> str:
    """The dotted name of a file below the package, without the package's own name; a folder's is that of the folder."""
    parts = list(file.relative_to(PACKAGE).with_suffix("").parts)
    if len(parts) > 1 and parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


MODULES = {module_of(file): file for file in FILES}


def room_of(module: str) -> str:
    return module.split(".", maxsplit=1)[0]


def level_of(module: str) -> int:
    room = room_of(module)
    return ROOMS.index(room) if room in ROOMS else TOP[room]


def own_unit(file: Path) -> str:
    return room_of(module_of(file))


@cache
def arrows(file: Path) -> frozenset[str]:
    """The modules of the package that a file imports, anywhere in it."""
    found = set()
    for node in import_statements(file):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rogue_hunter":
            base = (node.module or "").removeprefix("rogue_hunter").lstrip(".")
            for alias in node.names:
                full = f"{base}.{alias.name}".lstrip(".")
                found.add(full if full in MODULES else base or "__init__")
        elif isinstance(node, ast.Import):
            found |= {a.name.removeprefix("rogue_hunter").lstrip(".") or "__init__" for a in node.names
                      if a.name.split(".")[0] == "rogue_hunter"}
    return frozenset(found)


def imports(file: Path) -> Iterator[tuple[str, ast.stmt]]:
    """Every dotted name that a file imports, anywhere in it, and the statement."""
    for node in import_statements(file):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        else:
            assert node.level == 0, f"{path_of(file)}:{node.lineno}: a relative import"
            assert node.module is not None
            if node.module == "rogue_hunter":
                for alias in node.names:
                    yield f"rogue_hunter.{alias.name}", node
            else:
                yield node.module, node


def statement(file: Path, node: ast.stmt) -> str:
    return f"{path_of(file)}:{node.lineno}: {ast.unparse(node)}"


def test_every_module_has_a_room() -> None:
    """Every module lies in a room or is one of the few at the top."""
    assert {room_of(module) for module in MODULES} <= {*ROOMS, *TOP}
    assert sum("." not in module and module not in ROOMS for module in MODULES) <= 7


def test_folders_are_neither_crowded_nor_empty() -> None:
    """No folder with more than 18 modules, none with a single one."""
    folders: dict[Path, int] = {}
    for file in FILES:
        folders[file.parent] = folders.get(file.parent, 0) + (file.stem != "__init__")
    assert {f.name: n for f, n in folders.items() if not 2 <= n <= MODULES_MAX} == {}


def test_dependencies_point_down() -> None:
    """No room imports from one above it. Prints the graph of rooms (pytest -s)."""
    graph: dict[str, set[str]] = {}
    up = set()
    for module, file in MODULES.items():
        for other in arrows(file):
            if room_of(other) != room_of(module):
                graph.setdefault(room_of(module), set()).add(room_of(other))
            if level_of(other) > level_of(module):
                up.add((module, other))
    for room in (*ROOMS, *TOP):
        print(f"{room:10} -> {' '.join(sorted(graph.get(room, ()), key=(*ROOMS, *TOP).index))}")
    assert up == set()


def test_no_circles() -> None:
    """No module leads back to itself, by imports anywhere in it: at the top, in functions, under TYPE_CHECKING."""
    graph = {module: [other for other in arrows(file) if other in MODULES] for module, file in MODULES.items()}
    reach: dict[str, set[str]] = {}
    for module, others in graph.items():
        seen: set[str] = set()
        left = list(others)
        while left:
            one = left.pop()
            if one not in seen:
                seen.add(one)
                left += graph[one]
        reach[module] = seen
    circles = {tuple(sorted({module} | {o for o in reach[module] if module in reach[o]}))
               for module, others in reach.items() if module in others}
    assert circles == PENDING_CIRCLES


def test_the_map_names_every_room() -> None:
    """The docstring of the package lists the rooms in their order."""
    listed = [line.split()[0] for line in (rogue_hunter.__doc__ or "").splitlines() if line.startswith("    ")]
    assert tuple(listed) == ROOMS


def test_no_module_imports_a_command() -> None:
    """Commands are thin: code that others need lies in a room. (__main__ starts the commands by name.)"""
    assert [m for m, file in MODULES.items() if room_of(m) not in ("cli", "__main__")
            and any(room_of(other) == "cli" for other in arrows(file))] == []


def test_third_party_homes() -> None:
    """Each third-party package has one home, and there is no other."""
    wrong = []
    for file in FILES:
        for name, node in imports(file):
            root = name.split(".")[0]
            if root in sys.stdlib_module_names or root == "rogue_hunter":
                continue
            if root not in HOMES or not HOMES[root](path_of(file)):
                wrong.append(statement(file, node))
    assert wrong == []


def test_costly_imports_are_in_functions() -> None:
    """What costs a tenth of a second to import is not imported by looking at a module."""

    def at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
        for node in body:
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                continue
            yield node
            for field in ("body", "orelse", "finalbody"):
                if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield from at_import(getattr(node, field, []))

    wrong = []
    for file in FILES:
        early = set(map(id, at_import(tree_of(file).body))) if path_of(file) != "tui/app.py" else set()
        wrong += [
            statement(file, node) for name, node in imports(file) if name.split(".")[0] in COSTLY and id(node) in early
        ]
    assert wrong == []


STAGES = ("text", "schema", "config", "stream", "host", "sampling", "scoring", "tracking", "rules", "store", "verdict")
"""Rooms of which nothing prints, exits, asks or reads flags."""
FORBIDDEN_CALLS = {"print", "input", "exit", "quit", "breakpoint"}
FORBIDDEN_NAMES = {"sys.exit", "sys.argv", "sys.stdin", "sys.stdout", "sys.stderr", "os._exit", "os.abort"}


def inside(tree: ast.Module) -> Iterator[ast.AST]:
    """All of a module but what makes it a program of its own (`python -m`): `_main`, and what calls it."""
    left: list[ast.AST] = [tree]
    while left:
        node = left.pop()
        program = (isinstance(node, ast.FunctionDef) and node.name in ("main", "_main")) or (
            isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
        )
        if not program:
            yield node
            left += ast.iter_child_nodes(node)


def test_stages_do_not_speak() -> None:
    """A stage never prints, exits, reads flags or touches the standard streams: a driver owns them."""
    wrong = []
    for file in FILES:
        if own_unit(file) not in STAGES:
            continue
        for node in inside(tree_of(file)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS:
                wrong.append(f"{path_of(file)}:{node.lineno}: {node.func.id}()")
            elif isinstance(node, ast.Attribute) and ast.unparse(node) in FORBIDDEN_NAMES:
                wrong.append(f"{path_of(file)}:{node.lineno}: {ast.unparse(node)}")
    assert wrong == []


PURE = ("sampling.lineage", "stream.tick", "text.redact")


def test_pure_stages_hold_no_clock() -> None:
    """Scoring, tracking and matching take time from the ticks: a recording replays alike at any hour."""
    wrong = []
    for file in FILES:
        if own_unit(file) in ("scoring", "tracking", "schema") or module_of(file) in PURE:
            wrong += [
                statement(file, node)
                for name, node in imports(file)
                if name.split(".")[0] in ("time", "random", "os", "datetime")
            ]
    assert wrong == []


def test_no_numeric_kill() -> None:
    """The reaper's signals reach a process through its pidfd or not at all: a pid may belong to another process by then."""
    wrong = []
    for file in FILES:
        if own_unit(file) in ("reaper", "rules"):
            wrong += [
                f"{path_of(file)}:{node.lineno}: {ast.unparse(node)}"
                for node in ast.walk(tree_of(file))
                if isinstance(node, ast.Attribute)
                and ast.unparse(node) in ("os.kill", "os.killpg", "signal.pthread_kill")
            ]
    assert wrong == []


def test_every_module_has_a_docstring() -> None:
    """Every module has a docstring, and in the units that others build on every public function and class has one."""
    wrong = []
    for file in FILES:
        tree = tree_of(file)
        if tree.body and ast.get_docstring(tree) is None:
            wrong.append(path_of(file))
        if own_unit(file) in STAGES:
            wrong += [
                f"{path_of(file)}:{node.lineno}: {node.name}"
                for node in tree.body
                if isinstance(node, ast.FunctionDef | ast.ClassDef)
                and not node.name.startswith("_")
                and not ast.get_docstring(node)
            ]
    assert wrong == []


def test_length() -> None:
    """A module over 500 lines asks to be split by meaning."""
    assert {path_of(f): n for f in FILES if (n := len(f.read_text("utf-8").splitlines())) > CEILING} == {}


HELP = """
import io, sys
sys.argv = ["rh-" + sys.argv[1], "--help"]
out, sys.stdout = sys.stdout, io.StringIO()
from importlib import import_module
try:
    import_module("rogue_hunter.cli." + sys.argv[0][3:]).main()
except SystemExit as end:
    assert not end.code, end.code
assert "Usage: rh-" in sys.stdout.getvalue()
out.write(" ".join(sorted(sys.modules)))
"""


def loaded(name: str) -> set[str]:
    """The modules that are loaded after `rh-NAME --help`."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", HELP, name],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PYTHONPATH": str(PACKAGE.parent), "HOME": "/nonexistent", "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


COMMANDS = names()


UNUSED_BY_HELP = COSTLY | {
    "asyncio", "ctypes", "hashlib", "http.client", "jsonschema", "logging", "socket", "sqlite3", "ssl", "subprocess", "tempfile", "unittest",
    "urllib.request", "rogue_hunter.config.options", "rogue_hunter.metrics",
}
"""Modules that no command loads for --help: together they take several times as long as click."""
UNUSED_ROOMS = ("host", "sampling", "scoring", "tracking", "rules", "reaper", "capture", "store", "verdict", "report", "daemon", "service",
                "fleet")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_loads_nothing_costly(name: str) -> None:
    """Start-up time is a feature: a command loads what it needs when it runs, and for --help click and its own module."""
    modules = loaded(name)
    assert modules & UNUSED_BY_HELP == set()
    assert {m for m in modules if m.startswith("rogue_hunter.") and m.split(".")[1] in UNUSED_ROOMS} == set()


@pytest.mark.parametrize("name", ["sample", "score", "report", "pipe", "bench"])
def test_help_loads_no_records(name: str) -> None:
    """They are a fifth of the start (15 of 70 ms of CPU time)."""
    assert loaded(name) & {"rogue_hunter.schema", "rogue_hunter.stream.wire", "orjson"} == set()
