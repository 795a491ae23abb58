"""All cases, in the order of the table."""

from __future__ import annotations

from . import calls, commands, damage, fuzz, held, hostile, limits, planted, secrets, statements, states, texts  # noqa: F401  (each puts its cases into the table)
from .table import CASES

__all__ = ["CASES"]
