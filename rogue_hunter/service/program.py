"""The command line and environment of the service: rh-pipe of this installation, and the XDG directories in use."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import rogue_hunter

XDG = ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")
"""Usually set in the profile of a shell, which a service manager does not read."""


QUIET = "--quiet"
"""The arguments after this option were chosen at the installation."""


@dataclass(frozen=True, slots=True)
class Program:
    """`argv` begins with an absolute path. `environment`: the variables that the manager sets."""

    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()


def program(arguments: Sequence[str] = (), environment: Mapping[str, str] = os.environ) -> Program:
    """rh-pipe --quiet with these arguments.

    In a checkout it is started by the launcher in bin/ (which repairs its environment), otherwise by the script in the
    directory of the interpreter, otherwise by the interpreter itself.
    """
    places = tuple((name, environment[name]) for name in XDG if environment.get(name, "").startswith("/"))
    return Program((*command_line("rh-pipe"), QUIET, *arguments), places)


def command_line(name: str) -> list[str]:
    """The command line of rh-NAME of this installation, independent of PATH. The first word is an absolute path."""
    package = Path(rogue_hunter.__file__).resolve().parent
    for place in (package.parent / "bin" / name, Path(sys.executable).parent / name):
        if place.is_file() and os.access(place, os.X_OK):
            return [str(place)]
    return [sys.executable, "-P", "-m", "rogue_hunter", name.removeprefix("rh-")]
