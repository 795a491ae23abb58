"""The connection to NATS: encryption, credentials, publishing, fetching, and errors as one line for people."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rogue_hunter.files import read_trusted
from rogue_hunter.text.errors import CONFIG_ERROR, UNAVAILABLE, RogueHunterError

STREAM = "ROGUE_HUNTER"
ANSWER_S = 5.0
"""Time that a server has to answer: with `sync_interval: always` an fsync of a busy disk takes some 100 ms."""
ACK_S = 10.0
"""A message that is not acknowledged within this time is sent again: a transaction of the hub takes about a second."""
DUPLICATES_S = 600.0
"""A message with the same Nats-Msg-Id within this time is stored once."""


class BusError(RogueHunterError):
    """The server cannot be reached, or does not do what it is asked for. `code`: 69, or 78 where trying again is
    useless."""

    code = UNAVAILABLE


@dataclass(frozen=True, slots=True)
class Access:
    """Where the servers are, and who asks. Files: `creds` (JWT and seed), `nkey` (seed), `ca`, `cert` and `key`."""

    servers: tuple[str, ...]
    creds: Path | None = None
    nkey: Path | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def encrypted(self) -> bool:
        """True if TLS is wanted."""
        return self.ca is not None or self.cert is not None or any(s.startswith("tls://") for s in self.servers)

    def where(self) -> str:
        """The servers without passwords."""
        return ", ".join(f"{p.scheme}://{p.hostname}:{p.port or 4222}" for p in map(urlsplit, self.servers))


# -- credentials -------------------------------------------------------------------------------------------------------

_SEED = re.compile(r"\bS[A-Z2-7]{57}\b")
_JWT = re.compile(r"-----BEGIN NATS USER JWT-----\s+(\S+)\s+-+END")
_SEED_PREFIX, _USER_PREFIX = 18 << 3, 20 << 3
"""First bytes of seeds and of public keys of users: their text begins with S and U (nats.io, nkeys)."""


@dataclass(frozen=True, slots=True)
class Identity:
    """An Ed25519 key of a user, and its JWT if it has one."""

    public: str
    sign: Callable[[bytes], bytes]
    jwt: str | None = None


def identity(path: Path, *, with_jwt: bool) -> Identity:
    """The key in a credentials file or a seed file, which only its owner may write to. Raises FileError for the file,
    BusError for its content; no message has a part of it."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    text = read_trusted(path, 1 << 16).decode("ascii", "replace")
    jwt = _JWT.search(text)
    found = _SEED.search(text)
    if with_jwt and jwt is None:
        raise BusError(f"{path}: has no user JWT; a file with only a seed is for --nkey", CONFIG_ERROR)
    if found is None:
        raise BusError(f"{path}: has no seed of a user (a word that begins with SU)", CONFIG_ERROR)
    raw = base64.b32decode(found[0] + "=" * (-len(found[0]) % 8))
    prefixes = raw[0] & 0xF8, (raw[0] & 7) << 5 | raw[1] >> 3
    checksum = int.from_bytes(raw[34:36], "little")
    if prefixes != (_SEED_PREFIX, _USER_PREFIX) or binascii.crc_hqx(raw[:34], 0) != checksum:
        raise BusError(f"{path}: its seed is damaged or not that of a user", CONFIG_ERROR)
    key = Ed25519PrivateKey.from_private_bytes(raw[2:34])
    public = bytes([_USER_PREFIX]) + key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    public += binascii.crc_hqx(public, 0).to_bytes(2, "little")
    return Identity(base64.b32encode(public).decode().rstrip("="), key.sign, jwt[1] if jwt and with_jwt else None)


