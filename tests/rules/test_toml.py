"""Rules as TOML: what is printed is what was read, and it names every key that a rule file can hold."""

from __future__ import annotations

import re
import tomllib

import pytest

from rogue_hunter.config.toml import RULE_TABLES
from rogue_hunter.rules.load import builtin, parse, rules_toml, settings_of
from rogue_hunter.rules.model import RuleError, RuleSet

OWN = """
[safety]
whitelist_processes = ["my tool", "quo\\"te"]
max_per_run = 3
[logging]
file = "/var/log/a.log"
max_size_mb = 0.5
[metrics]
enabled = true
[[rules]]
name = "nested"
enabled = false
conditions = { any = [{ cpu_percent_min = 90 }, { not = { user = "root" } , age_hours = 1 }], age_seconds = 5 }
action = { type = "kill", signal = "SIGKILL", fallback_signal = "none" }
"""


def plain(rules: RuleSet) -> tuple[object, ...]:
    """Settings and rules without examples and origins, which the text does not hold; conditions as the table says."""
    return (rules.safety, rules.settings, *((each.name, each.enabled, each.priority, each.action, each.table) for each in rules.rules))


@pytest.mark.parametrize("rules", [builtin(), parse(OWN.encode(), "own")], ids=["built-in", "own"])
def test_reading_the_text_gives_the_same_rules(rules: RuleSet) -> None:
    assert plain(parse(rules_toml(rules).encode())) == plain(rules)


def test_the_comments_of_a_new_file_change_nothing_and_hold_every_table() -> None:
    """A header that is no comment would make the configuration file the file of rules."""
    text = rules_toml(builtin(), comment=True)
    assert tomllib.loads(text) == {}
    for table in RULE_TABLES:
        assert re.search(rf"^# \[+{table}\]+$", text, re.MULTILINE), table
    uncommented = "\n".join(line.removeprefix("# ") for line in text.splitlines() if re.match(r"# (\[|\w+ = )", line))
    read = parse(uncommented.replace('file = "/path/to/file"\n', "").replace("min_pid = 1000\n", "").encode())
    assert plain(read) == plain(builtin())


def test_every_key_that_a_table_can_hold_is_listed() -> None:
    """The reader is asked: it takes each listed key, and refuses any other by its name."""
    for table, keys in settings_of(builtin()):
        with pytest.raises(RuleError) as caught:
            parse(f"[{table}]\nno_such_key = 1\n".encode())
        assert "no_such_key" in str(caught.value)
        assert all(doc for _, _, doc in keys)
