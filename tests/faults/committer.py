"""The child of the kill -9 case: ticks on standard input, the whole chain into a database, and a line for what was
committed. `python -m tests.faults.committer DATABASE`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rogue_hunter.config.options import Config
from rogue_hunter.config.options import Store as Settings
from rogue_hunter.scoring.stage import Score
from rogue_hunter.store.database import Lock
from rogue_hunter.store.writer import Store, Writer
from rogue_hunter.stream import wire
from rogue_hunter.stream.pipeline import chain
from rogue_hunter.tracking.events import Track


def main() -> None:
    """Acknowledge each tick once it is in the database."""
    config = Config(store=Settings(state_every_s=1.0))
    Lock(Path(sys.argv[1]))
    now = 0.0
    writer = Writer(Path(sys.argv[1]), config.store, lambda: now, sys.exit)
    ticks = wire.Reader(sys.stdin.buffer, "committer").ticks()
    restored = writer.open_events()
    for tick in chain(ticks, Score(config), Track(config, restored=restored), Store(writer)):
        if tick.row is not None:
            now = tick.row["ts"]
        assert writer.degraded is None and not writer.dropped
        said = [[r["event"], r["kind"], r["ts"]] for r in tick.records if r["type"] == "event"]
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()
    writer.close()


if __name__ == "__main__":
    main()
