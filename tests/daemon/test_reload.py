"""The configuration changes while rh-pipe runs: in force with the next tick, no open event lost, a bad file refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.config.options import Config
from rogue_hunter.config.toml import parse
from rogue_hunter.daemon.reload import SETTLE_S, Reloader
from rogue_hunter.scoring.stage import Score
from rogue_hunter.store.database import open_reader
from rogue_hunter.stream import wire
from rogue_hunter.stream.pipeline import Pipeline, Stage, chain
from rogue_hunter.stream.tick import Tick
from rogue_hunter.tracking.events import Track
from rogue_hunter.tracking.pauses import Pauses
from tests.tools.processes import wait_for
from tests.tools.ticks import Machine, at_once, key, row, stream

pytestmark = pytest.mark.waits

REPO = Path(__file__).resolve().parent.parent.parent


def config(text: str) -> Config:
    """A configuration of TOML."""
    return parse(text.encode())


class Reloading:
    """A reloader whose clock the test moves."""

    def __init__(self, file: Path, must: bool = True) -> None:
        self.now = 0.0
        self.said: list[tuple[str, str]] = []
        self.applied: list[Config] = []
        self.reloader = Reloader(Config(), file, must, lambda level, text: self.said.append((level, text)),
                                 self.applied.append, lambda: self.now)

    @property
    def config(self) -> Config:
        """The configuration in force."""
        assert self.applied == [] or self.applied[-1] is self.reloader.config
        return self.reloader.config

    def looks(self) -> bool:
        """Look now, and once more when the file has come to rest; True when it was read."""
        first = self.reloader.look()
        self.now += SETTLE_S + 0.01
        return self.reloader.look() or first


def test_a_changed_file_is_read_once(tmp_path: Path) -> None:
    """Once it is stable; the changes are logged."""
    file = tmp_path / "c.toml"
    file.write_text("")
    made = Reloading(file)
    assert not made.looks()
    file.write_text("[bands]\nelevated = 40\n[system]\nhz = 5.0\n[store]\nqueue_ticks = 7\n")
    assert made.looks() and not made.looks()
    assert (made.config.bands.elevated, made.config.system.hz) == (40, 5.0)
    assert made.said == [("info", "configuration read again: system.hz 3.0 -> 5.0, bands.elevated 45 -> 40; "
                                  "at the next start: store.queue_ticks 1000 -> 7")]
    assert made.reloader.status["error"] is None


def test_a_file_in_the_making_is_not_read(tmp_path: Path) -> None:
    """An editor writes, and writes on: only when it has been quiet for a moment is it looked into."""
    file = tmp_path / "c.toml"
    file.write_text("")
    made = Reloading(file)
    for n in range(10):
        file.write_text("[bands]\nelevated = 4" + "0" * (n % 2) + " # " + "x" * n)
        made.now += 0.1
        assert not made.reloader.look()
    made.now += SETTLE_S
    assert made.reloader.look()


@pytest.mark.parametrize("text", ["[bands", "[bands]\nelevated = 1000\n", "[bands]\nunknown = 1\n", "\udcff"])
def test_a_bad_file_keeps_the_old_one(tmp_path: Path, text: str) -> None:
    """And logs it once, until it is valid again."""
    file = tmp_path / "c.toml"
    file.write_text("[bands]\nelevated = 40\n")
    made = Reloading(file)
    assert made.reloader.read()
    before = made.config
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert made.looks() and not made.looks()
    assert made.config is before
    assert [level for level, _ in made.said] == ["info", "error"]
    assert "stays as it was" in made.said[-1][1] and str(file) in made.said[-1][1]
    assert made.reloader.status["error"] in made.said[-1][1]
    file.write_text("[bands]\nelevated = 41\n")
    assert made.looks()
    assert made.config.bands.elevated == 41 and made.reloader.status["error"] is None


@pytest.mark.skipif(sys.platform != "linux", reason="file names are UTF-8 there")
def test_the_state_of_a_file_whose_name_is_no_text_can_be_written(tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"c\xff.toml")
    file.write_text("[bands]\n")
    made = Reloading(file)
    assert made.reloader.read() and b"c\\\\xff.toml" in wire.dumps(made.reloader.status)
    file.write_text("[bands")
    assert made.looks() and b"c\\\\xff.toml: " in wire.dumps(made.reloader.status["error"])


def test_a_file_that_others_may_write_to_keeps_the_old_one(tmp_path: Path) -> None:
    """Another user must not decide what a running, perhaps armed, rh-pipe does."""
    file = tmp_path / "c.toml"
    file.write_text("")
    made = Reloading(file)
    file.write_text('[reap]\nmode = "armed"\n')
    file.chmod(0o666)
    assert made.looks()
    assert made.config.reap.mode == "observe"
    assert made.said[-1][0] == "error" and "other users may write to the file" in made.said[-1][1]
    assert "other users" in made.reloader.status["error"]


@pytest.mark.parametrize("what", ["fifo", "/dev/zero", "directory"])
def test_what_is_no_regular_file_keeps_the_old_one(tmp_path: Path, what: str) -> None:
    """A fifo stopped the beat for good, a link to /dev/zero grew the memory without end."""
    file = tmp_path / "c.toml"
    file.write_text("[system]\nhz = 5.0\n")
    made = Reloading(file)
    assert made.reloader.read()
    file.unlink()
    {"fifo": lambda: os.mkfifo(file), "directory": file.mkdir, "/dev/zero": lambda: file.symlink_to(what)}[what]()
    assert made.looks()
    assert made.config.system.hz == 5.0
    assert "not a" in made.said[-1][1] and made.said[-1][0] == "error"


def test_a_file_that_comes_and_goes(tmp_path: Path) -> None:
    """The user's file need not be there: then the defaults stand. One that was named has to be."""
    file = tmp_path / "sub" / "c.toml"
    made, named = Reloading(file, must=False), Reloading(file)
    file.parent.mkdir()
    file.write_text("[system]\nhz = 7.0\n")
    assert made.looks() and named.looks()
    assert (made.config.system.hz, named.config.system.hz) == (7.0, 7.0)
    file.unlink()
    assert made.looks() and named.looks()
    assert (made.config.system.hz, named.config.system.hz) == (3.0, 7.0)
    assert named.said[-1][0] == "error"


