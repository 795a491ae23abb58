"""Plain English: code, messages, manuals and tests have none of the phrases that readers stumble over."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import rogue_hunter

PACKAGE = Path(rogue_hunter.__file__).parent
REPO = PACKAGE.parent

PHRASES = (
    r"whoever", r"whatever", r"nobody(?:'s)?", r"somebody(?:'s)?", r"anew", r"meanwhile", r"for ever",
    r"said", r"told", r"tells", r"says? so", r"(?:is|are|was|were) about", r"go(?:es)? on", r"went on", r"going on", r"(?:left|leaves?) alone",
    r"that (?:is|are|was|were) there", r"(?:is|are|was|were) not there", r"put on record",
    r"stands? (?:in|at|there|still|behind|beside)", r"who (?:is|are|was|were) (?:gone|there|here)", r"passed over",
    r"(?<!there )(?-i:is none)", r"(?:is|are) met", r"the like of it", r"one of one's own",
)
"""Phrases as regular expressions. Replace them by the verb or noun of the field: print, report, log, skip, ignore, exit,
continue; any process, another user, no process; a missing file."""

ALLOWED = (
    r"nobody \(65534\)", r"user nobody", r"`nobody`", r"\"nobody\"", r"`told`", r"\{[^{}]*\}",
)
"""Texts in which a phrase is right: names, and expressions in f-strings."""

_PHRASE = re.compile(r"\b(?:" + "|".join(PHRASES) + r")\b", re.IGNORECASE)
_ALLOWED = re.compile("|".join(ALLOWED))


def texts_of(file: Path) -> Iterator[tuple[int, str]]:
    """Line number and text: of a module its comments and string literals, of a test its name, its
    comments and docstrings, of a manual page its lines."""
    source = file.read_text("utf-8")
    if file.suffix != ".py":
        yield from enumerate(source.splitlines(), 1)
        return
    if not _PHRASE.search(source + source.replace("_", " ")):
        return      # to take every module apart needs 4 s
    kinds = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.COMMENT)}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in kinds and (PACKAGE in file.parents or token.string.startswith(("#", '"""'))):
            yield from enumerate(token.string.splitlines(), token.start[0])
        elif token.string.startswith("test_"):
            yield token.start[0], token.string.replace("_", " ")


def place_of(file: Path) -> str:
    """The room or module of the package, the folder or file below tests/, or the manual page."""
    if file.suffix != ".py":
        return file.name
    parts = file.relative_to(PACKAGE if PACKAGE in file.parents else REPO).with_suffix("").parts
    return "/".join(parts[:2]) if parts[0] == "tests" else parts[0]


def files_of_places() -> dict[str, list[Path]]:
    """Place -> its files."""
    places: dict[str, list[Path]] = {}
    for file in sorted([*PACKAGE.rglob("*.py"), *(REPO / "man").iterdir(), *(REPO / "tests").rglob("*.py")]):
        if file != Path(__file__):
            places.setdefault(place_of(file), []).append(file)
    return places


@pytest.mark.parametrize("files", [pytest.param(files, id=place) for place, files in files_of_places().items()])
def test_plain_english(files: list[Path]) -> None:
    """No phrase of the list in this room, module or page."""
    assert [f"{file.relative_to(REPO)}:{number}: {hit.group()}: {text.strip()}" for file in files
            for number, text in texts_of(file) for hit in _PHRASE.finditer(_ALLOWED.sub("", text))] == []
