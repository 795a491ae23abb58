"""The first process of an arena: runs one scenario and prints its result as JSON."""

from __future__ import annotations

import hashlib  # noqa: F401  (loaded while this is root: a user may not be able to read root's Python)
import importlib
import json
import shutil
import sys

from tests.reaper.arena import Arena

module, name, arguments = sys.argv[1:4]
scenario = getattr(importlib.import_module(module), name)
arena = Arena()
try:
    print(json.dumps(scenario(arena, **json.loads(arguments))))
finally:
    for pid in list(arena.children):
        arena.end(pid)
    shutil.rmtree(arena.dir, ignore_errors=True)
