"""The loop of rh-hub: stores what the stream has, asks hosts for rows that are missing, and answers queries."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rogue_hunter.fleet.bus import Bus, Received
from rogue_hunter.fleet.intake import ALL, ASK, Batch, Refused, parse, sender
from rogue_hunter.fleet.warehouse import Warehouse, WarehouseError
from rogue_hunter.stream import wire
from rogue_hunter.text.errors import CONFIG_ERROR, UNAVAILABLE, RogueHunterError

CONSUMER = "rh-hub"
FETCH = 500
"""Messages of one transaction: 40,000 rows of 500 hosts, 20 MB."""
FETCH_BYTES = 64 << 20
"""Messages are stored before they are this many bytes together."""
ASK_S = 30.0
"""Time between two questions for the same rows: an answer passes the stream in less."""
ASK_SPANS = 50
"""Gaps of one table that are asked for at once."""
PRUNE_S = 3600.0
LINE_MAX = 1 << 20
"""Bytes of one question on the socket."""


async def _nothing() -> None:
    """Nothing has to be prepared."""


class Hub:
    """Moves messages from the stream into a Warehouse until it is stopped."""

    def __init__(self, warehouse: Warehouse, inbox: Bus, clock: Callable[[], float], *, keep_s: float,
                 report: Callable[[str], object] = lambda text: None, ask_s: float = ASK_S,
                 prepare: Callable[[], Awaitable[object]] = _nothing) -> None:
        """`prepare` is awaited before the first step and after each error: it makes the stream."""
        self._prepare = prepare
        self._boots: dict[str, dict[str, float]] = {}
        self._twins: set[tuple[str, str]] = set()
        self._warehouse, self._inbox, self._clock, self._keep_s = warehouse, inbox, clock, keep_s
        self._report, self._ask_s = report, ask_s
        self._asked: dict[str, float] = {}
        self._refusing: set[str] = set()
        self._pruned = self._looked = 0.0
        self.stopped = False
        self.messages = self.rows = self.refused = 0

    def stop(self) -> None:
        """End the loop after the present transaction."""
        self.stopped = True

    async def run(self) -> None:
        """Until it is stopped. Raises RogueHunterError for what another attempt does not mend."""
        last, ready = "", False
        while not self.stopped:
            try:
                if not ready:
                    await self._prepare()
                    ready = True
                await self.step()
                await self.ask()
            except WarehouseError:
                raise
            except RogueHunterError as error:
                if error.code == CONFIG_ERROR:
                    raise
                if str(error) != last:
                    self._report(f"{error}; trying again")
                last, ready = str(error), False
                await asyncio.sleep(0.5)
                continue
            last = ""
            if self._clock() - self._pruned >= PRUNE_S:
                self._pruned = self._clock()
                await asyncio.to_thread(self._warehouse.prune, self._clock() - self._keep_s)

    async def step(self, wait_s: float = 1.0) -> int:
        """Store the messages of one fetch; gives their number. They are acknowledged when they are on disk."""
        received = await self._inbox.fetch(ALL, CONSUMER, FETCH, wait_s)
        at = 0
        while at < len(received):
            end, size = at, 0
            while end < len(received) and (end == at or size + len(received[end].payload) <= FETCH_BYTES):
                size += len(received[end].payload)
                end += 1
            await self._store(received[at:end])
            at = end
        return len(received)

    async def _store(self, received: Sequence[Received]) -> None:
        batches: list[Batch] = []
        refusals: list[tuple[str, float, str]] = []
        for each in received:
            try:
                batch = parse(each.subject, each.payload, each.stored)
                self._one_machine(batch)
                batches.append(batch)
            except Refused as error:
                refusals.append((_host(each.subject), each.stored, str(error)))
        self.rows += await asyncio.to_thread(self._warehouse.store, batches, refusals)
        await self._inbox.acknowledge(received)
        self.messages += len(received)
        self.refused += len(refusals)
        for host, _, reason in refusals:
            if host not in self._refusing:      # once a host, until it sends something that is stored
                self._refusing.add(host)
                self._report(f"refused: {reason}")
        self._refusing -= {batch.host_id for batch in batches} - {host for host, _ in self._twins}

    def _one_machine(self, batch: Batch) -> None:
        """Refuse a second machine with the same identity: a boot that sends between messages of an earlier one."""
        host, boot, at = batch.host_id, str(batch.head.get("boot_id", "")), batch.received
        began = self._boots.setdefault(host, {})
        if (host, boot) not in self._twins:
            first = began[boot] = min(at, began.get(boot, at))
            for other in [other for other, since in began.items() if first < since < at]:
                self._twins.add((host, other))
                del began[other]
        if (host, boot) in self._twins:
            raise Refused(f"host {host}: two machines send with this identity, one of them is "
                          f"{str(batch.head.get('host'))[:64]!r}: give it another --host-id, then start rh-hub again")

    async def ask(self) -> int:
        """Ask hosts for the rows that are missing; gives the number of hosts asked."""
        now = self._clock()
        if now - self._looked < min(1.0, self._ask_s):
            return 0
        self._looked, count = now, 0
        for host, gaps in self._warehouse.gaps():
            if now - self._asked.get(host, 0.0) >= self._ask_s:
                self._asked[host] = now
                wanted = {table: spans[:ASK_SPANS] for table, spans in gaps.items()}
                await self._inbox.tell(ASK.format(host), wire.dumps(wanted))
                count += 1
        return count

    # -- questions of other processes ----------------------------------------------------------------------------------

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One question of a client on the socket: a line of JSON in, a line of JSON out."""
        try:
            made = await asyncio.to_thread(_answer, self._warehouse, wire.loads(await reader.readline()))
        except RogueHunterError as error:
            made = {"error": str(error), "code": error.code}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            made = {"error": f"not a question: {error}", "code": UNAVAILABLE}
        with suppress(OSError):
            writer.write(wire.dumps(made) + b"\n")
            await writer.drain()
        writer.close()


