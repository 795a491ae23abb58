"""rh-metrics as people run it: a page of a pipe or of the database, printed, served or written to a file."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("prometheus_client")

from prometheus_client.parser import text_string_to_metric_families

from rogue_hunter.config.options import Store
from rogue_hunter.report.metrics_page import recorded
from rogue_hunter.store.database import DatabaseError
from rogue_hunter.store.writer import Writer
from rogue_hunter.stream import wire
from rogue_hunter.stream.tick import Tick, record
from tests.store.test_rows_reap import a_match, an_action
from tests.tools.reports import hog, record_run, seconds, ticks_of
from tests.tools.ticks import START, closing, key, row

Rh = Callable[..., "subprocess.CompletedProcess[bytes]"]
Samples = dict[str, float]


def samples(page: bytes) -> Samples:
    """`name{label="value"}` without the prefix -> value, read by Prometheus' own parser."""
    return {s.name.removeprefix("rogue_hunter_") + "".join(f"[{v}]" for _, v in sorted(s.labels.items())): s.value
            for family in text_string_to_metric_families(page.decode()) for s in family.samples
            if not s.name.endswith("_created")}


def piped() -> bytes:
    """A tick with a match, and an action after it."""
    rows = [row(4000, score=72, band="high"), row(4001)]
    tick = Tick(closing(0, 2, max_score=72), {key(each): each for each in rows}, records=[a_match(start_ticks=1000)])
    return wire.Encoder().tick(tick) + b"".join(wire.dumps(each) + b"\n" for each in (
        an_action(pid=4002, cpu_recovered_percent=98.5), record("pause", cause="io", duration_s=1.5)))


def test_a_pipe_is_printed_at_its_end(rh: Rh) -> None:
    done = rh("metrics", stdin=piped())
    found = samples(done.stdout)
    assert done.returncode == 0 and done.stderr == b""
    assert found["processes_monitored"] == 2 and found["max_score"] == 72 and found["processes_in_band[high]"] == 1
    assert found["rogue_processes_detected[critical]"] == 1 and found["matches_total[critical][infinite_loop]"] == 1
    assert found["actions_total[killed][infinite_loop]"] == 1 and found["processes_killed_total"] == 1
    assert found["cpu_recovered_percent_total"] == 98.5 and found["pause_seconds_total[io]"] == 1.5
    assert not [name for name in found if {"4000", "4001", "loop"} & set(re.findall(r"\[(.*?)\]", name))]     # no label is of a process


def test_what_is_no_record_is_counted(rh: Rh) -> None:
    """Anybody can write into a pipe: a wrong match or action is an error, not the end."""
    wrong = [{"type": "match", "v": 1, "boot_id": [1], "pid": 1, "start_ticks": 1, "rule": "x", "priority": "low"},
             {"type": "action", "v": 1, "rule": 7, "outcome": "killed"}, {"type": "pause", "v": 1, "duration_s": "x"}]
    done = rh("metrics", stdin=b"no json\n" + b"".join(json.dumps(each).encode() + b"\n" for each in wrong))
    found = samples(done.stdout)
    assert done.returncode == 65 and found["errors_total"] == 4 and found["processes_killed_total"] == 0


def test_a_file_is_written_in_one_step(rh: Rh, tmp_path: Path) -> None:
    file = tmp_path / "x.prom"
    done = rh("metrics", "--textfile", file, stdin=piped())
    assert (done.returncode, done.stdout) == (0, b"") and samples(file.read_bytes())["ticks_total"] == 1
    assert file.stat().st_mode & 0o777 == 0o644 and os.listdir(tmp_path) == ["x.prom"]
    assert rh("metrics", "--textfile", tmp_path / "no" / "x.prom", stdin=piped()).returncode == 74


@pytest.mark.parametrize("address", ["0.0.0.0:9090", "::1:9090", "example.org:80", "127.0.0.1", "127.0.0.1:x",
                                     "127.0.0.1:70000", "192.168.1.1:1"])
def test_only_this_machine_is_served(rh: Rh, address: str) -> None:
    done = rh("metrics", "--serve", address, stdin=piped())
    assert (done.returncode, done.stdout) == (2, b"") and address.encode() in done.stderr


