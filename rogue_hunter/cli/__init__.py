"""The commands: one thin click command a module, and the only importers of click."""

from __future__ import annotations

from pathlib import Path

SHARED = ("options", "run")
"""Modules of this folder that are not commands."""


def names() -> list[str]:
    """The commands, without rh-."""
    return sorted(file.stem for file in Path(__file__).parent.glob("[a-z]*.py") if file.stem not in SHARED)
