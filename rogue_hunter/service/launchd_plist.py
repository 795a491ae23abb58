"""The launchd job of rh-pipe: a dict, and the property list made of it with a reason beside every key.

launchd takes what it knows and passes over the rest in silence, so a wrong plist is checked here and not found out on
the day it is needed.
"""

from __future__ import annotations

import plistlib
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any
from xml.parsers.expat import ExpatError

LABEL = "local.rogue-hunter.pipe"
"""Also the file's name: launchctl wants NAME.plist to hold the label NAME."""

REASONS: dict[str, str] = {
    "Label": "The file is named after it.",
    "ProgramArguments": "Absolute: no shell and no PATH of a login. One long-running program that does not fork away.",
    "RunAtLoad": "From login on, not on demand: a pause does not announce itself.",
    "KeepAlive": "Again after any exit but 0 (an exception of Python's is exit 1, which Crashed would not count). A "
                 "clean stop stays stopped.",
    "ThrottleInterval": "Seconds between two starts. The default of 10 would try a broken configuration 8,640 times a "
                        "day.",
    "ProcessType": "Without it, or as Standard, launchd throttles CPU and I/O; Background is confined to slow cores "
                   "and starves under load. A sampler has to run exactly when nothing else can.",
    "LegacyTimers": "Since OS X 10.9 timers of jobs are put off and gathered to save power; three beats a second "
                    "must not be.",
    "ExitTimeOut": "Seconds from SIGTERM to SIGKILL. A clean stop takes two.",
    "Umask": "077: names and arguments of everybody's processes are nobody else's business.",
    "WorkingDirectory": "Holds no volume busy.",
    "StandardOutPath": "Records go to the database and the socket, none to standard output.",
    "StandardErrorPath": "Absolute: ~ and $HOME are not expanded. Its directory must exist, and nobody rotates it: "
                         "rh-pipe writes a line when something changes, not a line a tick.",
}
"""Key -> why it is there. Not set, on purpose: Nice and LowPriorityIO (against being on time), StartInterval (one
process lives on), EnvironmentVariables (paths are arguments), AbandonProcessGroup (a capture ends with its parent)."""


def agent(program: Sequence[str], log: str, label: str = LABEL) -> dict[str, Any]:
    """The job that runs `program` (rh-pipe and its arguments) and writes its errors to `log`.

    Raises ValueError for what `problems` finds: relative paths among them.
    """
    plist: dict[str, Any] = {
        "Label": label,
        "ProgramArguments": list(program),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 30,
        "ProcessType": "Interactive",
        "LegacyTimers": True,
        "ExitTimeOut": 10,
        "Umask": 0o077,
        "WorkingDirectory": "/",
        "StandardOutPath": "/dev/null",
        "StandardErrorPath": log,
    }
    data = plistlib.dumps(plist)
    if wrong := problems(data):
        raise ValueError("; ".join(wrong))
    if plistlib.loads(data) != plist:  # a carriage return comes back as a line feed
        raise ValueError("a property list cannot hold these characters")
    return plist


def render(plist: dict[str, Any]) -> bytes:
    """The property list as XML, each key under a comment that gives its reason."""
    lines = []
    for line in plistlib.dumps(plist, sort_keys=False).decode().removesuffix("\n").split("\n"):
        # One tab deep: a key of the job itself, not of a dict within.
        if line.startswith("\t<key>") and (reason := REASONS.get(line[6:].removesuffix("</key>"))):
            lines.append(f"\t<!-- {reason.replace('--', '- -')} -->")
        lines.append(line)
    return ("\n".join(lines) + "\n").encode()


def problems(data: bytes) -> list[str]:
    """What is wrong with a job's property list: not well formed, keys that come twice (the parser keeps one of them and
    says nothing), paths that are not absolute, keys of no known meaning here. Empty when nothing is."""
    try:
        plist = plistlib.loads(data)
        tree = ET.fromstring(data)  # noqa: S314  a local file, made by `render`; expat of today bounds entities
    except (plistlib.InvalidFileException, ExpatError, ET.ParseError, ValueError) as error:
        return [f"not a property list: {error}"]
    if not isinstance(plist, dict):
        return ["not a dictionary"]
    found = [f"{key} comes twice" for node in tree.iter("dict") for key in _twice(node)]
    found += [f"{key} has no meaning here" for key in plist if key not in REASONS]
    found += [f"{key} is missing" for key in ("Label", "ProgramArguments", "ProcessType") if key not in plist]
    arguments = plist.get("ProgramArguments")
    if not isinstance(arguments, list) or not arguments or not all(isinstance(a, str) for a in arguments):
        found.append("ProgramArguments is not a list of strings")
    elif not PurePosixPath(arguments[0]).is_absolute():
        found.append(f"ProgramArguments begins with a relative path: {arguments[0]}")
    for key in ("StandardOutPath", "StandardErrorPath", "WorkingDirectory"):
        path = plist.get(key, "/")
        if not isinstance(path, str) or not PurePosixPath(path).is_absolute():
            found.append(f"{key} is not an absolute path: {path}")
    if plist.get("ProcessType") != "Interactive":
        found.append("ProcessType is not Interactive: launchd would throttle it")
    return found


def _twice(node: ET.Element) -> list[str]:
    keys = [child.text or "" for child in node if child.tag == "key"]
    return sorted({key for key in keys if keys.count(key) > 1})