def started(spawn: Callable[..., subprocess.Popen[bytes]], env: Mapping[str, str], *words: str | Path,
            **options: Any) -> tuple[subprocess.Popen[bytes], int]:
    """A serving rh-metrics and its port."""
    process = spawn([sys.executable, "-P", "-m", "rogue_hunter", "metrics", "--serve", "127.0.0.1:0", *words],
                    env=dict(env), stderr=subprocess.PIPE, **options)
    assert process.stderr is not None
    found = re.search(rb"127\.0\.0\.1:([0-9]+)/", process.stderr.readline())
    assert found is not None
    return process, int(found.group(1))


def get(port: int, path: str = "/metrics") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_pipe_is_served_while_it_lasts(spawn: Callable[..., subprocess.Popen[bytes]],
                                         clean_env: Mapping[str, str]) -> None:
    process, port = started(spawn, clean_env, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(piped())
    process.stdin.flush()
    deadline = time.monotonic() + 20
    while samples(get(port)[1]).get("ticks_total") != 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert samples(get(port)[1])["processes_monitored"] == 2 and get(port, "/other")[0] == 404
    process.stdin.close()
    assert process.wait(20) == 0


@pytest.fixture
def database(tmp_path: Path) -> tuple[Path, float]:
    """A database with events, a match and actions, and the time of its last tick."""
    path = tmp_path / "x.db"
    last = record_run(path, ticks_of(20, seconds(0, 30, hog(4000, 72))), crash=True)
    writer = Writer(path, Store(), lambda: last, lambda _: None)
    writer.take(Tick(records=[a_match(last - 10), a_match(last - 5000, pid=4001), an_action(cpu_recovered_percent=50.0),
                              an_action(audit_seq=4, outcome="refused")]))
    writer.close()
    return path, last


def test_the_page_of_a_database(database: tuple[Path, float]) -> None:
    """Levels of the last tick while it is recent, and all that was counted; only a match that lasts is one now."""
    path, last = database
    found = samples(recorded(path, last + 10))
    assert found["processes_monitored"] == 2 and found["ticks_total"] == 61
    assert found["uptime_seconds"] == pytest.approx(last + 10 - START)
    assert found["actions_total[killed][infinite_loop]"] == 1 and found["actions_total[refused][infinite_loop]"] == 1
    assert found["matches_total[critical][infinite_loop]"] == 2 and found["cpu_recovered_percent_total"] == 50
    later = samples(recorded(path, last + 1000))
    assert "processes_monitored" not in later and later["ticks_total"] == 61
    with pytest.raises(DatabaseError):
        recorded(path.with_name("none.db"))


def test_rogues_of_a_database_are_those_of_now(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    now = time.time()
    writer = Writer(path, Store(), lambda: now, lambda _: None)
    writer.take(Tick(records=[a_match(now - 30), a_match(now - 600, pid=4001)]))
    writer.close()
    assert samples(recorded(path, now))["rogue_processes_detected[critical]"] == 1


@pytest.mark.slow
def test_without_a_pipe_the_database_is_read(rh: Rh, clean_env: Mapping[str, str], database: tuple[Path, float],
                                             spawn: Callable[..., subprocess.Popen[bytes]]) -> None:
    """Printed and served; --db names the database, with any standard input. A missing database is 503."""
    path, _ = database
    assert samples(rh("metrics", "--db", path, stdin=piped()).stdout)["ticks_total"] == 61
    config = path.with_name("c.toml")
    config.write_text(f'[store]\npath = "{path}"\n')
    unpiped = subprocess.run([sys.executable, "-P", "-m", "rogue_hunter", "metrics", "-c", config], env=dict(clean_env),
                             stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    assert samples(unpiped.stdout)["ticks_total"] == 61
    process, port = started(spawn, clean_env, "--db", path, "--path", "/m", stdin=subprocess.DEVNULL)
    status, page = get(port, "/m")
    assert status == 200 and samples(page)["ticks_total"] == 61
    path.rename(path.with_name("away.db"))
    assert get(port, "/m")[0] == 503
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert rh("metrics", "--db", path.with_name("none.db")).returncode == 69
