"""The shipped rules and dashboard, by Prometheus' own programs: they are valid, they fire, and a pause of rh-pipe is found
by a query."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("prometheus_client")

from rogue_hunter.metrics import Metrics
from rogue_hunter.stream.tick import Tick
from tests.tools.ticks import closing, key, row

pytestmark = pytest.mark.waits

REPO = Path(__file__).resolve().parents[1]
RULES = REPO / "rogue_hunter/data/prometheus-rules.yml"
BOARD: dict[str, Any] = json.loads((REPO / "rogue_hunter/data/grafana-dashboard.json").read_text())
EXPRESSIONS = [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]

PROMTOOL = pytest.mark.skipif(shutil.which("promtool") is None, reason="RULES NOT TESTED: promtool is not installed "
                                                                       "(Debian: apt install prometheus)")


def plain(expression: str) -> str:
    """An expression with Grafana's variables replaced."""
    for name, value in (("$__rate_interval", "1m"), ("$__range", "1h"), ("$instance", ".*")):
        expression = expression.replace(name, value)
    return expression


def promtool(*words: str | Path) -> str:
    done = subprocess.run(["promtool", *map(str, words)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@PROMTOOL
def test_the_rules_are_valid_and_fire() -> None:
    """Each alert in its case, and not in the others."""
    assert "10 rules found" in promtool("check", "rules", RULES)
    promtool("test", "rules", REPO / "tests/fixtures/prometheus/alerts_test.yml")


@PROMTOOL
def test_the_page_is_what_promtool_takes_for_one(tmp_path: Path) -> None:
    done = subprocess.run(["promtool", "check", "metrics"], input=page(), capture_output=True, timeout=60, check=False)
    assert done.returncode in (0, 3), done.stderr     # 3: only remarks about names
    assert b"error" not in done.stderr.lower().replace(b"errors_total", b"")


def page() -> bytes:
    """A page with a sample of each metric."""
    metrics = Metrics()
    rows = [row(1, score=70, band="high")]
    who = {"boot_id": "b", "pid": 1, "start_ticks": 1, "rule": "r"}
    metrics.observe(Tick(closing(1, 1, self_cpu_percent=1.0, self_memory_bytes=1, max_score=70,
                                 pressure_io_full_ms_per_s=3.0), {key(each): each for each in rows}, scored={key(rows[0])},
                         records=[{"type": "match", "v": 1, "priority": "low", **who},
                                  {"type": "action", "v": 1, "outcome": "killed", **who}]))
    return metrics.render()


def test_every_metric_of_the_dashboard_and_of_the_rules_is_on_the_page() -> None:
    there = set(re.findall(rb"^(rogue_hunter_\w+)", page(), re.MULTILINE))
    for text in (*EXPRESSIONS, *re.findall(r"expr: (.*)", RULES.read_text())):
        named = set(re.findall(r"rogue_hunter_\w+", text))
        assert named and {name.encode() for name in named} <= there, text


def test_the_dashboard_is_whole() -> None:
    """Every panel has a title, a description and a place of its own; numbers are unique; no data source is built in."""
    panels = BOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) >= 12
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in panels]
    assert len(set(places)) == len(places)
    for panel in panels:
        assert panel["title"] and panel["description"] and panel["fieldConfig"]["defaults"]["unit"]
        assert {t["datasource"]["uid"] for t in panel["targets"]} == {"${datasource}"}


def test_they_are_printed(rh: Callable[..., subprocess.CompletedProcess[bytes]]) -> None:
    assert rh("metrics", "--print-rules").stdout == RULES.read_bytes()
    assert json.loads(rh("metrics", "--print-dashboard").stdout) == BOARD


# -- a real Prometheus -------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


class Prometheus:
    """A server with the shipped rules that scrapes a port each second."""

    def __init__(self, spawn: Callable[..., Any], place: Path, target: int) -> None:
        self._port = free_port()
        (place / "prometheus.yml").write_text(
            "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
            f"rule_files: ['{RULES}']\n"
            f"scrape_configs: [{{job_name: rogue-hunter, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}]\n")
        spawn(["prometheus", f"--config.file={place}/prometheus.yml", f"--storage.tsdb.path={place}/data",
               f"--web.listen-address=127.0.0.1:{self._port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ask(self, expression: str) -> list[Any]:
        """The result of a query; fails for one that Prometheus refuses."""
        url = f"http://127.0.0.1:{self._port}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=10) as answer:
            found = json.loads(answer.read())
        assert found["status"] == "success", found
        result: list[Any] = found["data"]["result"]
        return result

    def value(self, expression: str) -> float | None:
        """The value of a query with one result; None without one, or while nothing answers."""
        try:
            found = self.ask(expression)
        except OSError:
            return None
        return float(found[0]["value"][1]) if found else None

    def wait(self, expression: str, good: Callable[[float], bool], seconds: float = 60.0) -> float:
        deadline = time.monotonic() + seconds
        while (value := self.value(expression)) is None or not good(value):
            assert time.monotonic() < deadline, f"{expression}: {value}"
            time.sleep(0.2)
        return value


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short name."""
    made = Path(tempfile.mkdtemp(prefix="rh-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="NO QUERY TESTED: prometheus is not installed (Debian: apt "
                                                               "install prometheus)")
def test_a_pause_of_two_seconds_is_found_by_a_query(spawn: Callable[..., Any], clean_env: Mapping[str, str], place: Path,
                                                    ) -> None:
    """rh-pipe is stopped for two seconds, between two scrapes or not; every panel and rule is a query that works."""
    port = free_port()
    (place / "rules.toml").write_text(f"[metrics]\nenabled = true\nhttp_port = {port}\n")
    pipe = spawn([sys.executable, "-P", "-m", "rogue_hunter", "pipe", "-q", "-c", place / "rules.toml", "--db", place / "x.db",
                  "--no-socket"], env=dict(clean_env), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    server = Prometheus(spawn, place, port)
    server.wait("rogue_hunter_ticks_total", lambda ticks: ticks > 3)
    before = server.wait("sum(rogue_hunter_pause_seconds_total)", lambda _: True)
    pipe.send_signal(signal.SIGSTOP)
    time.sleep(2.0)     # the machine's own clock is what is tested
    pipe.send_signal(signal.SIGCONT)
    server.wait("sum(rogue_hunter_pause_seconds_total)", lambda s: s > before)
    found = server.wait("sum(increase(rogue_hunter_pause_seconds_total[30s]))", lambda seconds: seconds > 1.5)
    assert found < 20
    assert server.wait('rogue_hunter_pauses_total{cause="stopped"}', lambda count: count >= 1)
    for expression in EXPRESSIONS:
        server.ask(plain(expression))
    assert server.wait("rogue_hunter:pressure_ratio:rate5m >= 0 or vector(0)", lambda _: True) >= 0