def test_a_linked_file_is_followed(tmp_path: Path) -> None:
    """Its target changes, or it is made to lead elsewhere."""
    for n in (1, 2):
        (tmp_path / f"{n}.toml").write_text(f"[system]\nhz = {n}.0\n")
    link = tmp_path / "c.toml"
    link.symlink_to("1.toml")
    made = Reloading(link)
    link.unlink()
    link.symlink_to("2.toml")
    assert made.looks() and made.config.system.hz == 2.0
    (tmp_path / "2.toml").write_text("[system]\nhz = 22.0\n")
    assert made.looks() and made.config.system.hz == 22.0


@pytest.mark.slow
def test_the_directory_is_watched(tmp_path: Path) -> None:
    """Writing, replacing and touching the file wake us; reading it, and other files, do not."""
    file = tmp_path / "c.toml"
    file.write_text("")
    made = Reloading(file)
    woken = threading.Event()
    if not made.reloader.watch(woken.set):
        pytest.skip(f"no directory can be watched here: {made.said}")
    try:
        for change in (lambda: file.write_text("[system]\nhz = 4.0\n"),
                       lambda: ((tmp_path / "new").write_text("x"), os.replace(tmp_path / "new", file))):
            woken.clear()
            change()  # type: ignore[no-untyped-call]
            assert woken.wait(20)
            time.sleep(0.3)
        woken.clear()
        file.read_text()
        (tmp_path / "other").write_text("x")
        assert not woken.wait(0.5)
    finally:
        made.reloader.close()
    # InotifyFD is watchdog's reader for all observers of a process: it may stay for the next one.
    wait_for(lambda: not [t for t in threading.enumerate() if t.name.startswith("Thread-") and t.is_alive() and t.daemon
                          and type(t).__name__ != "InotifyFD"])


def test_a_directory_that_cannot_be_watched(tmp_path: Path) -> None:
    """Is no reason to stop: the file is looked at from time to time."""
    made = Reloading(tmp_path / "none" / "c.toml", must=False)
    assert not made.reloader.watch(lambda: None)
    assert made.said[-1][0] == "debug"


