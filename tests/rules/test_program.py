"""Names of a process: what it runs, and not what it is handed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rogue_hunter.rules.patterns import (
    Program,
    listed,
    program_of,
    script_of,
    whitelisted,
    with_subcommand,
)


@pytest.mark.parametrize(("row", "names", "line"), [
    ({"command": "less", "exe": "/usr/bin/less", "cmdline": "less my_test.py"}, ("less", "/usr/bin/less"),
     "less my_test.py"),
    ({"command": "python3", "exe": "/bin/python3.11", "cmdline": "python3 -u tests/my_test.py -v"},
     ("python3", "python3.11", "/bin/python3.11", "my_test.py", "tests/my_test.py"), "python3 -u tests/my_test.py -v"),
    ({"command": "bash", "exe": "/bin/bash", "cmdline": "-bash"}, ("bash", "/bin/bash", "-bash"), "bash"),
    ({"command": "x", "exe": "/opt/a/x (deleted)", "cmdline": ""}, ("x", "/opt/a/x"), ""),
    ({"command": "Google Chrome", "exe": "/App/Google Chrome", "cmdline": "/App/Google Chrome --type=renderer"},
     ("Google Chrome", "/App/Google Chrome"), "Google Chrome --type=renderer"),
    ({"exe": "/bin/x", "cmdline": "/bin/xy z"}, ("x", "/bin/x", "xy", "/bin/xy"), "xy z"),
    ({"exe": "/a b/x", "cmdline": "/a b/x"}, ("x", "/a b/x"), "x"),
    ({"exe": "/bin/bash", "cmdline": "-bash -l"}, ("bash", "/bin/bash", "-bash"), "bash -l"),
    ({"exe": "/bin/busybox", "cmdline": "sh run.sh"}, ("busybox", "/bin/busybox", "sh", "run.sh"), "sh run.sh"),
    ({"exe": "/bin/busybox", "cmdline": "less my_test.py"}, ("busybox", "/bin/busybox", "less"), "less my_test.py"),
    ({"exe": "/bin/busybox", "cmdline": "busybox sh a/x.sh"}, ("busybox", "/bin/busybox", "sh", "x.sh", "a/x.sh"),
     "busybox sh a/x.sh"),
    ({"exe": "/lib/ld-linux.so.2", "cmdline": "ld-linux.so.2 /bin/python3 x.py"},
     ("ld-linux.so.2", "/lib/ld-linux.so.2", "python3", "/bin/python3", "x.py"), "ld-linux.so.2 /bin/python3 x.py"),
    ({"exe": "/bin/python3", "cmdline": "python3 - my_test.py"}, ("python3", "/bin/python3"), "python3 - my_test.py"),
    ({"exe": "/opt/tool", "cmdline": "/usr/bin/python3 /opt/a/x.py -v"},
     ("tool", "/opt/tool", "python3", "/usr/bin/python3", "x.py", "/opt/a/x.py"), "python3 /opt/a/x.py -v"),
    ({"exe": "/bin/python3", "cmdline": "python3 -c code"}, ("python3", "/bin/python3"), "python3 -c code"),
    ({"exe": "/bin/python3", "cmdline": "python3 -- "}, ("python3", "/bin/python3"), "python3 -- "),
])
def test_names(row: dict[str, str], names: tuple[str, ...], line: str) -> None:
    assert program_of({"command": names[0], **row}) == Program(names, line)


@pytest.mark.parametrize(("command", "script"), [
    ("python3 my_test.py", "my_test.py"), ("python3.12 -W error -X dev x.py a b", "x.py"),
    ("python -m pytest tests", "pytest"),
    ("python3 -c import_x more", None), ("python3", None), ("pypy3 a.py", "a.py"), ("sh -c loop.sh", None),
    ("bash -lc x", None),
    ("bash -o pipefail run.sh", "run.sh"), ("sh -e run.sh", "run.sh"), ("node -r ts-node/register app.js", "app.js"),
    ("node --max-old-space-size=1 app.js", "app.js"), ("node -e 1", None), ("perl -I lib -w t.pl", "t.pl"),
    ("ruby -Ilib spec.rb", "spec.rb"), ("java -cp a:b -Xmx1g -jar app.jar", "app.jar"), ("java -cp a Main", "Main"),
    ("deno run --allow-net x.ts", "x.ts"), ("Rscript x.R", "x.R"), ("python3 -- x.py", "x.py"),
    ("vim my_test.py", None), ("tail -f x.log", None), ("pythonista x.py", None), ("xpython x.py", None),
    ("python3 -m pytest -x", "pytest"), ("java -jar a.jar b", "a.jar"), ("java -m a.b/c.D x", "a.b/c.D"),
    ("php -f a.php b", "a.php"), ("python3 -- -odd.py x", "-odd.py"), ("python3 --", None), ("python3 -W", None),
    ("python3 -u  x.py", None), ("perl -C x.pl", "x.pl"), ("perl -CSDA x.pl", "x.pl"),
    ("deno test x.ts", "x.ts"), ("node run dev", "dev"), ("bun run dev", "dev"), ("deno fmt x.ts", "fmt"),
    ("python3 - x.py", None), ("perl - x.pl", None), ("bash -s x.sh", None), ("sh -es -- x.sh", None),
    ("bash - x.sh", "x.sh"), ("php -- x.php", None), ("perl -eprint x", None), ("ruby -eputs x", None),
    ("perl -ne print x", None), ("node --eval=1 x", None), ("expect -c spawn x", None), ("Rscript -e x", None),
    ("deno eval x", None), ("python3 -uW ignore x.py", "x.py"), ("python3 -um http.server x", "http.server"),
    ("python3 -ujson x", "x"), ("python3 -umjson.tool x", "json.tool"), ("busybox sh x.sh", "x.sh"),
    ("busybox awk x", "awk"), ("ld-linux.so.2 /bin/perl -w x.pl", "x.pl"), ("perl -CSDe x", None),
    ("perl run x", "run"), ("lua5.4 +x y.lua", "y.lua"), ("python3.13t x.py", "x.py"),
])
def test_the_script_of_an_interpreter(command: str, script: str | None) -> None:
    interpreter, *arguments = command.split(" ")
    assert script_of(interpreter, arguments) == script


@pytest.mark.parametrize(("family", "interpreters", "options"), [
    ("python", "python pypy pythonw python3 python3.12", "-W -X --check-hash-based-pycs"),
    ("perl", "perl perl5.36", "-I"),
    ("ruby", "ruby jruby truffleruby", "-I -r -C -E"),
    ("node", "node nodejs bun", "-r --require --import --loader -C --conditions --env-file"),
    ("php", "php php8.2", "-c -d -z"),
    ("lua", "lua luajit lua5.4", "-l"),
    ("sh", "sh bash dash zsh ksh mksh ash fish busybox", "-o +o -O +O -eo -euo --rcfile --init-file"),
    ("tcl", "tclsh wish expect tclsh8.6", "-encoding"),
    ("java", "java", "-cp -classpath --class-path -p --module-path"),
    ("osascript", "osascript", "-l -s"),
    ("deno", "deno", "-c --config"),
])
def test_a_value_of_an_option_is_no_script(family: str, interpreters: str, options: str) -> None:
    """What follows is the option's; the script comes after it."""
    for interpreter in interpreters.split():
        assert script_of(interpreter, ["script", "x"]) == "script"
        assert script_of(interpreter, ["--unheard", "script"]) == "script"
        for option in options.split():
            assert script_of(interpreter, [option, "value", "script", "x"]) == "script", (interpreter, option)
            assert script_of(interpreter, [option]) is None


