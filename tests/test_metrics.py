"""Prometheus text: what is counted, what has no sample, who may ask."""

from __future__ import annotations

import http.client
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("prometheus_client")

from prometheus_client.parser import text_string_to_metric_families

from rogue_hunter.metrics import Metrics, Server, write_textfile
from rogue_hunter.stream.tick import Tick

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(page: bytes) -> Samples:
    """Name and labels -> value, read by Prometheus' own parser."""
    return {(s.name.removeprefix("rogue_hunter_"), tuple(sorted(s.labels.items()))): s.value
            for family in text_string_to_metric_families(page.decode()) for s in family.samples
            if not s.name.endswith("_created")}


def match(pid: int, **more: Any) -> dict[str, Any]:
    return {"type": "match", "v": 1, "boot_id": "b", "pid": pid, "start_ticks": 7, "rule": "loop",
            "priority": "critical", "command": 'x"\n{}', **more}


def closing(processes: int, **more: Any) -> dict[str, Any]:
    return {"processes": processes, "active": 2, "unreadable": 0, "errors": 0, "late_s": 0.25, **more}


def test_the_metrics_of_the_specification() -> None:
    m = Metrics(clock=iter([float(i) for i in range(100)]).__next__)
    m.observe(Tick(closing(3), {(1, 7): {}, (2, 7): {}, (3, 7): {}},
                   records=[match(1), match(2), match(3, rule="old", priority="low")]))
    m.observe(Tick(records=[{**match(1), "type": "action", "outcome": "killed", "cpu_recovered_percent": 99.5},
                            {**match(9), "type": "action", "outcome": "refused"}]))
    found = samples(m.render())
    assert found["processes_monitored", ()] == 3
    assert found["rogue_processes_detected", (("priority", "critical"),)] == 1
    assert found["rogue_processes_detected", (("priority", "low"),)] == 1
    assert found["rogue_processes_detected", (("priority", "high"),)] == 0
    assert found["processes_killed_total", ()] == 1 and found["cpu_recovered_percent_total", ()] == 99.5
    assert found["actions_total", (("outcome", "refused"), ("rule", "loop"))] == 1
    assert found["matches_total", (("priority", "critical"), ("rule", "loop"))] == 2
    assert found["ticks_total", ()] == 1 and found["uptime_seconds", ()] > 0


def test_no_name_that_a_process_chose_is_in_the_page() -> None:
    m = Metrics()
    m.observe(Tick(records=[match(4242, command="secret-name"),
                            {**match(4242), "type": "action", "outcome": "killed", "command": "secret-name"}]))
    page = m.render()
    assert b"secret-name" not in page and b'"4242"' not in page     # times may hold these digits


def test_unknown_has_no_sample_and_zero_has_one() -> None:
    m = Metrics()
    assert not any(name.startswith("cpu_busy") for name, _ in samples(m.render()))
    m.observe(Tick(closing(1, cpu_busy_cores=0.0, pressure_io_full_ms_per_s=250.0), {(1, 7): {}}))
    found = samples(m.render())
    assert found["cpu_busy_cores", ()] == 0.0 and ("memory_available_bytes", ()) not in found
    assert found["pressure_ratio", (("kind", "full"), ("resource", "io"))] == 0.25
    assert found["tick_late_seconds", ()] == 0.25


def test_bands_and_pauses() -> None:
    m = Metrics()
    rows = {(1, 7): {"band": "high"}, (2, 7): {"band": "low"}, (3, 7): {"band": "high"}}
    m.observe(Tick(closing(3), rows, scored=set(rows),
                   records=[{"type": "pause", "cause": "io", "duration_s": 2.5}, {"type": "error", "message": "x"}]))
    found = samples(m.render())
    assert found["processes_in_band", (("band", "high"),)] == 2
    assert found["pauses_total", (("cause", "io"),)] == 1 and found["pause_seconds_total", (("cause", "io"),)] == 2.5
    assert found["errors_total", ()] == 1