# -- stages that follow ------------------------------------------------------------------------------------------------

def changing(ticks: Iterator[Tick], at: int, new: Config, *stages: Stage) -> Iterator[Tick]:
    """The ticks after the stages; before tick `at` the configuration changes."""
    pipeline = Pipeline(*stages)

    def source() -> Iterator[Tick]:
        for tick in ticks:
            if tick.row is not None and tick.row["seq"] == at:
                pipeline.configure(new)
            yield tick

    return pipeline.run(source())


def events(ticks: Iterator[Tick]) -> list[Any]:
    """(seq of the tick or None, kind, pid, reason) of every event record."""
    return [(tick.row["seq"] if tick.row else None, r["kind"], r["pid"], r.get("reason"))
            for tick in ticks for r in tick.records if r["type"] == "event"]


def burning(*pids: int) -> list[dict[str, Any]]:
    """Rows of processes that each burn a core."""
    return [row(pid, cpu_percent=100.0, state="running") for pid in pids]


def test_a_configuration_that_says_the_same_changes_nothing() -> None:
    """The same ticks, the same records."""
    same = config("[store]\nqueue_ticks = 7\n")
    made = changing(Machine(3).ticks(200), 100, same, Score(Config()), Track(Config()))
    for a, b in zip(made, chain(Machine(3).ticks(200), Score(Config()), Track(Config())), strict=True):
        assert (a.row, a.processes, a.records) == (b.row, b.processes, b.records)


def test_open_events_stay_open() -> None:
    """Bands, margins and the model's numbers change; an open event continues, with its peak and beginning."""
    rows = burning(7)
    new = config("[bands]\nhigh = 65\n[tracking]\nenter_s = 0.0\ncheckpoint_s = 0.5\n[scoring.share]\ntau_s = 2.0\n")
    ticks = list(changing(stream([rows] * 40), 20, new, Score(Config()), Track(at_once(Config()))))
    told = events(iter(ticks))
    assert told[0][1:] == ("enter", 7, None) and told[-1] == (None, "exit", 7, "stopped")
    assert {kind for _, kind, *_ in told} == {"enter", "checkpoint", "exit"}
    assert min(seq for seq, kind, *_ in told if kind == "checkpoint") >= 20
    records = [r for tick in ticks for r in tick.records]
    assert len({r["event"] for r in records}) == 1
    assert records[-1]["duration_s"] == pytest.approx(39 / 3, abs=0.01)
    # The low and high still look back over the ticks from before the change.
    first = next(r for r in records if r["kind"] == "checkpoint")
    assert "cpu_percent_low" in first


def test_a_higher_band_ends_what_is_below_it() -> None:
    """As a falling score would: after a rest as long as the event lasted."""
    new = config("[bands]\nelevated = 85\nhigh = 90\ncritical = 95\n")
    told = events(changing(stream([burning(7)] * 60), 20, new, Score(Config()), Track(at_once(Config()))))
    assert told[-1] == (20 + 18, "exit", 7, "below_threshold")


def test_a_process_that_is_gone_at_the_change() -> None:
    """Ends as exited, or replaced, and not as lost in a crash."""
    made = stream([burning(7, 8, 9)] * 20 + [[*burning(7), row(8, start=5000)]] * 10)
    new = config("[tracking]\nenter_s = 0.0\nexit_ticks = 10\n")
    told = events(changing(made, 20, new, Score(Config()), Track(at_once(Config()))))
    assert sorted(t[2:] for t in told if t[1] == "exit" and t[0] == 20) == [(8, "replaced"), (9, "exited")]
    assert (None, "exit", 7, "stopped") in told and not [t for t in told if t[3] == "crashed"]


def test_the_model_can_change() -> None:
    """From share to stress: every process is scored by the new one with the next tick, the idle ones too."""
    rows = [*burning(7), row(8, state="uninterruptible")]
    ticks = list(changing(stream([rows] * 6), 3, config('[scoring]\nmodel = "stress"\n'), Score(Config())))
    models = [{r["model"] for r in tick.processes.values()} for tick in ticks]
    assert models == [{"share"}] * 3 + [{"stress"}] * 3
    assert ticks[3].processes[8, 1000]["score"] == 40