@pytest.mark.parametrize(("interpreter", "options"), [
    ("python3", "-c"), ("perl", "-e -E"), ("ruby", "-e"), ("node", "-e --eval -p --print"), ("php", "-r"),
    ("lua", "-e"), ("osascript", "-e"), ("bash", "-c -lc -ec -cl -xec -Cc"), ("sh", "-c"), ("expect", "-c"),
    ("perl", "-ne -lane -0777pe"), ("php", "-B -R"),
])
def test_code_on_the_command_line_is_no_script(interpreter: str, options: str) -> None:
    for option in options.split():
        assert script_of(interpreter, [option, "code", "x"]) is None, option
        assert script_of(interpreter, ["-v", option, "code", "x"]) is None, option


def test_flags_of_a_shell_are_no_flags_of_others() -> None:
    assert script_of("python3", ["-ec", "x.py"]) == "x.py" and script_of("python3", ["-o", "x.py"]) == "x.py"
    assert script_of("bash", ["--color", "x.sh"]) == "x.sh" and script_of("bash", ["--no", "x.sh"]) == "x.sh"


def test_patterns_see_no_more_than_a_command_line_of_the_wire() -> None:
    """4,096 characters of each: a longer one costs time and comes from no sampler."""
    long = "x" * 4097
    program = program_of({"command": long, "exe": long, "cmdline": f"a {long}"})
    assert program.names == (long[:4096], "a") and program.line is None
    exact = "x" * 4096
    assert program_of({"exe": exact, "cmdline": exact[:-4]}).names == (exact, exact[:-4])
    assert program_of({"exe": f"{exact} (deleted)"}).names == (exact,)


@given(st.text("/ -ab", max_size=12), st.text("/ -ab", max_size=12), st.text("/ -abc", max_size=20))
def test_names_are_what_there_is_once_and_not_empty(command: str, exe: str, cmdline: str) -> None:
    program = program_of({"command": command, "exe": exe, "cmdline": cmdline})
    assert all(program.names) and len(set(program.names)) == len(program.names)
    assert not command or program.names[0] == command
    assert all(name in f"{command}\n{exe}\n{cmdline}" for name in program.names)