def test_pressure_of_a_newer_version_is_left_out() -> None:
    """A field of another form ends neither the counting nor the page."""
    metrics = Metrics()
    metrics.observe(Tick(closing(1, pressure_level="high", pressure_irq_full_ms_per_s=3.0, interval_s=1.0)))
    assert ("ticks_total", ()) in samples(metrics.render())


def test_a_count_of_errors_that_is_below_nothing() -> None:
    """Any program can write records into the pipe; a counter never falls."""
    metrics = Metrics()
    metrics.observe(Tick(closing(3, errors=-5)))
    metrics.observe(Tick(closing(3, errors=2)))
    assert b"rogue_hunter_errors_total 2.0" in metrics.render()


def test_a_rogue_that_exited_or_was_not_repeated_is_not_counted() -> None:
    now = [0.0]
    m = Metrics(clock=lambda: now[0])
    detected = ("rogue_processes_detected", (("priority", "critical"),))
    m.observe(Tick(closing(2), {(1, 7): {}, (2, 7): {}}, records=[match(1), match(2)]))
    m.observe(Tick(closing(5), {(1, 7): {}}))  # rows were left out: no process has exited
    assert samples(m.render())[detected] == 2
    m.observe(Tick(closing(1), {(1, 7): {}}))
    assert samples(m.render())[detected] == 1
    now[0] = 200
    assert samples(m.render())[detected] == 0
    tick = Tick()
    assert m(tick) is tick


@pytest.fixture
def server() -> Iterator[Server]:
    served = Server(Metrics(), port=0)
    served.start()
    yield served
    served.close()


def ask(server: Server, path: str = "/metrics", method: str = "GET", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_the_page_is_for_this_machine_only(server: Server) -> None:
    status, body = ask(server)
    assert status == 200 and b"# TYPE rogue_hunter_processes_killed_total counter" in body
    assert ask(server, "/metrics?x=1", Host="localhost:9090")[0] == 200
    assert ask(server, "/")[0] == 404
    for host in ("evil.example", "evil.example:9090", "127.0.0.1.evil.example", "localhost.evil.example:80", "[::1",
                 "127.0.0.1@evil.example", "localhost, evil.example", "0.0.0.0", "2130706433", "", "evil:127.0.0.1"):
        status, body = ask(server, Host=host)   # a page of that name was made to point here (DNS rebinding)
        assert (status, b"rogue_hunter_" in body) == (403, False), host
    assert ask(server, method="POST")[0] == 501
    assert server._http.server_address[0] == "127.0.0.1"


def test_a_port_that_is_taken_is_an_error(server: Server) -> None:
    with pytest.raises(OSError, match="in use"):
        Server(Metrics(), port=server.port)


def test_a_silent_client_does_not_delay_others(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as silent:
        silent.send(b"GET /me")
        assert ask(server)[0] == 200


def test_a_client_that_goes_away_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Its answer cannot be sent, and nothing is printed on standard error."""
    gone, rendered = threading.Event(), threading.Event()

    class Slow:
        def render(self) -> bytes:
            assert gone.wait(30)
            rendered.set()
            return b"x" * (1 << 22)

    served = Server(Slow(), port=0)
    served.start()
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    gone.set()
    assert rendered.wait(30)
    for thread in [each for each in threading.enumerate() if "process_request" in each.name]:
        thread.join(30)
    served.close()
    assert capsys.readouterr().err == ""


def test_the_file_is_written_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "rogue.prom"
    write_textfile(Metrics(), path)
    assert b"rogue_hunter_ticks_total 0.0" in path.read_bytes() and path.stat().st_mode & 0o777 == 0o644
    assert [p.name for p in tmp_path.iterdir()] == ["rogue.prom"]
    with pytest.raises(OSError, match="No such file"):
        write_textfile(Metrics(), tmp_path / "none" / "rogue.prom")


def test_the_library_is_imported_when_it_is_needed() -> None:
    code = "import sys, rogue_hunter.metrics; assert 'prometheus_client' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
