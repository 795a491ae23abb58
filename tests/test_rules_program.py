"""Names of a process: what it runs, and not what it is handed."""

from __future__ import annotations

import pytest

from rogue_hunter.rules.program import listed, program_of, script_of, with_subcommand


@pytest.mark.parametrize(("row", "names", "line"), [
    ({"command": "less", "exe": "/usr/bin/less", "cmdline": "less my_test.py"}, ("less", "/usr/bin/less"),
     "less my_test.py"),
    ({"command": "python3", "exe": "/bin/python3.11", "cmdline": "python3 -u tests/my_test.py -v"},
     ("python3", "python3.11", "/bin/python3.11", "my_test.py", "tests/my_test.py"), "python3 -u tests/my_test.py -v"),
    ({"command": "bash", "cmdline": "-bash"}, ("bash", "-bash"), "bash"),
    ({"command": "x", "exe": "/opt/a/x (deleted)", "cmdline": ""}, ("x", "/opt/a/x"), ""),
    ({"command": "Google Chrome", "exe": "/App/Google Chrome", "cmdline": "/App/Google Chrome --type=renderer"},
     ("Google Chrome", "/App/Google Chrome"), "Google Chrome --type=renderer"),
    ({}, (), ""),
])
def test_names(row: dict[str, str], names: tuple[str, ...], line: str) -> None:
    assert program_of(row) == (names, line)


@pytest.mark.parametrize(("command", "script"), [
    ("python3 my_test.py", "my_test.py"), ("python3.12 -W error -X dev x.py a b", "x.py"),
    ("python -m pytest tests", "pytest"),
    ("python3 -c import_x", None), ("python3", None), ("pypy3 a.py", "a.py"), ("sh -c loop.sh", None),
    ("bash -lc x", None),
    ("bash -o pipefail run.sh", "run.sh"), ("sh -e run.sh", "run.sh"), ("node -r ts-node/register app.js", "app.js"),
    ("node --max-old-space-size=1 app.js", "app.js"), ("node -e 1", None), ("perl -I lib -w t.pl", "t.pl"),
    ("ruby -Ilib spec.rb", "spec.rb"), ("java -cp a:b -Xmx1g -jar app.jar", "app.jar"), ("java -cp a Main", "Main"),
    ("deno run --allow-net x.ts", "x.ts"), ("Rscript x.R", "x.R"), ("python3 -- x.py", "x.py"),
    ("vim my_test.py", None),
    ("tail -f x.log", None), ("pythonista x.py", None),
])
def test_the_script_of_an_interpreter(command: str, script: str | None) -> None:
    interpreter, *arguments = command.split(" ")
    assert script_of(interpreter, arguments) == script


def test_whitelisted_is_a_whole_name_in_any_case() -> None:
    row = {"command": "Xorg", "exe": "/usr/lib/Xorg"}
    assert listed(program_of(row), ["xorg"]) == "xorg"
    assert listed(program_of({"command": "Xorgy"}), ["xorg"]) is None
    assert listed(program_of({"command": "gnome-terminal-"}), ["gnome-terminal-server"]) == "gnome-terminal-server"
    assert listed(program_of({"command": "node", "cmdline": "node /opt/bin/claude -p"}), ["claude"]) == "claude"
    assert listed(program_of({"command": "cat", "cmdline": "cat claude"}), ["claude"]) is None


@pytest.mark.parametrize(("cmdline", "name"), [
    ("/usr/bin/cargo build --release", "cargo build"), ("cargo build", None), ("cargo --quiet build -v", None),
    ("cargo", None), ("tail -f x.log", None), ("git commit -m x", "git commit"),
])
def test_a_program_with_its_subcommand(cmdline: str, name: str | None) -> None:
    """One name more than it has, and only where options or arguments follow."""
    program = program_of({"command": "x", "cmdline": cmdline})
    more = with_subcommand(program)
    assert more.line == program.line and more.names == (*program.names, *([name] if name else []))
