"""What the tests of rh-reap leave open is closed behind them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rogue_hunter.reaper.process import Stop


@pytest.fixture(autouse=True)
def _stops_are_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each Stop has two descriptors: a worker would have hundreds by the end."""
    made: list[Stop] = []
    begin, close = Stop.__init__, Stop.close

    def kept(self: Stop) -> None:
        begin(self)
        made.append(self)

    def closed(self: Stop) -> None:
        made[:] = [each for each in made if each is not self]
        close(self)

    monkeypatch.setattr(Stop, "__init__", kept)
    monkeypatch.setattr(Stop, "close", closed)
    yield
    for stop in made:
        close(stop)