def test_the_selection_can_change() -> None:
    """Another number of rogues; a state that is of interest now is found among those that do not change."""
    rows = [*burning(1, 2, 3), row(4, state="stopped")]
    new = config('[rogue_selection]\ntop = 1\nstates = ["stopped"]\n')
    ticks = list(changing(stream([rows] * 4), 1, new, Score(Config()), Track(at_once(Config()))))
    assert len(ticks[0].rogues) == 3
    picked = [key(r) for r in ticks[1].rogues.values()]
    assert len(picked) == 2 and (4, 1000) in picked
    assert ticks[-1].row is None and ticks[-1].rogues == {}
    assert [len(tick.recent) for tick in ticks] == [1, 2, 3, 4, 0]


def test_pauses_follow_their_settings() -> None:
    """A beat that is late by 2 s is a pause of the old limit and none of the new one."""
    late = {"late_s": 2.0, "interval_s": 2.33}
    stage = Pauses(Config().pause)
    made = list(stream([burning(1)] * 4, **late))
    assert [len(stage(tick).records) for tick in made[:2]] == [0, 1]
    stage.configure(config("[pause]\nlate_s = 3.0\n"))
    assert [len(stage(tick).records) for tick in made[2:]] == [0, 0]


# -- rh-pipe -----------------------------------------------------------------------------------------------------------

def said(log: Path, *words: str, seconds: float = 20) -> dict[str, Any]:
    """The last entry of the log that has all the words; waits for it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if log.exists():
            for line in reversed(log.read_bytes().split(b"\n")[:-1]):
                entry: dict[str, Any] = json.loads(line)
                if all(word in entry["message"] for word in words):
                    return entry
        time.sleep(0.02)
    raise AssertionError(f"the log does not say {words}: {log.read_text() if log.exists() else 'none'}")


@pytest.mark.slow
def test_rh_pipe_follows_its_file(spawn: Callable[..., subprocess.Popen[bytes]], burn: Callable[[], int],
                                  clean_env: Mapping[str, str], tmp_path: Path) -> None:
    """A changed file, a broken one, SIGHUP, and the end: one event of the loop through all of it, closed as stopped."""
    loop = burn()
    file, log, db = tmp_path / "c.toml", tmp_path / "pipe.log", tmp_path / "x.db"
    base = f'[log]\npath = "{log}"\n[store]\nstate_every_s = 0.1\n'
    file.write_text(base)
    run = spawn([sys.executable, "-P", "-m", "rogue_hunter", "pipe", "--quiet", "--no-socket", "--db", str(db),
                 "-c", str(file)], env=dict(clean_env), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said(log, "watching at 3 Hz")
    time.sleep(1.5)
    changed = time.time()
    file.write_text(base + "[system]\nhz = 8.0\n[tracking]\nenter_s = 0.0\ncheckpoint_s = 1.0\n")
    entry = said(log, "read again", "system.hz 3.0 -> 8.0")
    assert entry["ts"] - changed < 10  # within 2 s on a machine that is not overloaded
    new = tmp_path / "new"
    new.write_text("[bands\n")
    os.replace(new, file)
    assert said(log, "stays as it was")["level"] == "error"
    file.write_text(base + "[system]\nhz = 9.0\n")
    said(log, "hz 8.0 -> 9.0")
    run.send_signal(signal.SIGHUP)
    said(log, "nothing changed")
    time.sleep(0.5)
    run.send_signal(signal.SIGTERM)
    _, err = run.communicate(timeout=20)
    assert run.returncode == 0
    assert err.count(b"\n") == 1 and b"stays as it was" in err
    reader = open_reader(db)
    try:
        state = {k: json.loads(v) for k, v in reader.execute("SELECT key, value FROM daemon_state").fetchall()}
        rows = reader.execute(f"SELECT event, reason FROM process_events WHERE pid = {loop}").fetchall()
    finally:
        reader.close()
    assert [r["reason"] for r in rows] == ["stopped"]
    assert state["hz"] == 9.0 and state["config"] == {"file": str(file), "read_at": state["config"]["read_at"],
                                                      "error": None}
