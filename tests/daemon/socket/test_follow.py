"""rh-tail: whole ticks only, through ends and new beginnings of rh-pipe; what the database has; the picture."""

from __future__ import annotations

import io
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tty
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.config.options import Store
from rogue_hunter.daemon.socket.address import SocketError
from rogue_hunter.daemon.socket.client import Output, Quit, follow, identity, since, stored, whole
from rogue_hunter.report.live_view import View
from rogue_hunter.store.database import open_reader
from rogue_hunter.store.writer import Writer
from rogue_hunter.stream import wire
from rogue_hunter.text.format import columns
from tests.tools.sockets import ticks
from tests.tools.ticks import lines

pytestmark = pytest.mark.waits

Spawn = Callable[..., "subprocess.Popen[bytes]"]


# -- whole ticks ----------------------------------------------------------------------------------

def test_half_a_tick_is_not_passed_on() -> None:
    """Rows without their closing row are dropped, wherever the stream breaks; everything else comes through."""
    made = list(ticks(8))
    data = lines(made).splitlines(keepends=True)
    assert b"".join(b"".join(batch) for batch in whole(iter(data))) == b"".join(data)
    state = b'{"type":"initial_state","v":1}\n'
    for cut in range(len(data)):
        got = [batch for batch in whole(iter([*data[:cut], state, *data])) if batch]
        text = b"".join(b"".join(batch) for batch in got)
        before, after = text.split(state)
        assert after == b"".join(data)
        closed = [n for n, line in enumerate(data[:cut]) if b'"type":"tick"' in line]
        assert before.startswith(b"".join(data[: closed[-1] + 1] if closed else []))
        assert before.count(b'"type":"process"') == sum(
            b'"type":"process"' in line for line in data[: closed[-1] + 1 if closed else 0])


class Pipe:
    """Connections that are served one after the other, and waits that are written down."""

    def __init__(self, *served: bytes | SocketError) -> None:
        self.served = list(served)
        self.waits: list[float] = []
        self.said: list[str] = []

    def connect(self, _path: Path) -> socket.socket:
        """The next connection, or the next failure; at the end of them, StopIteration is near."""
        if not self.served:
            raise KeyboardInterrupt
        what = self.served.pop(0)
        if isinstance(what, SocketError):
            raise what
        ours, theirs = socket.socketpair()
        theirs.sendall(what)
        theirs.close()
        return ours

    def wait(self, connection: socket.socket | None, seconds: float | None) -> bool:
        """Never waits."""
        if connection is None:
            assert seconds is not None
            self.waits.append(seconds)
            return False
        return True

    def run(self, again: bool = True) -> list[list[bytes]]:
        """Everything that follow gives until the connections are used up."""
        got: list[list[bytes]] = []
        try:
            for batch in follow(Path("/s"), self.wait, self.said.append, again, self.connect):
                got.append(batch)
        except KeyboardInterrupt:
            pass
        return got


NOBODY = SocketError("/s: no rh-pipe serves it", 69)


def test_delay_grows_to_1500_ms_and_is_reset_by_a_connection() -> None:
    """Twice as long each time; reported once; a connection that gave something resets the wait."""
    pipe = Pipe(*[NOBODY] * 5, b'{"type":"initial_state","v":1}\n', NOBODY, b"")
    got = pipe.run()
    assert pipe.waits == [0.5, 1, 1.5, 1.5, 1.5, 0.5, 1, 1.5]
    assert [batch for batch in got if batch] == [[b'{"type":"initial_state","v":1}\n']]
    assert len([s for s in pipe.said if "no rh-pipe" in s]) == 1
    assert "connected" in pipe.said and "rh-pipe ended; connecting again" in pipe.said


