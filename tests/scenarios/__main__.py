"""python -m tests.scenarios [NAME...]: play scenarios, ask rh-report and its peers, print who was right.

Each scenario has an rh-pipe and a database of its own (with --together one for all). Wants a quiet machine, and root for
control groups and real-time priorities; a scenario that cannot be set up is reported as skipped. The JSON document has
every answer; the score at the end can be pasted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.scenarios import catalogue, everyday, rare
from tests.scenarios.judge import Mark, mark, mark_peer
from tests.scenarios.peers import PEERS, Peers
from tests.scenarios.scenario import Scenario, find
from tests.scenarios.stage import Missing, Stage

REPO = Path(__file__).resolve().parents[2]
ASKED = ("summary", "why", "live", "after")
"""summary: rh-report. why: rh-report why --at, rh-pipe stopped. live: rh-report why while it runs. after: rh-report why
--at, one second after the end."""
TITLES = {"summary": "rh-report", "why": "why, asked afterwards", "live": "why, while it runs",
          "after": "why, 1 s after the end", "top": "top", "atop": "atop", "pidstat": "pidstat -d",
          "expert": "an expert with all three"}
COLUMNS = (*ASKED, *PEERS)
SETTLE_S = 4.0

Record = dict[str, Any]


class Pipe:
    """An rh-pipe with a home, a runtime directory and a database of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.db = home / "history.db"
        runtime = home / "run"
        runtime.mkdir(mode=0o700)
        self._env = {**os.environ, "HOME": str(home), "XDG_RUNTIME_DIR": str(runtime), "PYTHONPATH": str(REPO)}
        for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
            self._env.pop(name, None)
        self._process: subprocess.Popen[bytes] | None = None

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-P", "-m", "rogue_hunter", *words]

    def start(self) -> int:
        with (self.home / "pipe.log").open("wb") as log:
            self._process = subprocess.Popen(self.argv("pipe", "--quiet", "--db", str(self.db)), env=self._env,
                                             cwd=self.home, stdin=subprocess.DEVNULL, stderr=log)
        return self._process.pid

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(20)

    def ask(self, *words: str) -> list[Record]:
        done = subprocess.run(self.argv("report", *words, "--ndjson", "--db", str(self.db)), env=self._env, cwd=self.home,
                              capture_output=True, check=False, timeout=60)
        records = []
        for line in done.stdout.splitlines():
            with suppress(ValueError):
                records.append(json.loads(line))
        return records or [{"type": "failed", "headline": done.stderr.decode(errors="replace").strip()}]


def _why(scenario: Scenario, answer: list[Record]) -> Mark:
    record = answer[0]
    return mark(scenario, record.get("verdict"), record.get("causes") or [], record.get("victims") or [],
                str(record.get("headline")))


def _summary(scenario: Scenario, answer: list[Record]) -> Mark:
    record = answer[0]
    causes = record.get("causes")
    if causes is None:
        causes = [{**one, "cause": {"disk": "io"}.get(one.get("dominant_resource"), one.get("dominant_resource"))}
                  for one in record.get("worst") or []]
    verdict = record.get("verdict") or ("found" if causes else "nothing")
    return mark(scenario, verdict, causes, record.get("victims") or [], str(record.get("headline")))


def play(scenario: Scenario, directory: Path, pipe: Pipe | None = None) -> tuple[dict[str, Mark], float]:
    """One scenario from start to end: an answer for each of ASKED, what other tools show, and the events a minute.
    Raises Missing."""
    if pipe is not None:
        return _played(scenario, directory, pipe, own=False)
    pipe = Pipe(directory)
    try:
        return _played(scenario, directory, pipe, own=True)
    finally:
        pipe.stop()


def _played(scenario: Scenario, directory: Path, pipe: Pipe, *, own: bool) -> tuple[dict[str, Mark], float]:
    stage = Stage(directory)
    try:
        if scenario.early:
            scenario.play(stage)
        if own:
            (directory / "pipe.pid").write_text(str(pipe.start()))
            time.sleep(SETTLE_S)
        begin = time.time()
        if not scenario.early:
            scenario.play(stage)
        peers = Peers(directory)
        time.sleep(scenario.seconds * 0.6)
        live = _why(scenario, pipe.ask("why"))
        time.sleep(max(0.0, begin + scenario.seconds - time.time()))
        end = time.time()
    finally:
        stage.close()
    time.sleep(1)
    at = datetime.fromtimestamp((begin + end) / 2).strftime("%Y-%m-%dT%H:%M:%S")
    marks = {"live": live, "after": _why(scenario, pipe.ask("why", "--at", at))}
    ours = {os.getpid()}
    with suppress(OSError, ValueError):
        ours.add(int((directory / "pipe.pid").read_text()))
    marks |= {name: mark_peer(scenario, said) for name, said in peers.read(ours).items()}
    if own:
        pipe.stop()
    marks["why"] = _why(scenario, pipe.ask("why", "--at", at))
    period = () if own else ("--since", datetime.fromtimestamp(begin).strftime("%Y-%m-%dT%H:%M:%S"))
    summary = pipe.ask(*period)
    marks["summary"] = _summary(scenario, summary)
    return marks, 60 * float(summary[0].get("events") or 0) / max(1.0, end - begin)


