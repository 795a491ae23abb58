"""Every case of the table of faults, in its short form (RH_LONG=1: in its long one)."""

from __future__ import annotations

import os

import pytest

from .all import CASES
from .table import Case, Skip, bench

LONG = "RH_LONG" in os.environ


@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in CASES.values() if LONG or not c.long_only], ids=lambda case: case.name)
def test_fault(case: Case) -> None:
    """What is seen is what is expected: a case asserts that itself, and says it in a line."""
    with bench(LONG) as made:
        try:
            seen = case.run(made)
        except Skip as reason:
            pytest.skip(str(reason))
    assert seen
