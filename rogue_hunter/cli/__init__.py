"""The commands: one thin click command a module, which only starts what a room does."""

from __future__ import annotations

from pathlib import Path


def names() -> list[str]:
    """The commands, without rh-."""
    return sorted(file.stem for file in Path(__file__).parent.glob("[a-z]*.py"))
