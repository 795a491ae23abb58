"""Which of a user's files holds the rules."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rogue_hunter.config.toml import RULE_TABLES
from rogue_hunter.rules.load import builtin, user_file, user_rules
from rogue_hunter.rules.model import RuleError

RULE = '[[rules]]\nname = "{}"\nconditions = {{ score_min = 1 }}\n'


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "rogue-hunter"
    folder.mkdir()
    return folder


def test_without_a_file_the_builtin_ones(home: Path) -> None:
    assert user_file() is None and user_rules() == builtin()


def test_the_configuration_if_it_has_rules_else_the_file_beside_it(home: Path) -> None:
    main, beside = home / "config.toml", home / "reaper.toml"
    main.write_text("[system]\nhz = 5\n")
    assert user_file() is None
    beside.write_text(RULE.format("beside"))
    assert user_file() == beside and user_rules().rules[0].name == "beside"
    beside.unlink()
    main.write_text(RULE.format("main"))
    assert user_file() == main and user_rules().rules[0].name == "main"


def test_a_mark_at_the_beginning_is_no_part_of_the_file(home: Path) -> None:
    """Editors on Windows write the byte order mark."""
    (home / "config.toml").write_text("\ufeff" + RULE.format("main"))
    assert user_file() == home / "config.toml" and user_rules().rules[0].name == "main"


@pytest.mark.parametrize("table", RULE_TABLES)
def test_in_both_is_an_error_that_names_both(home: Path, table: str) -> None:
    main, beside = home / "config.toml", home / "reaper.toml"
    main.write_text(f"[[{table}]]\n")
    beside.write_text("")
    words = f"{main} has a table {table}, and {beside} exists too: keep the rules in one of the two"
    with pytest.raises(RuleError, match=f"^{re.escape(words)}$"):
        user_file()


def test_a_file_that_is_named_alone_counts(home: Path, tmp_path: Path) -> None:
    named, project = tmp_path / "named.toml", tmp_path / ".reaper.toml"
    for file in (home / "config.toml", home / "reaper.toml"):
        file.write_text(RULE.format("other"))
    named.write_text(RULE.format("named"))
    project.write_text('[[rules]]\nname = "named"\nenabled = false\n')
    project.chmod(0o600)
    assert user_file(named) == named and user_rules(named).rules[0].name == "named"
    assert user_rules(named).enabled and not user_rules(named, project).enabled
    assert user_file(tmp_path / "none") == tmp_path / "none"


@pytest.mark.parametrize("data", [b"\xff", b"x =", b"x = " + b"[" * 5000, b"x = " + b"9" * 5000], ids=len)
def test_a_configuration_that_cannot_be_read_holds_none(home: Path, data: bytes) -> None:
    """Who reads the configuration itself says what is wrong with it."""
    (home / "config.toml").write_bytes(data)
    assert user_file() is None
    (home / "reaper.toml").write_text("")
    assert user_file() == home / "reaper.toml"
