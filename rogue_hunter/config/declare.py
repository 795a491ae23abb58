"""How an option is declared: a field of a frozen dataclass with its reason and its bounds."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def option(default: Any, doc: str, low: float | None = None, high: float | None = None,
           choices: tuple[str, ...] = ()) -> Any:
    """A field with its reason and the bounds of its value (inclusive)."""
    return field(default=default, metadata={"doc": doc, "low": low, "high": high, "choices": choices})


def section(kind: type, doc: str) -> Any:
    """A field that is a table of its own."""
    return field(default_factory=kind, metadata={"doc": doc})
