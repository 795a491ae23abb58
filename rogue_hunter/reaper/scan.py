"""One look at all processes, with the matches of the rules: what rh-reap --all acts on."""

from __future__ import annotations

from collections.abc import Iterator

from rogue_hunter.config.options import Config
from rogue_hunter.host.platform import here
from rogue_hunter.rules.matcher import Matcher
from rogue_hunter.sampling.lineage import Lineage
from rogue_hunter.sampling.sample import beats_of, sample
from rogue_hunter.scoring.stage import Score
from rogue_hunter.stream.clock import Rate
from rogue_hunter.stream.pipeline import chain
from rogue_hunter.stream.tick import Tick


def scan(config: Config, matcher: Matcher) -> Iterator[Tick]:
    """One tick of all processes, a second after a silent reading, with the matches of the rules."""
    host = here()
    try:
        beat = beats_of(host, Rate(1.0), count=2)
        ticks = sample(host, beat, silent_first=True)
        yield from chain(ticks, Lineage(), Score(config), matcher)
    finally:
        host.close()
