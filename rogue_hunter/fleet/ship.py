"""The loop of rh-ship: sends one message a host-minute, answers what a hub asks for, and catches up slowly."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from rogue_hunter.fleet.intake import ASK, SUBJECT
from rogue_hunter.fleet.source import Message, Shipper
from rogue_hunter.stream import wire
from rogue_hunter.text.errors import CONFIG_ERROR, UNAVAILABLE, RogueHunterError
from rogue_hunter.text.format import duration

PACE = 5.0
"""Messages a second when a host is behind: a day in 5 minutes, 1,000 hosts after a common outage 5,000 messages/s."""
SPREAD_S = 30
"""Hosts send a minute at different seconds of this time, by their identity, so that not all of them send at once."""
SET_BACK_MIN = 60
"""A clock that was set back by more than this many minutes is reported."""
RETRY_S = 60.0
"""Longest time between two attempts."""


class Carrier(Protocol):
    """What a loop needs of a Bus. Methods raise BusError."""

    async def publish(self, subject: str, payload: bytes, message_id: str) -> None:
        """Send a message and wait until it is stored."""
        ...

    async def listen(self, subject: str, call: Callable[[bytes], Awaitable[None]]) -> None:
        """Call a function with each message of a subject."""
        ...


class ShipLoop:
    """Sends what a Shipper decides until it is stopped; with `once` until nothing is left."""

    def __init__(self, shipper: Shipper, carrier: Carrier, clock: Callable[[], float], *, pace: float = PACE,
                 once: bool = False, report: Callable[[str], object] = lambda text: None,
                 retry_s: float = RETRY_S) -> None:
        self._shipper, self._carrier, self._clock = shipper, carrier, clock
        self._pace, self._once, self._report, self._retry_s = pace, once, report, retry_s
        self._asked: Any = None     # the newest request of a hub: it has all that is still missing
        self._wake = asyncio.Event()
        self._stopped = self._masked = self._waiting = False
        self.sent = self.rows = self.answered = 0
        identity = shipper.state.host_id
        self._subject = SUBJECT.format(identity)
        self._offset_s = zlib.crc32(identity.encode()) % SPREAD_S

    def stop(self) -> None:
        """End the loop after the message that is being sent."""
        self._stopped = True
        self._wake.set()

    def wake(self) -> None:
        """Look now whether there is something to send."""
        self._wake.set()

    async def run(self) -> None:
        """Until it is stopped. Raises RogueHunterError for what another attempt does not mend, OSError when the state
        cannot be written."""
        await self._carrier.listen(ASK.format(self._shipper.state.host_id), self._hear)
        while not self._stopped:
            if self._asked:
                asked, self._asked = self._asked, None
                for message in self._shipper.again(asked):
                    if not await self._deliver(message):
                        return
                    self.answered += 1
                    await self._sleep(1 / self._pace)
                continue
            behind = self._shipper.behind()
            next_one = self._shipper.next()
            if next_one is not None:
                if not await self._deliver(next_one):
                    return
                self._shipper.done(next_one)
                if behind > 1 or not next_one.whole:
                    await self._sleep(1 / self._pace)
            else:
                self._check_clock(behind)
                if self._once:
                    return
                await self._sleep(self._shipper.wait_s() + self._offset_s)

    def _check_clock(self, behind: int) -> None:
        """Report a clock that was set back, once; with `once` raise it."""
        was, self._waiting = self._waiting, behind < -SET_BACK_MIN
        if self._waiting and not was:
            text = (f"the clock of this host is {duration(-60 * behind)} behind what was sent: rows stay here so long; "
                    "if it was wrong before, begin with --from, a new --host-id and a new --state")
            if self._once:
                raise RogueHunterError(text, UNAVAILABLE)
            self._report(text)

    async def _hear(self, data: bytes) -> None:
        try:
            self._asked = wire.loads(data)
        except ValueError:
            return
        self._wake.set()

    async def _sleep(self, seconds: float) -> None:
        """Wait, but not longer than until a hub asks or the loop is stopped."""
        if seconds > 0 and not self._stopped:
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), seconds)
            except TimeoutError:
                return

    async def _deliver(self, message: Message) -> bool:
        """Send until it is stored; False when the loop was stopped before."""
        if message.redacted and not self._masked:
            self._masked = True
            self._report("texts of the database have secrets; they are masked in what is sent")
        attempt, last = 0, ""
        while not self._stopped:
            try:
                await self._carrier.publish(self._subject, message.payload(self._clock()), message.id)
            except RogueHunterError as error:
                if error.code == CONFIG_ERROR or (self._once and attempt >= 3):
                    raise
                if str(error) != last:
                    self._report(f"{error}; trying again")
                last = str(error)
                attempt += 1
                longest = min(self._retry_s, 0.5 * 2 ** min(attempt, 12))
                await self._pause(longest * random.uniform(0.5, 1))  # noqa: S311
                continue
            if last:
                self._report("sending again")
            self.sent += 1
            self.rows += sum(message.rows.values())
            return True
        return False

    async def _pause(self, seconds: float) -> None:
        """Wait between two attempts; a hub that asks does not end it."""
        ends = asyncio.get_running_loop().time() + seconds
        while not self._stopped and (left := ends - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(min(left, 0.2))
