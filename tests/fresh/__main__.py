"""python -m tests.fresh [--keep DIR] [--only PATTERN] [--check ARGUMENTS] [--record]: see the table of cells below.

Each cell is an empty Debian root: git clone, README's first command, README's second. The long test of set-up; it needs
root, debootstrap and a network, and takes about ten minutes.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fresh.machine import (
    USER,
    MachineError,
    Result,
    config_text,
    make_root,
    named_paths,
    pip_settings,
    run_in,
)

REPO = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).with_name("RESULTS.md")
FIRST = "bin/rh-pipe --for 20s --report"
SECOND = "bin/rh-check"
SOURCE = Path("/srv/rogue-hunter.git")
"""Where the repository appears in a root."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ADVICE = "apt install python3-venv"
"""What set-up has to print on a machine whose Python has neither pip nor ensurepip."""


@dataclass(frozen=True)
class Cell:
    """One kind of fresh machine. `packages` are added to the root; `python` is a directory of pyenv's, empty = Debian's."""

    name: str
    suite: str
    user: int
    packages: tuple[str, ...] = ()
    python: str = ""
    refused: bool = False
    """Set-up has to fail with status 69 and say which package is missing."""


CELLS = (
    Cell("3.11 root", "bookworm", 0, ("python3-venv",)),
    Cell("3.11 user", "bookworm", USER, ("python3-venv",)),
    Cell("3.11 user, pip without ensurepip", "bookworm", USER, ("python3-pip",)),
    Cell("3.11 user, neither pip nor ensurepip", "bookworm", USER, refused=True),
    Cell("3.12 user", "bookworm", USER, python="3.12"),
    Cell("3.13 user", "trixie", USER, ("python3-venv",)),
    Cell("3.14 user", "forky", USER, ("python3-venv",)),
    Cell("3.14 root", "forky", 0, ("python3-venv",)),
)


@dataclass
class Outcome:
    """What happened in a cell: seconds of the three steps (None = not reached), and a verdict of some words."""

    cell: Cell
    python: str = "?"
    clone_s: float | None = None
    first_s: float | None = None
    second_s: float | None = None
    verdict: str = ""
    good: bool = False
    tests: str = ""


def other_python(version: str) -> Path | None:
    """The newest Python of pyenv that has this version, or None."""
    home = Path(os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv"))) / "versions"
    found = sorted(home.glob(f"{version}.*"), key=lambda path: [int(each) for each in re.findall(r"\d+", path.name)])
    return found[-1] if found else None


def environment(cell: Cell, python: Path | None) -> dict[str, str]:
    """The variables of a first login, and nothing of this machine's."""
    home = "/home/user" if cell.user else "/root"
    path = f"{python}/bin:{PATH}" if python else PATH
    return {"HOME": home, "PATH": path, "LANG": "C.UTF-8", "TERM": "dumb", "USER": "user" if cell.user else "root"}


def try_cell(cell: Cell, root: Path, scratch: Path, check: Sequence[str], settings: Mapping[str, Mapping[str, str]]) -> Outcome:
    """Clone, first command, second command. Raises MachineError, subprocess.TimeoutExpired."""
    outcome = Outcome(cell)
    python = other_python(cell.python) if cell.python else None
    if cell.python and python is None:
        raise MachineError(f"pyenv has no Python {cell.python}")
    (scratch / "upper" / "etc").mkdir(parents=True)
    (scratch / "upper" / "etc" / "pip.conf").write_text(config_text(settings))
    shared = {path: path for path in named_paths(settings)} | {Path(git("--git-common-dir")): SOURCE}
    if python:
        shared[python] = python     # its libraries are found by absolute paths
    environ = environment(cell, python)

    def run(command: str, user: int = cell.user, timeout_s: float = 1800) -> tuple[Result, float]:
        began = time.monotonic()
        done = run_in(root, scratch, ["sh", "-c", command], user=user, environ=environ, shared=shared, timeout_s=timeout_s)
        with (scratch / "log").open("a") as log:
            log.write(f"$ {command}\n{done.output}[status {done.status}]\n\n")
        return done, time.monotonic() - began

    if cell.packages:
        install = f"apt-get update -qq -o Acquire::Check-Valid-Until=false && apt-get install -y -qq --no-install-recommends {' '.join(cell.packages)}"
        done, _ = run(f"export DEBIAN_FRONTEND=noninteractive; {install}", user=0)
        if done.status:
            raise MachineError(f"apt-get: {done.output.strip().splitlines()[-1]}")
    outcome.python = run("python3 --version")[0].output.split()[-1]
    clone = f"git config --global --add safe.directory '*' && git clone -q {SOURCE} rogue-hunter"
    done, outcome.clone_s = run(f"{clone} && cd rogue-hunter && git checkout -q {git('HEAD')}")
    if done.status:
        outcome.verdict = "clone failed"
        return outcome
    done, outcome.first_s = run(f"cd rogue-hunter && exec {FIRST}")
    if cell.refused:
        outcome.good = done.status == 69 and ADVICE in done.output
        outcome.verdict = f"status {done.status}, " + ("names the missing package" if outcome.good else "gives no advice")
        return outcome
    if done.status or not re.search(r"\n(?!rogue-hunter:).+", done.output):
        outcome.verdict = f"first command: status {done.status}"
        return outcome
    done, outcome.second_s = run(f"cd rogue-hunter && exec {shlex.join([SECOND, *check])}")
    outcome.tests = next((line.strip("= ") for line in reversed(done.output.splitlines()) if re.search(r"\d passed", line)), "")
    outcome.good = done.status == 0
    outcome.verdict = "green" if outcome.good else f"second command: status {done.status}"
    return outcome


def git(*wanted: str) -> str:
    """One line of git rev-parse."""
    command = ["git", "rev-parse", "--path-format=absolute", *wanted]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True).stdout.strip()


def seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} s"


HEAD = """# README's two commands on fresh machines

Written by `python -m tests.fresh --record`, which replaces the rows of the cells that it tried. Each row is an empty
Debian root (debootstrap, minimal variant, with python3, git and ca-certificates) in namespaces of its own; the packages
in the second column were added. The first command is `bin/rh-pipe --for 20s --report`, which watches for 20 seconds; the
second is `bin/rh-check` with the arguments of its column.

| machine | root, packages | Python | clone | first | second | arguments | tests | result | revision |
|---|---|---|---|---|---|---|---|---|---|
"""


def row(outcome: Outcome, check: Sequence[str], origin: str) -> str:
    """The line of RESULTS.md of one cell; `origin` is the revision and the day."""
    cell = outcome.cell
    packages = ", ".join((cell.suite, *cell.packages, *(["pyenv"] if cell.python else [])))
    arguments = f"`{shlex.join(check)}`" if check else "none"
    return "| " + " | ".join((
        cell.name, packages, outcome.python, seconds(outcome.clone_s), seconds(outcome.first_s), seconds(outcome.second_s),
        arguments if outcome.second_s is not None else "-", outcome.tests or "-", outcome.verdict, origin)) + " |"


def merged(before: str, rows: Sequence[str]) -> str:
    """RESULTS.md with these rows in place of earlier ones of the same cells, in the order of CELLS."""
    def name(line: str) -> str:
        return line.split("|")[1].strip()

    kept = {name(line): line for line in before.splitlines() if line.startswith("| ") and not line.startswith("| machine")}
    kept |= {name(line): line for line in rows}
    return HEAD + "".join(f"{kept[cell.name]}\n" for cell in CELLS if cell.name in kept)


def outcomes(cells: Sequence[Cell], place: Path, check: Sequence[str], mirror: str) -> Iterator[Outcome]:
    """Tries each cell; what cannot be tried is an outcome too, with its reason."""
    settings = pip_settings()
    for cell in cells:
        scratch = Path(tempfile.mkdtemp(prefix="cell-", dir=place))
        try:
            yield try_cell(cell, make_root(cell.suite, place, mirror), scratch, check, settings)
        except (MachineError, subprocess.TimeoutExpired) as error:
            yield Outcome(cell, verdict=f"NOT TRIED: {error}")
        finally:
            if (scratch / "log").exists():
                (scratch / "log").rename(place / f"{re.sub(r'[^a-z0-9.]+', '-', cell.name)}.log")
            subprocess.run(["rm", "-rf", "--one-file-system", str(scratch)], check=False)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fresh", description=__doc__)
    parser.add_argument("--keep", metavar="DIR", type=Path, help="keep the roots and the logs in DIR, and use those in it")
    parser.add_argument("--only", metavar="PATTERN", default="*", help="cells whose name matches (shell pattern)")
    parser.add_argument("--check", metavar="ARGUMENTS", default="--quick", help="arguments of bin/rh-check (default: --quick)")
    parser.add_argument("--mirror", metavar="URL", default="", help="where debootstrap gets Debian from")
    parser.add_argument("--record", action="store_true", help="write what was found into RESULTS.md")
    options = parser.parse_args()
    cells = [cell for cell in CELLS if fnmatch.fnmatch(cell.name, options.only)]
    check = shlex.split(options.check)
    found: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="rh-fresh-") as temporary:
        place = options.keep or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        for outcome in outcomes(cells, place.resolve(), check, options.mirror):
            found.append(outcome)
            print(f"{outcome.cell.name}: Python {outcome.python}, first {seconds(outcome.first_s)}, second "
                  f"{seconds(outcome.second_s)}: {outcome.verdict} {outcome.tests}", flush=True)
    if options.record:
        origin = f"{git('--short', 'HEAD')}, {time.strftime('%Y-%m-%d')}"
        before = RESULTS.read_text() if RESULTS.exists() else ""
        RESULTS.write_text(merged(before, [row(outcome, check, origin) for outcome in found]))
    return 0 if found and all(outcome.good for outcome in found) else 1


if __name__ == "__main__":
    sys.exit(main())
