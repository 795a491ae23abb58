"""What rh-pipe does with the matches of the rules. The rules themselves stand in tables of their own."""

from __future__ import annotations

from dataclasses import dataclass

from rogue_hunter.config.declare import option

MODES = ("observe", "armed")


@dataclass(frozen=True, slots=True)
class Reap:
    """Whether rh-pipe may end processes, and where it is put on record."""

    mode: str = option("observe", "observe: matches are told and kept; armed: rh-pipe ends what the rules ask to end, "
                                  "without a question", choices=MODES)
    audit: str = option("", "the audit file of rh-pipe and rh-reap; empty: logging.file of the rules, else audit.log "
                            "in the state directory")