def test_a_cut_tick_at_the_end_of_a_connection() -> None:
    """The next connection begins with whole ticks again."""
    data = lines(list(ticks(3)))
    got = Pipe(data[: len(data) // 2], data).run()
    text = b"".join(b"".join(batch) for batch in got)
    assert text.endswith(data)
    assert text[: -len(data)].endswith(b"\n") and data.startswith(text[: -len(data)])


def test_what_cannot_be_mended_ends_it() -> None:
    """A socket of another user; and no server, without --wait."""
    with pytest.raises(SocketError):
        Pipe(SocketError("another user's", 74)).run()
    with pytest.raises(SocketError):
        Pipe(NOBODY).run(again=False)
    assert Pipe(b'{"type":"x","v":1}\n').run(again=False) == [[b'{"type":"x","v":1}\n']]


def test_a_line_without_end_is_not_held() -> None:
    """Memory is bounded, whichever program serves the socket."""
    ours, theirs = socket.socketpair()

    def receive() -> bytes:
        return b"x" * 65536

    from rogue_hunter.daemon.socket.client import lines_of

    with pytest.raises(SocketError, match="endless"):
        next(lines_of(receive))
    ours.close()
    theirs.close()


def test_lines_of_many_pieces_are_put_together() -> None:
    """However the bytes are cut, the lines are the same."""
    from rogue_hunter.daemon.socket.client import lines_of

    data = b"one\n" + b"x" * 1000 + b"\n\ntwo\nnot complete"
    for step in (1, 3, 7, 1000, 5000):
        pieces = iter([data[i:i + step] for i in range(0, len(data), step)])
        assert list(lines_of(lambda pieces=pieces: next(pieces, b""))) == [b"one\n", b"x" * 1000 + b"\n", b"\n", b"two\n"]  # type: ignore[misc]


def test_the_reader_goes_away_while_we_wait() -> None:
    """Nothing is written while rh-pipe does not run, so a closed pipe has to be looked for."""
    reading, writing = os.pipe()
    out = Output(writing)
    assert out.wait(None, 0.0) is False
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        out.wait(None, 30)
    os.close(writing)


def test_only_the_key_q_ends_the_wait() -> None:
    """Other keys are ignored, also while a connection is waited for; a terminal that is gone is not asked again."""
    ours, keys = os.openpty()
    tty.setcbreak(keys)
    out = Output(None, keys)
    os.write(ours, b"xyz/")
    assert out.wait(None, 0.01) is False
    here, there = socket.socketpair()
    os.write(ours, b"k")
    there.sendall(b"x")
    assert out.wait(here, 5.0) is True
    os.write(ours, b"zq")
    with pytest.raises(Quit):
        out.wait(here if here.recv(1) else None, 5.0)
    os.close(ours)
    assert out.wait(None, 0.01) is False
    for one in (here, there):
        one.close()
    os.close(keys)


# -- the database ----------------------------------------------------------------------------------

def test_stored_events_come_back_as_they_were(tmp_path: Path) -> None:
    """Every record of the stream but the peaks that were replaced, equal in every field."""
    made = list(ticks(150))
    records = [r for tick in made for r in tick.records]
    writer = Writer(tmp_path / "x.db", Store(), lambda: 0.0, lambda message: None)
    for tick in made:
        writer.take(tick)
    writer.close()
    reader = open_reader(tmp_path / "x.db")
    back = list(since(reader, 0.0))
    later = list(since(reader, records[len(records) // 2]["ts"]))
    reader.close()
    by_key = {(r["event"], r["kind"], r["ts"]): r for r in records}
    missing = set(by_key) - {(r["event"], r["kind"], r["ts"]) for r in back}
    assert all(kind == "peak" for _, kind, _ in missing) and len(back) > 20
    highest = {r["event"]: (r["peak_score"], r["peak_band"]) for r in records}
    for record in back:
        wire.check("event", {k: v for k, v in record.items() if k not in ("type", "v")})
        was = {**by_key[record["event"], record["kind"], record["ts"]]}
        # The row of an event holds its highest peak, not the highest so far.
        was["peak_score"], was["peak_band"] = highest[record["event"]]
        assert record.pop("duration_s") == pytest.approx(was.pop("duration_s"), abs=0.001)
        assert record == was
    assert [r["ts"] for r in back] == sorted(r["ts"] for r in back)
    assert 0 < len(later) < len(back)


# -- the picture ----------------------------------------------------------------------------------

def batches(made: list[Any]) -> Iterator[list[bytes]]:
    """Ticks as rh-tail gets them."""
    return whole(iter(lines(made).splitlines(keepends=True)))


@pytest.mark.parametrize(("width", "height"), [(100, 24), (40, 8), (20, 3), (10, 1), (1, 1), (300, 100)])
def test_the_picture_fits(width: int, height: int) -> None:
    """For any terminal and any process name; no control character gets through."""
    view = View()
    for batch in batches(list(ticks(60))):
        view.take(batch)
        drawn = view.lines(width, height, False)
        assert len(drawn) <= height
        assert all(columns(line) <= width for line in drawn)
        assert not [c for line in drawn for c in line if ord(c) < 32 or 0x7F <= ord(c) < 0xA0]
    assert view.ticks == 60


def test_the_picture_shows_the_current_state() -> None:
    """The history from before we came, the machine, each rogue with its trend, what begins and ends."""
    view = View()
    assert view.lines(80, 24, False)[0] == "waiting for the first tick"
    view.take([json.dumps({"type": "initial_state", "v": 1, "history": [{"ts": 1.0, "max_score": 50}] * 10,
                           "slowed": 2, "degraded": "full"}).encode() + b"\n"])
    for batch in batches(list(ticks(40))):
        view.take(batch)
    drawn = view.lines(160, 30, False)
    assert "CPUs busy" in drawn[0] and "slowed to 1/2" in drawn[0] and "DEGRADED" in drawn[0]
    for width in (60, 40):      # whole facts, what is wrong first
        assert "…" not in (first := view.lines(width, 30, False)[0]) and "DEGRADED" in first
    assert drawn[1].startswith("highest") and "▄" in drawn[1]
    assert "SCORE" in drawn[2] and "was still active when rh-pipe stopped after" in "\n".join(drawn)
    view.take([b'{"type":"pause","v":1,"ts":1.0,"start":1.0,"end":3.5,"duration_s":2.5,"cause":"cpu",'
               b'"culprits":[{"pid":7,"resource":"cpu","amount":2.0,"share":0.9,"command":"cc1\\u001b[2J"}]}\n'])
    view.take([b'{"type":"dropped","v":1,"ticks":4,"total":4}\n'])
    text = "\n".join(view.lines(160, 30, False))
    assert "PAUSE of 2.5s for want of cpu: cc1\\x1b[2J (pid 7)" in text and "4 ticks left out" in text
    view.note = "gone"
    assert view.lines(80, 24, False)[0] == "gone"


@pytest.mark.parametrize(("width", "least"), [(200, 24), (80, 24), (60, 24), (40, 20), (24, 12)])
def test_the_command_line_has_room(width: int, least: int) -> None:
    """Other columns are left out for it, the trend and the user first; the program's name comes without its directory."""
    view = View()
    tick = next(iter(ticks(1)))
    row = {**next(iter(tick.processes.values())), "cmdline": "/a/very/long/directory/of/a/program/backup.py --all " * 3, "command": "backup.py"}
    view.take([wire.dumps({"type": "process", "v": 1, **row}), wire.dumps({"type": "tick", "v": 1, **(tick.row or {})})])
    heads, line = view.lines(width, 24, False)[2:4]
    at = heads.index("COMMAND")
    assert width - at >= least and line[at:].startswith("backup.py --all"[:least - 2])
    assert ("TREND" in heads) == (width > 80) and "CPU%" in heads


def test_the_log_has_the_lines_that_the_table_leaves() -> None:
    view = View()
    tick = next(iter(ticks(1)))
    view.take([*(wire.dumps({"type": "process", "v": 1, **row}) for row in list(tick.processes.values())[:3]),
               wire.dumps({"type": "tick", "v": 1, **(tick.row or {})})])
    for n in range(60):
        view.take([wire.dumps({"type": "error", "v": 1, "stage": "s", "message": f"m{n}"})])
    drawn = view.lines(100, 50, False)
    assert len(drawn) == 50 and drawn[-1].endswith("m59") and sum(": m" in one for one in drawn) > 25
    view.note = "gone"
    assert all(one.startswith("\x1b[2m") for one in view.lines(100, 50, True)[1:])


def test_colours_only_when_asked() -> None:
    """And then around whole lines."""
    view = View()
    for batch in batches(list(ticks(40))):
        view.take(batch)
    assert any(line.startswith("\x1b[") and line.endswith("\x1b[0m") for line in view.lines(100, 24, True))
    assert not any("\x1b" in line for line in view.lines(100, 24, False))


# -- the command ----------------------------------------------------------------------------------

@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short name."""
    made = Path(tempfile.mkdtemp(prefix="rh-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def run(spawn: Spawn, clean_env: Mapping[str, str], place: Path) -> Callable[..., subprocess.Popen[bytes]]:
    """Start rh-pipe or rh-tail on one socket and one database."""
    def start(name: str, *args: str, **options: Any) -> subprocess.Popen[bytes]:
        env = {**clean_env, **options.pop("env", {})}
        return spawn([sys.executable, "-P", "-m", "rogue_hunter", name, "--socket", str(place / "run" / "s"),
                      "--db", str(place / "x.db"), *args], env=env,
                     stdin=options.pop("stdin", subprocess.DEVNULL), stdout=options.pop("stdout", subprocess.PIPE), stderr=subprocess.PIPE, **options)
    return start


def line_of(process: subprocess.Popen[bytes], kind: str) -> dict[str, Any]:
    """The next line of this type that a process prints."""
    assert process.stdout is not None
    while line := process.stdout.readline():
        found: dict[str, Any] = json.loads(line)
        if found["type"] == kind:
            return found
    raise AssertionError(f"no {kind}; {process.stderr.read().decode() if process.stderr else ''}")


@pytest.mark.slow
def test_follow_a_pipe_through_its_death(run: Callable[..., subprocess.Popen[bytes]]) -> None:
    """Three scores; rh-pipe is killed and started again, and rh-tail continues by itself; a second rh-pipe is refused
    and the first does not notice."""
    tail = run("tail", "--type", "initial_state", "--type", "tick")
    first = run("pipe", "--quiet")
    assert line_of(tail, "initial_state")["pid"] == first.pid
    count = run("tail", "-n", "3", "--type", "tick")
    out, _ = count.communicate(timeout=60)
    assert count.returncode == 0
    assert [type(json.loads(line)["max_score"]) for line in out.splitlines()] == [int] * 3
    second = run("pipe", "--quiet")
    _, err = second.communicate(timeout=60)
    assert second.returncode == 69 and str(first.pid).encode() in err
    assert line_of(tail, "tick")["type"] == "tick" and first.poll() is None
    first.kill()
    first.wait(20)
    third = run("pipe", "--quiet")
    assert line_of(tail, "initial_state")["pid"] == third.pid
    assert line_of(tail, "tick")
    tail.send_signal(signal.SIGINT)
    tail.communicate(timeout=20)
    assert tail.returncode == 130
    third.send_signal(signal.SIGTERM)
    third.communicate(timeout=20)
    assert third.returncode == 0


@pytest.mark.slow
def test_hostile_clients_of_a_real_pipe(run: Callable[..., subprocess.Popen[bytes]], place: Path) -> None:
    """One that never reads, a hundred that vanish, one that sends ten megabytes: the others get every tick."""
    pipe = run("pipe", "--quiet", "--hz", "10")
    tail = run("tail", "--type", "tick", "--type", "dropped")
    first = line_of(tail, "tick")["seq"]
    clients = []
    for _ in range(100):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(place / "run" / "s"))
        client.sendall(b'{"type":"log"')
        client.close()
    for _ in range(2):
        clients.append(socket.socket(socket.AF_UNIX))
        clients[-1].connect(str(place / "run" / "s"))
    with pytest.raises(OSError):
        clients[1].settimeout(20)
        for _ in range(160):
            clients[1].sendall(b"x" * 65536)
    seen = [line_of(tail, "tick")["seq"] for _ in range(40)]
    assert seen == list(range(first + 1, first + 41))
    assert pipe.poll() is None
    for client in clients:
        client.close()


def test_no_rh_pipe_is_running(run: Callable[..., subprocess.Popen[bytes]]) -> None:
    """--no-wait: 69. Else it waits, and ends quietly with its reader."""
    tail = run("tail", "--no-wait")
    out, err = tail.communicate(timeout=30)
    assert (tail.returncode, out) == (69, b"") and err.count(b"\n") == 1
    reading, writing = os.pipe()
    tail = run("tail", stdout=writing)
    os.close(writing)
    assert tail.stderr is not None
    assert b"trying again" in tail.stderr.readline()
    os.close(reading)
    assert tail.wait(20) == 141


@pytest.mark.slow
def test_since_comes_first_and_nothing_twice(run: Callable[..., subprocess.Popen[bytes]], burn: Callable[[], int]) -> None:
    """The event that the database has, then the stream."""
    burn()
    done = run("pipe", "--quiet", "--for", "4s")
    done.communicate(timeout=60)
    pipe = run("pipe", "--quiet")
    tail = run("tail", "--since", "1h", "-n", "15", "--type", "event", "--type", "tick")
    out, _ = tail.communicate(timeout=60)
    both = [json.loads(line) for line in out.splitlines()]
    assert (both[0]["type"], both[-1]["type"], sum(r["type"] == "tick" for r in both)) == ("event", "tick", 15)
    events = [(r["event"], r["kind"], r["ts"]) for r in both if r["type"] == "event"]
    assert len(set(events)) == len(events)
    pipe.send_signal(signal.SIGTERM)
    pipe.communicate(timeout=20)
    again = run("tail", "--no-wait", "--since", "1h", "--type", "event")
    out, _ = again.communicate(timeout=60)
    found = [json.loads(line) for line in out.splitlines()]
    assert again.returncode == 69
    # Beside other busy processes of this test run the event is that of the unit.
    kinds = [(r["kind"], r.get("reason")) for r in found]
    assert kinds[0] == ("enter", None) and kinds.count(("exit", "stopped")) >= 2
    assert len({(r["event"], r["kind"], r["ts"]) for r in found}) == len(found)


@pytest.mark.slow
def test_the_table_on_a_terminal(run: Callable[..., subprocess.Popen[bytes]]) -> None:
    """Drawn on the second screen, with the cursor hidden; SIGTERM gives the terminal back."""
    import fcntl
    import pty
    import struct
    import termios

    pipe = run("pipe", "--quiet")
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 20, 90, 0, 0))
    tail = run("tail", stdout=slave, env={"TERM": "xterm", "LC_ALL": "C.UTF-8"})
    os.close(slave)
    seen = io.BytesIO()

    def read(until: bytes) -> None:
        deadline = time.monotonic() + 30
        while until not in seen.getvalue() and time.monotonic() < deadline:
            if select.select([master], [], [], 0.2)[0]:
                try:
                    seen.write(os.read(master, 65536))
                except OSError:  # the other end is closed
                    break
        assert until in seen.getvalue(), seen.getvalue()[-2000:]

    read(b"COMMAND")
    assert seen.getvalue().startswith(b"\x1b[?1049h\x1b[?25l")
    read(b"processes")
    tail.send_signal(signal.SIGTERM)
    read(b"\x1b[?25h\x1b[?1049l")
    assert tail.wait(20) == -signal.SIGTERM
    os.close(master)
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    seen = io.BytesIO()
    tail = run("tail", stdin=slave, stdout=slave, env={"TERM": "xterm", "LC_ALL": "C.UTF-8"})
    read(b"COMMAND")
    os.write(master, b"jkq")
    assert tail.wait(20) == 0 and termios.tcgetattr(slave) == before
    os.close(slave)
    os.close(master)
    pipe.send_signal(signal.SIGTERM)
    pipe.communicate(timeout=20)


@pytest.mark.slow
def test_the_table_in_a_pipe(run: Callable[..., subprocess.Popen[bytes]]) -> None:
    """--table without a terminal: pictures one below the other, no escape."""
    pipe = run("pipe", "--quiet")
    tail = run("tail", "--table", "-n", "2")
    out, _ = tail.communicate(timeout=60)
    assert tail.returncode == 0 and b"\x1b" not in out
    assert out.count(b"SCORE") >= 2
    pipe.send_signal(signal.SIGTERM)
    pipe.communicate(timeout=20)


def test_stored_pauses_come_with_the_events_in_the_order_of_time(tmp_path: Path) -> None:
    """rh-tail --since: what was stored, each record once, as the stream had it."""
    made = list(ticks(150))
    pause = {"type": "pause", "v": 1, "ts": made[60].row["ts"], "pause": "p1", "boot_id": "b", "culprits": [],  # type: ignore[index]
             "start": made[50].row["ts"], "end": made[60].row["ts"], "duration_s": 3.3, "cause": "io",  # type: ignore[index]
             "evidence": {"late_s": 3.0}}
    made[60].records.append(pause)
    writer = Writer(tmp_path / "x.db", Store(), lambda: 0.0, lambda message: None)
    for tick in made:
        writer.take(tick)
    writer.close()
    reader = open_reader(tmp_path / "x.db")
    found = list(stored(reader, 0.0))
    reader.close()
    assert [each["ts"] for each in found] == sorted(each["ts"] for each in found)
    (back,) = (each for each in found if each["type"] == "pause")
    assert {k: back[k] for k in ("pause", "cause", "start", "end", "evidence")} == {
        k: pause[k] for k in ("pause", "cause", "start", "end", "evidence")}
    assert len({identity(each) for each in found}) == len(found) > 20
