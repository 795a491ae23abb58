"""What the service starts: this installation's rh-pipe, and the places that were in force when it was installed."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import rogue_hunter

XDG = ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")
"""Set in a shell's profile, they are not known to a service manager."""


QUIET = "--quiet"
"""Behind it stand the arguments that were chosen at the installation."""


@dataclass(frozen=True, slots=True)
class Program:
    """`argv` begins with an absolute path. `environment` holds what the manager is to set."""

    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()


def program(arguments: Sequence[str] = (), environment: Mapping[str, str] = os.environ) -> Program:
    """rh-pipe, quiet, with these arguments.

    The launcher beside the package where this is a checkout (it mends its environment), else the script beside the
    interpreter, else the interpreter itself.
    """
    places = tuple((name, environment[name]) for name in XDG if environment.get(name, "").startswith("/"))
    return Program((*command_line("rh-pipe"), QUIET, *arguments), places)


def command_line(name: str) -> list[str]:
    """The words that start rh-NAME of this installation, whatever PATH is. The first is an absolute path."""
    package = Path(rogue_hunter.__file__).resolve().parent
    for place in (package.parent / "bin" / name, Path(sys.executable).parent / name):
        if place.is_file() and os.access(place, os.X_OK):
            return [str(place)]
    return [sys.executable, "-P", "-m", "rogue_hunter", name.removeprefix("rh-")]