def block(results: dict[str, dict[str, Mark]], scenarios: list[Scenario], events: list[float], date: str) -> str:
    """The score of every way to ask, as text that can be pasted."""
    of = {one.name: one for one in scenarios}
    kinds = [of[name].kind for name in results]
    troubles = sum(kind in ("culprit", "self") for kind in kinds)
    lines = [f"{date}: {troubles} slowdowns, {len(kinds) - troubles} in which no process is to blame.", "",
             f"{'':26}{'first':>8}{'of three':>10}{'cause':>8}{'victims':>9}{'silent':>8}{'blamed for nothing':>20}"]
    for column in COLUMNS:
        rows = [(of[name], marks[column]) for name, marks in results.items() if column in marks]
        guilty = [each for one, each in rows if one.kind in ("culprit", "self")]
        clean = [each for one, each in rows if one.kind in ("benign", "nobody")]
        victims = [each.victims for _, each in rows if each.victims is not None]
        if rows:
            many = len(guilty)
            cells = (f"{sum(bool(m.first) for m in guilty)}/{many}", f"{sum(bool(m.third) for m in guilty)}/{many}",
                     f"{sum(bool(m.cause) for m in guilty)}/{many}",
                     f"{sum(map(bool, victims))}/{len(victims)}" if victims else "",
                     str(sum(m.abstained for m in guilty)), f"{sum(m.blamed for m in clean)}/{len(clean)}")
            lines.append(f"{TITLES[column]:26}" + "".join(
                f"{cell:>{width}}" for cell, width in zip(cells, (8, 10, 8, 9, 8, 20), strict=True)))
    if events:
        middle = sorted(events)[(len(events) - 1) // 2]
        lines += ["", f"Events a minute: {middle:.1f} in the median scenario, {max(events):.1f} at most."]
    return "\n".join(lines)


def _large(directory: str, names: list[str]) -> list[str]:
    """The files of a directory that are not worth keeping."""
    return [name for name in names if not name.endswith((".db", ".db-wal", ".log", ".py", ".sh"))]


def _write(file: Path, results: dict[str, dict[str, Mark]], skipped: dict[str, str]) -> None:
    """All answers so far as JSON."""
    answers = {name: {column: mark.record() for column, mark in marks.items()} for name, marks in results.items()}
    file.write_text(json.dumps({"date": datetime.now(UTC).isoformat(timespec="seconds"), "skipped": skipped,
                                "results": answers}, indent=1) + "\n")


def main() -> int:
    """Play, print, keep."""
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="scenarios or categories (cpu, io, ...); all when none is named")
    parser.add_argument("--json", type=Path, help="write every answer here")
    parser.add_argument("--together", action="store_true", help="one rh-pipe and one database for all")
    parser.add_argument("--every", type=float, default=0, metavar="SECONDS", help="begin a scenario so often, not at once")
    parser.add_argument("--keep", type=Path, help="copy databases and scripts into this directory")
    parser.add_argument("--list", action="store_true", help="print the scenarios")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="on a disk")
    options = parser.parse_args()
    try:
        scenarios = find(options.names)
    except KeyError as error:
        parser.error(f"no such scenario: {error.args[0]}")
    if options.list:
        for one in scenarios:
            print(f"{one.name:18} {one.kind:8} {one.what}")
        return 0
    assert catalogue and everyday and rare
    signal.signal(signal.SIGTERM, signal.default_int_handler)   # taken down as by Ctrl-C: no program of a scenario stays
    results: dict[str, dict[str, Mark]] = {}
    skipped: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="rh-scenarios-", dir=options.directory) as place, ExitStack() as running:
        Path(place).chmod(0o755)
        shared = None
        if options.together:
            home = Path(place, "pipe")
            home.mkdir()
            shared = Pipe(home)
            running.callback(shared.stop)
            pid = shared.start()
            time.sleep(SETTLE_S)
        print(f"{'':18} {'':8} " + " ".join(f"{column:7}" for column in COLUMNS), flush=True)
        events: list[float] = []
        for one in scenarios:
            due = time.monotonic() + options.every
            directory = Path(place, one.name)
            directory.mkdir()
            if shared is not None:
                (directory / "pipe.pid").write_text(str(pid))
            try:
                results[one.name], many = play(one, directory, shared)
                events.append(many)
            except (Missing, OSError, subprocess.SubprocessError) as error:
                skipped[one.name] = str(error)
                print(f"{one.name:18} skipped: {error}", flush=True)
                continue
            finally:
                if options.keep and directory.exists():
                    shutil.copytree(directory, options.keep / one.name, dirs_exist_ok=True, ignore=_large)
                shutil.rmtree(directory, ignore_errors=True)
            marks = results[one.name]
            print(f"{one.name:18} {one.kind:8} " + " ".join(f"{marks[c].cell() if c in marks else '':7}" for c in COLUMNS)
                  + f"  {marks['why'].said[:110]}", flush=True)
            if options.json:
                _write(options.json, results, skipped)
            if one is not scenarios[-1]:
                time.sleep(max(0.0, due - time.monotonic()))
    print()
    print(block(results, scenarios, events, f"{datetime.now():%Y-%m-%d}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
