"""The checks of TOML values: what each accepts, and the error about what it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rogue_hunter.config import toml
from rogue_hunter.config.toml import ConfigError, Place
from rogue_hunter.text.errors import RogueHunterError

PLACE = Place("f.toml").at("t").at("k")


class OtherError(RogueHunterError):
    """The error class of another kind of file."""


@pytest.mark.parametrize(("checked", "value", "result"), [
    (lambda v: toml.number(v, PLACE), 3, 3.0), (lambda v: toml.number(v, PLACE, 0, 5), 5.0, 5.0),
    (lambda v: toml.whole(v, PLACE, 0), 7, 7), (lambda v: toml.flag(v, PLACE), False, False),
    (lambda v: toml.text(v, PLACE), "a", "a"), (lambda v: toml.text(v, PLACE, empty=True), "", ""),
    (lambda v: toml.choice(v, ("a", "b"), PLACE), "b", "b"), (lambda v: toml.texts(v, PLACE), ["a"], ("a",)),
    (lambda v: toml.table(v, PLACE), {}, {}),
    (lambda v: toml.tables(v, PLACE), [{}], [{}]),
])
def test_good_values(checked: Callable[[Any], object], value: object, result: object) -> None:
    assert checked(value) == result


@pytest.mark.parametrize(("checked", "value", "reason"), [
    (lambda v: toml.number(v, PLACE), True, "must be a number, not true"),
    (lambda v: toml.number(v, PLACE), float("nan"), "must be finite, not nan"),
    (lambda v: toml.number(v, PLACE, 1), 0, "must be at least 1, not 0"),
    (lambda v: toml.number(v, PLACE, 1, 2), 3.5, "must be from 1 to 2, not 3.5"),
    (lambda v: toml.whole(v, PLACE), 1.0, "must be a whole number, not 1.0"),
    (lambda v: toml.flag(v, PLACE), "no", 'must be true or false, not "no"'),
    (lambda v: toml.text(v, PLACE), " ", "must not be empty"),
    (lambda v: toml.text(v, PLACE), 5, "must be a text, not 5"),
    (lambda v: toml.text(v, PLACE), "a\0b", 'must be a text without NUL characters, not "a\\u0000b"'),
    (lambda v: toml.texts(v, PLACE), ["a\0b"], 'must be an array of texts, not ["a\\u0000b"]'),
    (lambda v: toml.choice(v, ("high", "low"), PLACE), "hihg",
     'must be one of high, low, not "hihg"; did you mean high?'),
    (lambda v: toml.choice(v, ("high", "low"), PLACE), ["high"], 'must be one of high, low, not ["high"]'),
    (lambda v: toml.texts(v, PLACE), "a", 'must be an array of texts, not "a"'),
    (lambda v: toml.texts(v, PLACE, ("a",)), ["b"], 'must be one of a, not "b"'),
    (lambda v: toml.table(v, PLACE), [], "must be a table, not []"),
    (lambda v: toml.tables(v, PLACE), {"a": 1}, "must be an array of tables, not { a = 1 }"),
])
def test_bad_values(checked: Callable[[Any], object], value: object, reason: str) -> None:
    """The error names file, key, reason and the value as it is in the file."""
    with pytest.raises(ConfigError) as error:
        checked(value)
    assert str(error.value) == f"f.toml: t.k: {reason}"


def test_another_class_of_errors() -> None:
    """A place knows the class of the errors about its file."""
    place = Place("rules.toml", kind=OtherError)
    with pytest.raises(OtherError, match=r"rules\.toml: nme: unknown key; did you mean name\?"):
        toml.known_keys({"nme": 1}, ("name", "conditions"), place)
    with pytest.raises(OtherError, match="must be one of x"):
        toml.choice("y", ("x",), place)
