"""The recipes of rogue-hunter.7: each is one line, and each is run here as it is printed."""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from rogue_hunter.__main__ import names
from rogue_hunter.stream import wire
from tests.tools import forked
from tests.tools.processes import wait_for
from tests.tools.reports import hog
from tests.tools.ticks import lines, stream

MANUAL = Path(__file__).resolve().parent.parent / "man" / "rogue-hunter.7"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a live run on Linux"),
              pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")]

STUBS = {
    "logger": 'printf "%s\\n" "$1" >> logged',
    "tmux": 'printf "%s" "$4" | sed "s/^#(//; s/)$//" > status.sh; sh status.sh',
    "crontab": 'if [ "$1" = -l ]; then echo "1 1 * * * old"; else cat > crontab.new; fi',
    "ssh": 'shift; exec "$@"',
}
"""Programs of the machine, or of another one, that a test must not reach."""


def recipes() -> dict[str, str]:
    """The first command of each recipe -> the line."""
    section = re.search(r"^\.Sh RECIPES\n(.*?)^\.Sh ", MANUAL.read_text("utf-8"), re.M | re.S)
    assert section is not None
    found = re.findall(r"^\.Bd -literal -offset indent\n(.*?)\n\.Ed", section.group(1), re.M | re.S)
    assert all("\n" not in line for line in found)
    return {re.sub(r"^\W*", "", line).split(" --")[0]: line for line in found}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, clean_env: Mapping[str, str]) -> Iterator[tuple[Path, dict[str, str], int]]:
    """A user with a running rh-pipe that has recorded a busy loop, and the pid of that loop."""
    at = tmp_path_factory.mktemp("recipes")
    (at / "bin").mkdir()
    for name in names():
        forked.program(at / "bin" / f"rh-{name}", name)
    for name, script in STUBS.items():
        (at / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (at / "bin" / name).chmod(0o755)
    (at / "loud.toml").write_text('[[rules]]\nname = "loud"\nconditions = { score_min = 40, duration_seconds = 1 }\n'
                                  'action = { type = "log" }\n')
    (at / "loud.toml").chmod(0o600)
    env = {**clean_env, "PATH": f"{at / 'bin'}:{clean_env['PATH']}", "HOME": str(at), "XDG_RUNTIME_DIR": str(at / "run")}
    (at / "run").mkdir(0o700)
    for name, score in (("before", 0), ("after", 76)):
        made = lines(list(stream([[{**hog(7, score), "band": "high" if score else "low"}, hog(8, 30)]] * 3)))
        (at / f"{name}.ndjson").write_bytes(made)
    begun = []
    try:
        for args in (["/bin/sh", "-c", "while :; do :; done"], [at / "bin" / "rh-pipe", "-q"]):
            begun.append(subprocess.Popen(args, env=env, cwd=at, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                          start_new_session=True))     # the loop is no part of the test run's own work
        wait_for(lambda: b'"peak_score"' in subprocess.run(
            [at / "bin" / "rh-report", "events", "--ndjson"], env=env, capture_output=True, check=False).stdout, 60)
        yield at, env, begun[0].pid
    finally:
        for child in begun:
            child.kill()
            child.wait(10)


def test_there_are_ten() -> None:
    assert len(recipes()) == 10


Run = Callable[[str], str]


@pytest.fixture
def run(home: tuple[Path, dict[str, str], int]) -> Run:
    """Run the recipe that begins with these words; its standard output."""
    at, env, pid = home

    def one(begin: str) -> str:
        script = recipes()[begin].replace("12345", f"{pid} --dry-run --yes --ndjson")
        done = subprocess.run(["bash", "-c", f"set -o pipefail; {script}"], cwd=at, env=env, capture_output=True, text=True,
                              timeout=120, check=False, stdin=subprocess.DEVNULL)
        assert done.returncode in (0, 1) and "Traceback" not in done.stderr, done.stderr
        return done.stdout

    return one


def test_a_message_for_a_chat(run: Run) -> None:
    text = wire.loads(run("rh-report").encode())["text"]
    assert re.match(r"\d+ .+ \(pid \d+\)\n", text)


def test_a_line_when_a_process_is_loud(home: tuple[Path, dict[str, str], int]) -> None:
    at, env, _ = home
    done = subprocess.Popen(["bash", "-c", recipes()["rh-tail | rh-match -c loud.toml"]], cwd=at, env=env, stdin=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_for(lambda: (at / "logged").exists() and "loud matches " in (at / "logged").read_text(), 60)
    finally:
        os.killpg(done.pid, signal.SIGKILL)     # the session that was begun for it
        done.wait(10)
    assert "{" not in (at / "logged").read_text()


def test_events_for_a_spreadsheet(run: Run, home: tuple[Path, dict[str, str], int]) -> None:
    run("rh-report events")
    with (home[0] / "events.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["entry_time", "command", "user", "peak_score", "duration_s"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?", rows[0]["entry_time"])


def test_the_status_line_of_tmux(run: Run) -> None:
    line = run("tmux set -g status-right '#(rh-report status")
    assert line.startswith("rh: ") and line.count("\n") == 1 and len(line) <= 61


def test_metrics_as_a_file(run: Run, home: tuple[Path, dict[str, str], int]) -> None:
    run("rh-metrics")
    assert "rogue_hunter_" in (home[0] / "rogue-hunter.prom").read_text()


def test_a_line_of_crontab(run: Run, home: tuple[Path, dict[str, str], int]) -> None:
    run("crontab -l 2>/dev/null; rh-prune")
    old, line = (home[0] / "crontab.new").read_text().splitlines()
    assert old == "1 1 * * * old" and line.startswith("0 4 * * *  ")


def test_another_machine(run: Run) -> None:
    text = run("ssh web1 rh-sample -n 3 | rh-score")
    assert "CPUs busy" in text and "SCORE" in text and 6 <= len(text.splitlines()) <= 24


def test_two_recordings(run: Run) -> None:
    assert "report_diff" in run("rh-report diff before.ndjson after.ndjson")


def test_a_runaway_process(run: Run, home: tuple[Path, dict[str, str], int]) -> None:
    """A rehearsal: the process is looked at, and all protections are asked (root's processes are refused)."""
    (action,) = [wire.loads(line.encode()) for line in run("rh-reap").splitlines()]
    assert action["pid"] == home[2] and action["outcome"] in ("dry_run", "refused")


def test_what_woke_the_disk(run: Run) -> None:
    """A minute is written when it is over, so there may be none yet."""
    found = [wire.loads(line.encode()) for line in run("rh-report usage").splitlines()]
    assert all(each["type"] == "report_usage" and each["disk_bytes"] > 0 for each in found)
