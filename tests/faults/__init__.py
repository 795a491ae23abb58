"""Faults and hostile input: `python -m tests.faults [--long] [--only PATTERN]` prints case, expected, seen.

pytest runs the same cases in their short form. Every case is seeded; a failure says what to run again. What the long
form saw last is in RESULTS.md, which `--long --record` writes.
"""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = str(Path(__file__).resolve().parent.parent)
if TESTS not in sys.path:       # as a program and not by pytest, which has it there
    sys.path.append(TESTS)
