"""The manual and the README say what is there, and what they show works."""

from __future__ import annotations

import re
import shlex
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest

from rogue_hunter.__main__ import names
from rogue_hunter.cli.report import Views
from rogue_hunter.config.options import Config
from rogue_hunter.scoring.stage import Score
from rogue_hunter.store.database import open_writer
from rogue_hunter.stream.pipeline import chain
from rogue_hunter.stream.tick import Tick
from tests.test_house import PACKAGE, ROOMS
from tests.tools import forked
from tests.tools.docs import subcommands
from tests.tools.reports import hog
from tests.tools.ticks import closing, key, lines, row, stream

REPO = Path(__file__).resolve().parent.parent
PAGES = sorted((REPO / "man").glob("*.[1-9]"))
COMMANDS = [f"rh-{name}" for name in names()]
RECORDED = REPO / "tests" / "fixtures" / "recorded.ndjson"
TRIED = {"README.md", "rogue-hunter.5", "rogue-hunter.7", "rh-sample.1", "rh-score.1", "rh-track.1", "rh-pipe.1",
         "rh-config.1"}
"""Where the examples stand that are run."""
HARMLESS = {"rh-sample", "rh-score", "rh-track", "rh-pipe", "rh-report", "rh-config", "rh-prune"}
"""What may be run; of every other example it is checked that it could be."""


def command(name: str) -> click.Command:
    """The click command of rh-NAME."""
    found: click.Command = import_module(f"rogue_hunter.cli.{name.removeprefix('rh-')}").command
    return found


# -- pages ------------------------------------------------------------------------------------------------------


def options(made: click.Command) -> set[str]:
    """Every option of a command and of its subcommands."""
    found = {"-h", "--help"}
    for param in made.params:
        if isinstance(param, click.Option) and not param.hidden:
            found |= {*param.opts, *param.secondary_opts}
    for sub in subcommands(made).values():
        found |= options(sub)
    return found


def flags(lines: list[str]) -> set[str]:
    """Every option that mdoc lines name."""
    text = "\n".join(lines).replace("Fl Fl ", "Fl -").replace(r"\-", "-")
    return {"-" + word for word in re.findall(r"\bFl ([A-Za-z0-9-]+)", text)}


