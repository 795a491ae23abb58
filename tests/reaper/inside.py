"""The first process of an arena: runs one scenario and prints its result as JSON."""

from __future__ import annotations

import hashlib  # noqa: F401  (loaded while this is root: a user may not be able to read root's Python)
import importlib
import json
import shutil
import sys

from tests.reaper.arena import Arena
from tests.tools import forked


def main(module: str, name: str, arguments: str) -> None:
    """Run `name` of `module` with these arguments (JSON)."""
    scenario = getattr(importlib.import_module(module), name)
    arena = Arena()
    try:
        print(json.dumps(scenario(arena, **json.loads(arguments))))
    finally:
        for pid in list(arena.children):
            arena.end(pid)
        shutil.rmtree(arena.dir, ignore_errors=True)


if __name__ == "__main__":
    forked.preload()    # for commands that are forked
    main(*sys.argv[1:4])
