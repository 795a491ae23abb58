"""Checks the property list of a job of launchd, which ignores what it does not know without a message."""

from __future__ import annotations

import plistlib
import xml.etree.ElementTree as ET
from pathlib import PurePosixPath
from xml.parsers.expat import ExpatError

from rogue_hunter.service.launchd import REASONS


def problems(data: bytes) -> list[str]:
    """What is wrong with the property list of a job: bad XML, duplicate keys (the parser keeps one of them without an
    error), relative paths, unknown keys. Empty if nothing is."""
    try:
        plist = plistlib.loads(data)
        tree = ET.fromstring(data)
    except (plistlib.InvalidFileException, ExpatError, ET.ParseError, ValueError) as error:
        return [f"not a property list: {error}"]
    if not isinstance(plist, dict):
        return ["not a dictionary"]
    found = [f"{key} comes twice" for node in tree.iter("dict") for key in _twice(node)]
    found += [f"{key} is not a known key" for key in plist if key not in REASONS]
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
