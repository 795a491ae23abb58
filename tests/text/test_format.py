"""Words and numbers for people: no name of a process moves the cursor, hides or turns text, or becomes a formula."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rogue_hunter.stream import wire
from rogue_hunter.text import format
from rogue_hunter.text.errors import RogueHunterError

# Signs that stand before Arabic and Kaithi numbers: of category Cf, but drawn, and they move nothing.
DRAWN = {0x600, 0x601, 0x602, 0x603, 0x604, 0x605, 0x6DD, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}


def test_every_character_that_a_terminal_would_obey() -> None:
    """All of Unicode: controls, surrogates, line separators and format characters are escaped; ASCII is not."""
    for code in range(0x110000):
        char = chr(code)
        shown = format.visible(char)
        if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp", "Cf") and code not in DRAWN:
            assert shown != char and shown.isascii() and shown.isprintable(), hex(code)
        elif 0x20 <= code < 0x7F:
            assert shown == char
    assert format.visible("naïve 日本 ü ✓") == "naïve 日本 ü ✓"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\x1b[2J", r"\x1b[2J"),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\x9b31m", r"\x9b31m"),
        ("abc\u202egpj.exe", r"abc\u202egpj.exe"),
        ("a\u200bb", r"a\u200bb"),
        ("\U000e0041", r"\U000e0041"),
        ("\ud83d", r"\ud83d"),
        ("\x00\x7f", r"\x00\x7f"),
        ("\x1b]52;c;ZXZpbA==\x07", r"\x1b]52;c;ZXZpbA==\x07"),
    ],
)
def test_visible(name: str, shown: str) -> None:
    """Known attacks: clearing the screen, writing the clipboard, turning a file name round, a second line."""
    assert format.visible(name) == shown


@given(st.text(st.characters()), st.integers(0, 12))
def test_clip_fits(name: str, width: int) -> None:
    """A clipped text is never wider than asked for, and is the whole text whenever that fits."""
    clipped = format.clip(name, width)
    assert format.columns(clipped) <= width
    shown = format.visible(name)
    assert (
        clipped == shown
        if format.columns(shown) <= width
        else clipped in ("", *(shown[:i] + "…" for i in range(len(shown))))
    )


@pytest.mark.parametrize(
    ("name", "width", "clipped"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdef", 5, "abcd…"),
        ("日本語", 6, "日本語"),
        ("日本語", 5, "日本…"),
        ("日本語", 4, "日…"),
        ("ab", 1, "…"),
        ("ab", 0, ""),
    ],
)
def test_clip(name: str, width: int, clipped: str) -> None:
    """As much as fits, and an ellipsis where something is missing; a wide character counts two columns."""
    assert format.clip(name, width) == clipped


@given(st.text())
def test_json_for_a_terminal_means_the_same(text: str) -> None:
    data = wire.dumps({"a": text.encode("utf-8", "ignore").decode()}) + b"\n"
    shown = format.visible_json(data)
    assert wire.loads(shown) == wire.loads(data) and shown.endswith(b"\n")
    assert format.visible(shown.decode()[:-1]) == shown.decode()[:-1]


@pytest.mark.parametrize(("name", "text"), [(b"/a/\xff\xc3\xa9", "/a/\\xff\u00e9"), (b"/a\\x41", "/a\\x41"), (b"", "")])
def test_a_path_as_text_and_back(name: bytes, text: str) -> None:
    """Bytes that are not UTF-8 become escapes, in the message of an error too."""
    path = name.decode("utf-8", "surrogateescape")
    assert format.path_text(path) == text and format.path_of(text) == path
    assert str(RogueHunterError(f"{path}: no")) == f"{text}: no"


def test_half_a_pair_in_an_error_is_an_escape() -> None:
    """No path has one; a name in a configuration or a record may."""
    assert str(RogueHunterError("\ud800 \udcff")) == "\\ud800 \\xff"


def test_a_path_that_looks_like_an_escape(tmp_path: Path) -> None:
    """A file of that very name is meant."""
    file = tmp_path / "\\xff"
    file.touch()
    assert format.path_of(format.path_text(file)) == str(file)


def test_columns() -> None:
    """Wide characters take two columns, combining ones none."""
    assert format.columns("a日e\u0301") == 4


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (None, ""),
        (0, "0"),
        (-1.5, "-1.5"),
        ("=1+1", "'=1+1"),
        ("+x", "'+x"),
        ("-x", "'-x"),
        ("@x", "'@x"),
        ("\tx", r"'\tx"),
        ("a\x1b[2J\x9b", r"a\x1b[2J\x9b"),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_csv_cell(value: object, cell: str) -> None:
    """A name never becomes a formula; a negative number stays a number; unknown is empty."""
    assert format.csv_cell(value) == cell


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""),
        (0, "0.0s"),
        (4.46, "4.5s"),
        (9.94, "9.9s"),
        (9.96, "10s"),
        (59.4, "59s"),
        (59.6, "1m 00s"),
        (123, "2m 03s"),
        (3599.6, "1h 00m"),
        (3725, "1h 02m"),
        (86399.9, "1d 00h"),
        (90_000, "1d 01h"),
        (-4.5, "-4.5s"),
        (-90, "-1m 30s"),
    ],
)
def test_duration(seconds: float | None, words: str) -> None:
    """The two largest units, rounded; sixty seconds are never written as such."""
    assert format.duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (None, ""),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (102_349, "100 KiB"),
        (1_048_535, "1.0 MiB"),
        (8 << 30, "8.0 GiB"),
        (5 << 50, "5120 TiB"),
        (-1536, "-1.5 KiB"),
    ],
)
def test_size(count: float | None, words: str) -> None:
    """Binary units, at most three digits below the largest unit."""
    assert format.size(count) == words


@given(st.floats(-1e12, 1e12))
def test_size_has_three_digits(count: float) -> None:
    """No size that people meet has more than three digits."""
    assert sum(c.isdigit() for c in format.size(count)) <= 3


def test_sparkline() -> None:
    """One character a value, scaled to the highest or to `top`; unknown is blank, and all zero draws nothing."""
    assert format.sparkline([0, 1, 2, 4, None, 8]) == " ▁▂▄ █"
    assert format.sparkline([50], top=100) == "▄"
    assert format.sparkline([200, -5], top=100) == "█ "
    assert format.sparkline([]) == ""
    assert format.sparkline([0, 0.0]) == "  "
    assert format.sparkline([None]) == " "
