"""The house rules, held by looking at the source: who may import whom, who may speak, how long a file may be.

The table below is the design's: schema and config carry everything, host and pure stages stand on them, store, report
and forensics on those, then the pipe, then the commands. A module that is not in it is a user of all that and
of use to the pipe and the commands only.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

import rogue_hunter

PACKAGE = Path(rogue_hunter.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

LEVELS: tuple[tuple[str, ...], ...] = (
    ("schema", "text", "redact", "secret_options", "timespec", "paths", "__version__"),
    ("config", "tick"),
    ("wire", "beat", "ring", "own", "rules"),
    ("host", "score", "track", "pause", "match", "lineage", "minutes"),
    ("sample", "store", "report", "forensics", "reap", "metrics"),
    (),  # what is named nowhere
    ("pipe", "bench"),
    ("cli",),
)
"""Units of the package, the lower first. A unit imports from its own level or a lower one."""
UNNAMED = 5
LEVEL = {unit: level for level, units in enumerate(LEVELS) for unit in units}

HOMES: dict[str, Callable[[str], bool]] = {
    "click": lambda path: path.startswith("cli/"),
    "orjson": lambda path: path == "wire.py",
    "sqlite_utils": lambda path: path == "store/migrations.py",
    "tabulate": lambda path: path.startswith("report/"),
    "watchdog": lambda path: path == "reload.py",
    "prometheus_client": lambda path: path == "metrics.py",
    "pynvml": lambda path: path.startswith("host/"),
}
"""Third-party package -> its one home."""
COSTLY = {"sqlite_utils", "tabulate", "watchdog", "prometheus_client", "pynvml"}
"""65 to 130 ms each: imported in the function that needs them."""

CEILING = 300
LONGER = {
    "score/share.py": 320,
    "docs.py": 310,
}
"""Files that are longer than they should be, and may only get shorter."""


def path_of(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"), str(file))


def unit_of(module: str) -> str:
    """The unit of a dotted name below the package; all schema modules are one."""
    name = module.split(".")[1] if "." in module else "__version__"
    return "schema" if name.startswith("schema") else name


def own_unit(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return "schema" if parts[0].startswith("schema") else parts[0]


def imports(file: Path) -> Iterator[tuple[str, ast.stmt]]:
    """Every dotted name that a file imports, anywhere in it, and the statement."""
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path_of(file)}:{node.lineno}: a relative import"
            assert node.module is not None
            if node.module == "rogue_hunter":
                for alias in node.names:
                    yield f"rogue_hunter.{alias.name}", node
            else:
                yield node.module, node


def statement(file: Path, node: ast.stmt) -> str:
    return f"{path_of(file)}:{node.lineno}: {ast.unparse(node)}"


def test_who_may_import_whom() -> None:
    """Dependencies point one way: nothing imports from a level above its own."""
    wrong = []
    for file in FILES:
        unit = own_unit(file)
        if unit in ("__init__", "__main__"):
            continue
        for name, node in imports(file):
            other = unit_of(name)
            if (
                name.split(".")[0] == "rogue_hunter"
                and other != unit
                and LEVEL.get(other, UNNAMED) > LEVEL.get(unit, UNNAMED)
            ):
                wrong.append(statement(file, node))
    assert wrong == []


def test_nobody_imports_the_commands() -> None:
    """Commands are thin: what somebody else needs does not live in one. (__main__ starts them by name.)"""
    wrong = [
        statement(file, node)
        for file in FILES
        if own_unit(file) != "cli"
        for name, node in imports(file)
        if unit_of(name) == "cli"
    ]
    assert wrong == []


def test_no_circles() -> None:
    """No unit leads back to itself by what is imported at the top of files."""
    graph: dict[str, set[str]] = {}
    for file in FILES:
        for name, node in imports(file):
            if name.split(".")[0] == "rogue_hunter" and node in tree_of(file).body and unit_of(name) != own_unit(file):
                graph.setdefault(own_unit(file), set()).add(unit_of(name))
    done: set[str] = set()

    def walk(unit: str, way: tuple[str, ...]) -> None:
        assert unit not in way, " -> ".join((*way, unit))
        if unit not in done:
            for other in sorted(graph.get(unit, ())):
                walk(other, (*way, unit))
            done.add(unit)

    for unit in sorted(graph):
        walk(unit, ())


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


def test_costly_imports_stand_in_functions() -> None:
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
        early = set(map(id, at_import(tree_of(file).body)))
        wrong += [
            statement(file, node) for name, node in imports(file) if name.split(".")[0] in COSTLY and id(node) in early
        ]
    assert wrong == []


STAGES = (
    "schema",
    "text",
    "redact",
    "timespec",
    "config",
    "tick",
    "wire",
    "beat",
    "ring",
    "rules",
    "host",
    "score",
    "track",
    "pause",
    "match",
    "lineage",
    "minutes",
    "sample",
    "store",
)
"""Units of which nothing prints, exits, asks or reads flags."""
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


def test_pure_stages_hold_no_clock() -> None:
    """Scoring, tracking and matching take time from the ticks: a recording replays alike at any hour."""
    wrong = []
    for file in FILES:
        if own_unit(file) in ("score", "track", "ring", "minutes", "lineage", "tick", "schema", "redact"):
            wrong += [
                statement(file, node)
                for name, node in imports(file)
                if name.split(".")[0] in ("time", "random", "os", "datetime")
            ]
    assert wrong == []


def test_no_numeric_kill() -> None:
    """The reaper's signals reach a process through its pidfd or not at all: a number may be somebody else by then."""
    wrong = []
    for file in FILES:
        if own_unit(file) in ("reap", "rules", "match"):
            wrong += [
                f"{path_of(file)}:{node.lineno}: {ast.unparse(node)}"
                for node in ast.walk(tree_of(file))
                if isinstance(node, ast.Attribute)
                and ast.unparse(node) in ("os.kill", "os.killpg", "signal.pthread_kill")
            ]
    assert wrong == []


def test_every_module_says_what_it_is() -> None:
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


@pytest.mark.parametrize("file", FILES, ids=path_of)
def test_length(file: Path) -> None:
    """A file over 300 lines asks to be split by meaning. Declarations (schema*.py) are a table: a line a field."""
    if own_unit(file) == "schema":
        return
    path = path_of(file)
    lines = len(file.read_text("utf-8").splitlines())
    assert lines <= LONGER.get(path, CEILING)
    assert path not in LONGER or lines > CEILING, "short enough: it needs no exception any more"


def test_exceptions_exist() -> None:
    """No exception stays for a file that is gone."""
    assert set(LONGER) <= {path_of(file) for file in FILES}


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


COMMANDS = sorted(file.stem for file in (PACKAGE / "cli").glob("[a-z]*.py") if file.stem != "common")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_loads_nothing_costly(name: str) -> None:
    """Start-up time is a feature: --help of no command loads what it does not need."""
    assert loaded(name) & COSTLY == set()


@pytest.mark.parametrize("name", ["sample", "score"])
def test_help_loads_neither_configuration_nor_records(name: str) -> None:
    """They are a third of the start (30 of 90 ms of CPU time)."""
    assert loaded(name) & {"rogue_hunter.config", "rogue_hunter.schema", "rogue_hunter.wire", "orjson"} == set()


@pytest.mark.parametrize("name", ["sample", "score", "track", "config"])
def test_filters_start_without_a_database(name: str) -> None:
    """A filter in a pipeline starts without the database, the network, or anything that runs concurrently."""
    assert (
        loaded(name) & {"sqlite3", "asyncio", "ssl", "http.client", "urllib.request", "unittest", "jsonschema"} == set()
    )