def tls(access: Access) -> ssl.SSLContext | None:
    """The TLS settings: certificates are always verified. Raises BusError."""
    if not access.encrypted():
        return None
    try:
        context = ssl.create_default_context(cafile=access.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if access.cert is not None:
            context.load_cert_chain(access.cert, access.key)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(str(f) for f in (access.ca, access.cert, access.key) if f is not None)
        raise BusError(f"{files}: {error.strerror or error}", CONFIG_ERROR) from None
    return context


# -- the connection ----------------------------------------------------------------------------------------------------

def explain(error: BaseException | None) -> str:
    """An error of the network, of TLS or of the server in words."""
    text = str(error or "").removeprefix("nats: ").strip("'")
    low = text.lower()
    kind, reason = type(error).__name__, getattr(error, "reason", None) or error
    full = getattr(error, "err_code", None) in (10047, 10077) or "maximum" in low or "insufficient" in low
    cases = (
        (isinstance(error, ssl.SSLCertVerificationError),
         f"the certificate of the server is refused: {getattr(error, 'verify_message', '')}"),
        (isinstance(error, ssl.SSLError), f"TLS: {reason}"),
        ("authorization violation" in low or "authentication" in low, "the server refuses these credentials"),
        ("permissions violation" in low, f"not allowed: {text}"),
        ("maximum payload" in low, "the server takes smaller messages only: set its max_payload to 1MB"),
        (full, f"the stream is full ({getattr(error, 'description', None) or text}); rows are kept on this host and "
               "sent later"),
        ("unexpected eof" in low or isinstance(error, (BrokenPipeError, ConnectionResetError)),
         "the server closed the connection"),
        (isinstance(error, ConnectionRefusedError), "no server listens there"),
        ("no response from stream" in low or kind == "NoStreamResponseError",
         f"there is no stream {STREAM}; rh-hub makes it"),
        (kind == "ServiceUnavailableError", f"the stream {STREAM} does not answer"),
    )
    return next((words for holds, words in cases if holds), text or kind)


def _decisive(error: BaseException) -> bool:
    """True for an error that another attempt does not mend."""
    return bool(re.search("refuse|not allowed", explain(error)))


@dataclass(frozen=True, slots=True)
class Received:
    """A message of the stream. `stored`: epoch seconds by the clock of the server."""

    subject: str
    payload: bytes
    stored: float
    source: Any


class Bus:
    """One connection. Every method raises BusError; the next call connects again where that is needed."""

    def __init__(self, access: Access, name: str, report: Callable[[str], object] = lambda text: None) -> None:
        """`name` is that of the inbox: this user has to be allowed to subscribe to _INBOX.NAME.> for answers. Raises
        BusError if nats-py is not installed."""
        if find_spec("nats") is None:
            raise BusError("nats-py is not installed; in the checkout: pip install '.[fleet]'")
        self._access, self._name, self._report = access, name, report
        self._client: Any = None
        self._last: BaseException | None = None
        self._said, self._waiting = "", 0
        self._listening: list[tuple[str, Callable[[bytes], Awaitable[None]]]] = []
        self._pull: Any = None
        self._connecting, self._refused = asyncio.Lock(), asyncio.Event()

    async def connect(self) -> Any:
        """The client, connected. Callers at the same time share one connection."""
        async with self._connecting:
            return await self._connected()

    async def _connected(self) -> Any:
        if self._client is not None and not self._client.is_closed:
            if self._last is not None and _decisive(self._last) and not self._client.is_connected:
                raise BusError(f"{self._access.where()}: {explain(self._last)}", self._code(self._last))
            return self._client
        from nats.aio.client import Client

        client: Any = Client()
        more: dict[str, Any] = {}
        chosen = self._access.creds or self._access.nkey
        if chosen is not None:
            who = identity(chosen, with_jwt=self._access.creds is not None)
            # The documented way (user_credentials, nkeys_seed) needs a package without wheels for the signature.
            client._auth_configured = True
            more["signature_cb"] = lambda nonce: base64.b64encode(who.sign(nonce.encode()))
            if who.jwt is not None:
                more["user_jwt_cb"] = lambda: bytearray((who.jwt or "").encode())
            else:
                client._public_nkey = who.public
        if (context := tls(self._access)) is not None:
            more["tls"] = context
            logging.getLogger("asyncio").setLevel(logging.ERROR)    # it warns of the end of each connection with TLS
        self._last, self._pull = None, None
        self._refused.clear()
        attempt = asyncio.create_task(client.connect(
            list(self._access.servers), error_cb=self._failed, name=f"rogue-hunter {self._name}", connect_timeout=5,
            allow_reconnect=False, max_reconnect_attempts=1, reconnect_time_wait=0.2,
            inbox_prefix=f"_INBOX.{self._name}", **more))
        refused = asyncio.create_task(self._refused.wait())     # nats-py never returns from a refused TLS
        try:
            await asyncio.wait((attempt, refused), timeout=15, return_when=asyncio.FIRST_COMPLETED)
            if not attempt.done():
                raise TimeoutError
            attempt.result()
        except Exception as error:
            self._check(error)
            cause = self._cause(error)
            with suppress(Exception):
                await asyncio.wait_for(client.close(), 0.2)
            raise BusError(f"{self._access.where()}: {explain(cause)}", self._code(cause)) from None
        finally:
            attempt.cancel()
            refused.cancel()
        # From now on the connection is made again by itself; before, that would race with the first attempt.
        client.options["allow_reconnect"] = True
        client.options["max_reconnect_attempts"] = -1
        client.options["reconnect_time_wait"] = 0.5
        self._client = client
        for subject, call in self._listening:
            await self._subscribe(client, subject, call)
        return client

    async def _failed(self, error: BaseException) -> None:
        if self._last is None or not _decisive(self._last):     # what follows a refusal is a closed connection
            self._last = error
        if _decisive(error):
            self._refused.set()
        if self._client is not None and not (self._waiting and _decisive(error)):   # otherwise it is raised
            self._say(error)

    def _say(self, error: BaseException | None) -> None:
        if error is not None and (text := explain(error)) != self._said:
            self._said = text
            self._report(text)

    @staticmethod
    def _check(error: BaseException) -> None:
        """Raise what is no error of the network."""
        import nats.errors

        if not isinstance(error, (nats.errors.Error, OSError, EOFError)):
            raise error

    def _cause(self, error: BaseException) -> BaseException:
        """The reason that was reported beside an error, else the error."""
        return error if self._last is None else self._last

    @asynccontextmanager
    async def _call(self) -> AsyncIterator[Any]:
        """The client for one call. What the server reports beside it is the reason if the call fails."""
        client = await self.connect()
        self._last = None
        self._waiting += 1
        try:
            yield client
        except Exception as error:
            self._check(error)
            # A publish that is not permitted has no answer.
            reason = self._cause(error) if isinstance(error, TimeoutError) else error
            text = "no answer from the server" if isinstance(reason, TimeoutError) else explain(reason)
            raise BusError(f"{self._access.where()}: {text}", self._code(reason)) from None
        else:
            self._say(self._last)
        finally:
            self._waiting -= 1

    def _code(self, error: BaseException) -> int:
        """Of several servers another one may be in order: the next attempt takes them in another order."""
        return CONFIG_ERROR if _decisive(error) and len(self._access.servers) == 1 else UNAVAILABLE

    async def publish(self, subject: str, payload: bytes, message_id: str) -> None:
        """Send a message and wait until the stream has stored it."""
        async with self._call() as client:
            await client.jetstream(timeout=ANSWER_S).publish(subject, payload, headers={"Nats-Msg-Id": message_id})
        self._said = ""

    async def tell(self, subject: str, payload: bytes) -> None:
        """Send a message that is not stored."""
        async with self._call() as client:
            await client.publish(subject, payload)

    async def listen(self, subject: str, call: Callable[[bytes], Awaitable[None]]) -> None:
        """Call a function with each message of a subject."""
        self._listening.append((subject, call))
        if self._client is not None and not self._client.is_closed:
            await self._subscribe(self._client, subject, call)

    @staticmethod
    async def _subscribe(client: Any, subject: str, call: Callable[[bytes], Awaitable[None]]) -> None:
        async def one(message: Any) -> None:
            await call(message.data)

        await client.subscribe(subject, cb=one)

    # -- the hub's side ------------------------------------------------------------------------------------------------

    async def make_stream(self, subjects: Sequence[str], max_bytes: int, max_age_s: float, replicas: int) -> None:
        """Make the stream if there is no such stream; an existing one stays as it is. Full, it refuses new messages:
        hosts keep what is not stored."""
        from nats.js.api import DiscardPolicy, StorageType, StreamConfig
        from nats.js.errors import NotFoundError

        async with self._call() as client:
            manager = client.jsm(timeout=ANSWER_S)
            try:
                await manager.stream_info(STREAM)
            except NotFoundError:
                await manager.add_stream(StreamConfig(
                    name=STREAM, subjects=list(subjects), max_bytes=max_bytes, max_age=max_age_s, num_replicas=replicas,
                    discard=DiscardPolicy.NEW, storage=StorageType.FILE, duplicate_window=min(DUPLICATES_S, max_age_s)))

    async def fetch(self, subject: str, consumer: str, count: int, wait_s: float) -> list[Received]:
        """Up to `count` messages that were not acknowledged, after `wait_s` seconds at most."""
        from nats.js.api import ConsumerConfig

        async with self._call() as client:
            try:
                if self._pull is None:
                    self._pull = await client.jetstream(timeout=ANSWER_S).pull_subscribe(
                        subject, durable=consumer, stream=STREAM,
                        config=ConsumerConfig(ack_wait=ACK_S, max_ack_pending=10_000))
                found = await self._pull.fetch(count, timeout=wait_s)
            except Exception as error:
                if self._pull is not None and isinstance(error, TimeoutError):
                    return []
                self._pull = None
                raise
        return [Received(m.subject, m.data, m.metadata.timestamp.timestamp(), m) for m in found]

    async def acknowledge(self, received: Sequence[Received]) -> None:
        """They are stored, or refused for good: do not send them again."""
        async with self._call() as client:
            for each in received:
                await each.source.ack()
            await client.flush()

    async def close(self) -> None:
        """End the connection."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                await asyncio.wait_for(client.close(), 2)
