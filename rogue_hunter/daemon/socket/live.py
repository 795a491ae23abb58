"""Requests of commands to a running rh-pipe: its slices and state, newer than in the database, and pruning."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from rogue_hunter.config.options import Config
from rogue_hunter.daemon.socket.address import SocketError, socket_path
from rogue_hunter.daemon.socket.framing import Silent, ask, greeting
from rogue_hunter.host.platform import suspended
from rogue_hunter.paths import PathError
from rogue_hunter.report.database import Source, holder
from rogue_hunter.store.database import DatabaseError
from rogue_hunter.stream.tick import Record, record

LIVE_S = 2.0
"""How long rh-pipe has to answer with its slices; it does so between two ticks, in some 10 ms."""


def live_slices(database: Path, config: Config) -> list[dict[str, Any]]:
    """The slices in the memory of the rh-pipe that writes to this database; none if there is no answer."""
    if not holder(database).held:
        return []
    try:
        found: list[dict[str, Any]] = ask(socket_path(config.socket.path), record("slices_request"), "slices",
                                          LIVE_S)["records"]
    except SocketError:
        return []
    return found


def with_live_state(found: Source, config: Config) -> Source:
    """The source with what the rh-pipe that holds the database tells now: what it wrote may be 10 s old, and it cannot
    write that it cannot write. Unchanged if it serves no socket."""
    pid = found.holder.pid
    if pid is None:
        return found
    halted = suspended(pid)
    if halted is not None:
        return replace(found, silent=f"rh-pipe does not run: {halted}")
    try:
        live = greeting(socket_path(config.socket.path))
    except Silent:
        return replace(found, silent="rh-pipe does not answer on its socket")
    except (SocketError, PathError):
        return found
    return replace(found, live=live) if live.get("pid") == pid else found


def prune_through_pipe(database: Path, age_s: float, max_bytes: int, config: Config, refused: DatabaseError) -> Record:
    """Have the rh-pipe that writes to this database prune it, between its ticks; its `prune` record.

    Raises DatabaseError, with the reason in `refused`, if it cannot be asked.
    """
    request = record("prune_request", older_than_s=age_s, max_bytes=max_bytes,
                     database=os.fsencode(os.path.realpath(database)).decode("utf-8", "backslashreplace"))
    try:
        answer: Record = ask(socket_path(config.socket.path), request, "prune")
    except SocketError as error:
        raise DatabaseError(f"{refused}, which cannot be asked to prune it: {error}", refused.code) from None
    return answer
