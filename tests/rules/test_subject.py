"""One process at one moment, as rules see it."""

from __future__ import annotations

import math

from rogue_hunter.rules.conditions import NEVER, Subject
from rogue_hunter.rules.logic import HELD_SHARE
from rogue_hunter.rules.patterns import Patterns


def test_what_is_not_given_is_unknown_or_lowest() -> None:
    s = Subject({"command": "x"}, None, Patterns(), lambda node, s: (None, NEVER))
    assert (s.age_s, s.orphan, s.cpus, s.slack, s.lifetime, s.rule, s.proofs) == (None, None, 1, 0.0, False, "", {})


def test_what_is_given_is_kept() -> None:
    patterns = Patterns()
    s = Subject({"command": "x"}, 5.0, patterns, lambda node, s: (True, 1.0), orphan=False, cpus=8, slack=0.1)
    assert (s.age_s, s.orphan, s.cpus, s.slack) == (5.0, False, 8, 0.1) and s.patterns is patterns


def test_names_are_made_once_and_only_when_they_are_asked_for() -> None:
    s = Subject({"command": "x", "exe": "/bin/x", "cmdline": "/bin/x -v"}, None, Patterns(), lambda node, s: (None, NEVER))
    assert s._program is None
    assert s.program[:2] == (("x", "/bin/x"), "x -v") and s.program is s.program


def test_the_share_of_a_window_that_must_hold() -> None:
    assert HELD_SHARE == 0.9 and math.isinf(NEVER) and NEVER > 0