def test_whitelisted_is_a_whole_name_in_any_case() -> None:
    row = {"command": "Xorg", "exe": "/usr/lib/Xorg"}
    assert listed(program_of(row), ["xorg"]) == "xorg"
    assert listed(program_of({"command": "Xorgy"}), ["xorg"]) is None
    assert listed(program_of({"command": "XORG"}), ["vim", "Xorg", "xorg"]) == "Xorg"
    assert listed(program_of({}), ["xorg"]) is None and listed(program_of(row), []) is None
    assert listed(program_of({"command": "node", "exe": "/bin/node", "cmdline": "node /opt/bin/claude -p"}), ["claude"]) == "claude"
    assert listed(program_of({"command": "cat", "cmdline": "cat claude"}), ["claude"]) is None


@pytest.mark.parametrize(("exe", "cmdline", "listed_as"), [
    ("/usr/bin/python3", "python3 " + "./" * 2100 + "keep.py", None),          # the name of the script is cut off
    ("/usr/bin/python3", "python3 " + "./" * 2040 + "keep.py --much " + "x" * 100, True),
    ("/usr/bin/python3", "python3 x.py " + "y" * 5000, False),
    ("/opt/run", "./" * 2100 + "keep.py", None),                               # so is that in argv[0]
    ("/opt/run", "run " + "y" * 5000, False),
])
def test_a_name_that_is_cut_off_is_unknown(exe: str, cmdline: str, listed_as: bool | None) -> None:
    """It may be on the whitelist."""
    assert whitelisted(program_of({"command": "x", "exe": exe, "cmdline": cmdline}), ["keep.py"]) is listed_as


@pytest.mark.parametrize(("cmdline", "found"), [
    ("python3 /srv/my job.py", True), ("python3 /srv/My Job.py --once", True), ("my job.py", True),
    ("python3 /srv/my job.pyc", False), ("python3 /srv/amy job.py", False)])
def test_a_whitelisted_name_with_a_blank(cmdline: str, found: bool) -> None:
    """Arguments come as one line, which does not show where such a name ends."""
    row = {"command": "python3", "exe": "/usr/bin/python3", "cmdline": cmdline}
    assert listed(program_of(row), ["vim", "my job.py"]) == ("my job.py" if found else None)


@pytest.mark.parametrize(("entry", "comm", "found"), [
    ("gnome-terminal-server", "gnome-terminal-", True), ("Gnome-Terminal-Server", "gnome-terminal-", True),
    ("gnome-terminal-server", "gnome-terminal", False), ("gnome-terminal-", "gnome-terminal-", True),
    ("gnome-terminal", "gnome-terminal-", False), ("0123456789abcdef", "0123456789abcde", True),
    ("0123456789abcde", "0123456789abcd", False),
    ("ééééééé-server", "ééééééé-", True),                      # cut between two characters of two bytes
    ("xééééééé-server", "xééééééé", True),
    ("éééééééé", "ééééééé\\xc3", True),                        # and within one, as the sampler shows it
])
def test_a_long_name_is_known_by_what_the_kernel_keeps_of_it(entry: str, comm: str, found: bool) -> None:
    """15 bytes, not characters."""
    assert listed(Program((comm,), ""), [entry]) == (entry if found else None)


@pytest.mark.parametrize(("cmdline", "name"), [
    ("/usr/bin/cargo build --release", "cargo build"), ("cargo build", None), ("cargo --quiet build -v", None),
    ("cargo", None), ("tail -f x.log", None), ("git commit -m x", "git commit"),
])
def test_a_program_with_its_subcommand(cmdline: str, name: str | None) -> None:
    """One name more than it has, and only where options or arguments follow."""
    program = program_of({"command": "x", "exe": "/x", "cmdline": cmdline})
    more = with_subcommand(program)
    assert more.line == program.line and more.names == (*program.names, *([name] if name else []))


def test_a_whitelisted_path_is_the_file_and_not_its_name(tmp_path: Path) -> None:
    """The kernel gives the path of a program without symbolic links: /usr/bin/x of a program in /bin."""
    real, other = tmp_path / "usr" / "keep", tmp_path / "other" / "keep"
    for file in (real, other):
        file.parent.mkdir()
        file.touch()
    (tmp_path / "bin").symlink_to("usr")
    entry = str(tmp_path / "bin" / "keep")
    started = {"command": "keep", "exe": str(real), "cmdline": "keep --all"}
    script = {"command": "keep", "exe": "/usr/bin/python3", "cmdline": f"python3 {real} --all"}
    assert listed(program_of(started), [entry]) == entry and listed(program_of(script), [entry]) == entry
    assert listed(program_of({**started, "exe": str(other)}), [entry]) is None


def test_a_relative_script_has_the_path_of_its_directory() -> None:
    row = {"command": "python3", "exe": "/usr/bin/python3", "cmdline": "python3 ../app/worker.py --port 1"}
    assert listed(program_of(row, "/srv/x"), ["/srv/app/worker.py"]) == "/srv/app/worker.py"
    assert listed(program_of(row, "/srv/x/y"), ["/srv/app/worker.py"]) is None
    assert program_of({**row, "cmdline": "python3"}, "/srv/x").names == ("python3", "/usr/bin/python3")
