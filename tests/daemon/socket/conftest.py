"""A place with a short name, and servers that end with the test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tools.sockets import Served


@pytest.fixture
def directory() -> Iterator[Path]:
    """A place with a short name: a socket's path is."""
    made = Path(tempfile.mkdtemp(prefix="rh-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def serve(directory: Path) -> Iterator[Callable[..., Served]]:
    """Start servers that end with the test."""
    made: list[Served] = []

    def start(**fields: Any) -> Served:
        made.append(Served(directory, **fields))
        return made[-1]

    yield start
    for each in made:
        each.close()