def section(page: str, name: str) -> list[str]:
    """The lines of a section; none if the page does not have it."""
    found = re.search(rf"^\.Sh {name}\n(.*?)(?=^\.Sh |\Z)", page, re.MULTILINE | re.DOTALL)
    return found.group(1).splitlines() if found else []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_in_the_page_and_the_reverse(name: str) -> None:
    """An option without a line in the manual is as wrong as a line about an option that does not exist."""
    page = (REPO / "man" / f"{name}.1").read_text()
    wanted = options(command(name))
    assert flags([line for line in page.splitlines() if line.startswith(".It ")]) == wanted
    assert flags(section(page, "SYNOPSIS")) <= wanted
    if subs := subcommands(command(name)):
        assert set(subs) <= set(re.findall(r"\b(?:Cm|Ic) ([a-z][a-z-]*)", page))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_80_columns(name: str) -> None:
    """The help of a command and of its subcommands, and bounds of numbers in words."""
    for made in (command(name), *subcommands(command(name)).values()):
        lines = made.get_help(click.Context(made, info_name=f"{name} {made.name}", max_content_width=80)).splitlines()
        assert [line for line in lines if len(line) > 80 or "<=x" in line or "x>=" in line] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_a_page_has_the_sections_that_a_reader_looks_for(name: str) -> None:
    """What it costs and where it falls short, too."""
    page = (REPO / "man" / f"{name}.1").read_text()
    found = re.findall(r"^\.Sh (.*)$", page, re.MULTILINE)
    wanted = {"NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "EXAMPLES", "OVERHEAD", "SEE ALSO", "BUGS"}
    assert wanted <= set(found)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_readme_and_the_overview_list_the_command(name: str) -> None:
    """Both lists are generated from the pages, and have nothing else."""
    assert re.search(rf"^\|.*\| `{name}` \|", (REPO / "README.md").read_text(), re.MULTILINE)
    assert re.search(rf"^\.It Xr {name} 1$", (REPO / "man" / "rogue-hunter.7").read_text(), re.MULTILINE)


def test_references_between_pages_lead_somewhere() -> None:
    """An .Xr to one of our own pages names an existing page."""
    ours = {page.name for page in PAGES}
    for page in PAGES:
        named = set(re.findall(r"^\.(?:It )?Xr ((?:rh-|rogue-)[a-z-]+) ([1-9])", page.read_text(), re.MULTILINE))
        assert {f"{name}.{number}" for name, number in named} <= ours, page.name


def test_mandoc_finds_nothing() -> None:
    """Every page is valid mdoc."""
    if not shutil.which("mandoc"):
        pytest.skip("mandoc is not installed: the manual pages are not linted")
    lint = ["mandoc", "-T", "lint", "-W", "warning", *map(str, PAGES)]
    done = subprocess.run(lint, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_man_shows_what_can_be_copied() -> None:
    """As a reader sees it: the dashes and quotes of an example are those of the shell."""
    if not shutil.which("man"):
        pytest.skip("man is not installed: no page was rendered")
    page = REPO / "man" / "rh-score.1"
    shown = subprocess.run(["man", "-l", page], capture_output=True, text=True, check=False,
                           env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "120", "MANPAGER": "cat"})
    if shown.returncode != 0:
        pytest.skip(f"man -l does not work here: {shown.stderr.strip()}")
    assert """jq -c 'select(.type == "process") | [.pid, .command, .score, .dominant_resource]'""" in shown.stdout
    assert "rh-score --model stress < recorded.ndjson" in shown.stdout


# -- examples ----------------------------------------------------------------------------------------------------------


def examples() -> Iterator[tuple[str, str]]:
    """(where, script) of every example in the pages and in the README."""
    for page in PAGES:
        shown = re.findall(r"^\.Bd -literal[^\n]*\n(.*?)^\.Ed$", page.read_text(), re.MULTILINE | re.DOTALL)
        shown += re.findall(r"^\.Dl (.*\n)", page.read_text(), re.MULTILINE)
        for text in shown:
            plain = re.sub(r"\\(?:\(dq|\(aq|\(ha|\(ti|e|-|&)", lambda found: {
                r"\(dq": '"', r"\(aq": "'", r"\(ha": "^", r"\(ti": "~", r"\e": "\\", r"\-": "-", r"\&": "",
            }[found.group()], text)  # fmt: skip
            if re.match(r"(rh-|sqlite3 |eval )", plain):
                yield page.name, plain
    for text in re.findall(r"^```sh\n(.*?)^```$", (REPO / "README.md").read_text(), re.MULTILINE | re.DOTALL):
        yield "README.md", text.replace("bin/rh-", "rh-")
    for name in COMMANDS:
        for line in (command(name).epilog or "").splitlines():
            if line.lstrip().startswith(("rh-", "eval ")):
                yield f"{name} --help", re.split(r" {3,}", line.strip())[0]


EXAMPLES = list(examples())
IDS = [f"{where}-{i}" for i, (where, _) in enumerate(EXAMPLES)]


def called(script: str) -> Iterator[list[str]]:
    """The simple commands of a script, redirections left out."""
    lexer = shlex.shlex(script, posix=True, punctuation_chars="|&;<>()\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t\r", True, "#"
    words: list[str] = []
    skip = False
    for word in lexer:
        if set(word) <= set("<>"):
            skip = True
        elif set(word) <= set("|&;()\n"):
            if words:
                yield words
            words = []
        elif not skip:
            words.append(word)
        else:
            skip = False
    if words:
        yield words


def test_the_tools_of_this_file_see_what_is_there() -> None:
    """A pattern that matches nothing would make every test below pass."""
    assert len(EXAMPLES) > 40
    assert {where for where, _ in EXAMPLES} >= {"README.md", "rogue-hunter.5", "rogue-hunter.7", "rh-score.1"}
    assert list(called("rh-a -n 1 |\n  jq 'x | y' > f; rh-b \"$(z)\" < g &")) == [
        ["rh-a", "-n", "1"], ["jq", "x | y"], ["rh-b", "$(z)"],
    ]  # fmt: skip
    assert flags([".It Fl n Ar N , Fl -count Ar N", ".It Fl Fl tee"]) == {"-n", "--count", "--tee"}


@pytest.mark.parametrize(("where", "script"), EXAMPLES, ids=IDS)
def test_an_example_is_something_that_could_be_typed(where: str, script: str) -> None:
    """The shell can read it, and every command in it is there and knows the options that it is given."""
    read = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert (read.returncode, read.stderr) == (0, "")
    for word, *arguments in called(script):
        if word.startswith("rh-") and word != "rh-check":
            assert word in COMMANDS, f"{where} shows {word}, which does not exist"
            made = command(word)
            if isinstance(made, Views):
                arguments = made.ordered(arguments)
            if arguments and arguments[0] in (subs := subcommands(made)):
                made = subs[arguments.pop(0)]
            made.make_parser(click.Context(made, info_name=word)).parse_args(list(arguments))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, clean_env: Mapping[str, str]) -> Path:
    """A directory with the files that the examples speak of, and commands that come to an end by themselves."""
    at = tmp_path_factory.mktemp("examples")
    shutil.copy(RECORDED, at / "recorded.ndjson")
    (at / "other.toml").write_text('[bands]\ntracking = "medium"\n')
    (at / "my.toml").write_text("")
    for name in ("before", "after"):
        (at / f"{name}.ndjson").write_bytes(lines(list(stream([[hog(7, 76)]] * 2))))
    (at / "bin").mkdir()
    ends = {"rh-sample": "-n 2 --hz 10", "rh-pipe": "--for 1s --hz 5"}
    for name in COMMANDS:
        forked.program(at / "bin" / name, name.removeprefix("rh-"), *ends.get(name, "").split())
    for database in ([], ["--db", str(at / "x.db")]):
        subprocess.run([at / "bin" / "rh-pipe", "--quiet", *database], env=dict(clean_env), check=True, timeout=60)
    return at


def runnable() -> Iterator[Any]:
    """The examples that read and write nothing but what they are given."""
    for at, (where, script) in zip(IDS, EXAMPLES, strict=True):
        own = set(re.findall(r"\brh-[a-z]+", script))
        # A recording of a machine with thousands of processes takes a minute and a gigabyte.
        if where in TRIED and (own or script.startswith("sqlite3")) and own <= HARMLESS and "--record" not in script:
            yield pytest.param(script, id=at)


@pytest.mark.slow
@pytest.mark.parametrize("script", list(runnable()))
def test_an_example_works(script: str, place: Path, clean_env: Mapping[str, str]) -> None:
    """Every harmless example is run unchanged, except that endless commands end after two ticks."""
    for tool in ("jq", "sqlite3", "awk"):
        if re.search(rf"\b{tool}\b", script) and not shutil.which(tool):
            pytest.skip(f"{tool} is not installed: the example was not tried")
    if re.search(r"rh-config init (/tmp/)?my\.toml", script):
        (place / "my.toml").unlink(missing_ok=True)
    for shown, meant in (("/tmp/", f"{place}/"), ("timeout 60", "timeout 1"), ("rogue-hunter.db?", "x.db?")):
        script = script.replace(shown, meant)
    environ = {**clean_env, "PATH": f"{place / 'bin'}:{clean_env['PATH']}"}
    bash = ["bash", "-c", f"set -e -o pipefail\n{script}\nwait"]
    done = subprocess.run(bash, cwd=place, env=environ, capture_output=True, text=True, timeout=120, check=False,
                          stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


# -- worked examples ---------------------------------------------------------------------------------------------------


def worked() -> list[tuple[int, int, str, float, int, str]]:
    """The table of rogue-hunter(7): cores, N, who, times, score, band."""
    page = (REPO / "man" / "rogue-hunter.7").read_text()
    found = re.findall(r"^\.It (\d+) Ta (\d+) Ta (.+) Ta ([\d.]+) Ta (\d+) (\w+)$", page, re.MULTILINE)
    return [(int(cores), int(n), who, float(times), int(points), band) for cores, n, who, times, points, band in found]


@pytest.mark.parametrize(("cores", "n", "who", "times", "points", "band"), worked())
def test_the_worked_examples_of_the_overview_are_true(
    cores: int, n: int, who: str, times: float, points: int, band: str
) -> None:
    """The model gives each row of the table its numbers, on a machine with these cores and active processes."""
    number = re.match(r"\d+|two|eight", who) if "loops" in who else None
    count = {"two": 2, "eight": 8}.get(number[0]) or int(number[0]) if number else 1
    percent = 11.0 if "11 %" in who else 1600.0 if "16 cores" in who else 100.0
    nice = 19 if "nice 19" in who else 0
    hogs = [row(10 + i, cpu_percent=percent, state="running", nice=nice) for i in range(count)]
    idle = [row(1000 + i, memory_bytes=11 << 20) for i in range(n - count)]
    rows = {key(made): made for made in hogs + idle}
    machine = closing(0, len(rows), cpus=cores, cpu_busy_cores=count * percent / 100)
    (scored,) = chain([Tick(machine, rows, set(rows))], Score(Config()))
    for one in hogs:
        made = scored.processes[key(one)]
        assert (made["score"], made["band"]) == (points, band)
        assert made["disproportionality"] == pytest.approx(times, rel=0.01)


def test_the_worked_examples_were_found() -> None:
    """Machines of 1 to 128 cores; and README has the same numbers."""
    assert {cores for cores, *_ in worked()} == {1, 2, 8, 32, 128} and len(worked()) == 15
    readme = (REPO / "README.md").read_text()
    assert "One busy loop on 2 cores scores 66, two of them 76 each" in readme


def test_the_sql_of_the_manual_reads_a_real_file(tmp_path: Path) -> None:
    """Python's own SQLite takes every query that a page shows, where the sqlite3 program is missing too."""
    open_writer(tmp_path / "x.db")[0].close()
    connection = sqlite3.connect(tmp_path / "x.db")
    shown = [words[-1] for _, script in EXAMPLES for words in called(script) if words[0] == "sqlite3"]
    queries = [query for query in shown if query.lstrip().startswith("select ")]
    try:
        assert len(queries) >= 2
        for query in queries:
            assert connection.execute(query).fetchall() == []
    finally:
        connection.close()


# -- the map of the source code ------------------------------------------------------------------------------------------


def test_the_map_of_the_source_code_is_that_of_the_package() -> None:
    """The folders of rogue-hunter(7) are those of the package, in the order of the house; every path exists."""
    page = (REPO / "man" / "rogue-hunter.7").read_text()
    section = page[page.index(".Sh SOURCE CODE"):page.index(".Sh ENVIRONMENT")]
    rooms = re.findall(r"^\.It Pa (\w+)$", section, re.MULTILINE)
    assert tuple(rooms) == ROOMS
    paths = [path for path in re.findall(r"^\.?(?:Pa|Pq Pa) (\S+)", section, re.MULTILINE) if "/" in path or "." in path]
    assert len(paths) > 25
    for path in paths:
        assert any((base / path).exists() for base in (PACKAGE, REPO)), path