def _host(subject: str) -> str:
    try:
        return sender(subject)
    except Refused:
        return ""


def socket_path(database: Path) -> Path:
    """The socket beside a hub's file, on which a running hub answers: DuckDB lets one process open a file."""
    return database.with_name(database.name + ".sock")


async def listen(hub: Hub, path: Path) -> asyncio.AbstractServer:
    """Answer questions on a socket that only this user may open. Raises OSError."""
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            path.unlink()       # of a process that was killed: the file of the hub is locked by this one
    mask = os.umask(0o177)
    try:
        return await asyncio.start_unix_server(hub.answer, str(path), limit=LINE_MAX)
    finally:
        os.umask(mask)


def asked(database: Path, question: Mapping[str, Any], wait_s: float = 40.0) -> dict[str, Any] | None:
    """The answer of a running hub; None if none runs. Raises RogueHunterError with the hub's own reason."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(wait_s)
        try:
            client.connect(str(socket_path(database)))
        except OSError:
            return None
        try:
            client.sendall(wire.dumps(dict(question)) + b"\n")
            with client.makefile("rb") as lines:
                made = wire.loads(lines.readline())
        except (OSError, ValueError) as error:
            raise RogueHunterError(f"the hub did not answer: {error}", UNAVAILABLE) from None
    if "error" in made:
        raise RogueHunterError(str(made["error"]), int(made["code"]))
    return dict(made)


def ask(database: Path, question: Mapping[str, Any], wait_s: float = 40.0) -> dict[str, Any]:
    """The answer of the running hub, else from its file; see _answer. Raises RogueHunterError."""
    made = asked(database, question, wait_s)
    if made is None:
        warehouse = Warehouse(database, read_only=True)
        try:
            made = _answer(warehouse, question)
        finally:
            warehouse.close()
    return made


def query(database: Path, sql: str | None) -> tuple[list[str], list[list[Any]]]:
    """Names and rows of a SELECT, or without it of what is missing. Raises RogueHunterError."""
    made = ask(database, {"sql": sql})
    return made["names"], made["rows"]


def _answer(warehouse: Warehouse, question: Mapping[str, Any]) -> dict[str, Any]:
    """sql: names and rows, without a text of what is missing. export: writes a file of the rows since `since`, with
    `parquet` a directory; gives their number."""
    if "export" in question:
        write = warehouse.export_parquet if question["parquet"] else warehouse.export
        return {"rows": write(Path(question["export"]), float(question["since"]))}
    names, rows = warehouse.missing() if question["sql"] is None else warehouse.query(question["sql"])
    return {"names": names, "rows": rows}
