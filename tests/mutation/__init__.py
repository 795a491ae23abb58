"""Mutation runs: `python -m tests.mutation [--only PATTERN] [--jobs N]` changes the code where a mistake would hurt
most, one place at a time, and counts the changes that no test notices.

Each change is tried in a process forked from one that has the libraries in memory; the file on disk is never touched.
What was found last is in RESULTS.md, which the command writes; why a survivor is none is said there by hand, and kept.
"""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = str(Path(__file__).resolve().parent.parent)
if TESTS not in sys.path:       # as a program and not by pytest, which has it there
    sys.path.append(TESTS)
