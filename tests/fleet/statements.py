"""The shipped statements for ClickHouse, for its engine as a library."""

from __future__ import annotations

import re

from rogue_hunter.fleet.demo import example


def statements_without_nats() -> list[str]:
    """Those of the shipped file; in place of the NATS engine a table that is filled by hand, with the time of receipt."""
    text = example("clickhouse.sql").decode()
    text, count = re.subn(r"\(line String\) ENGINE = NATS\nSETTINGS [^;]*;",
                          "(line String, _subject String, at Float64) ENGINE = Null;", text)
    assert count == 1
    text = text.replace("toUnixTimestamp64Milli(now64(3)) / 1000. AS received", "at AS received")
    text = re.sub(r"(?m)^--.*$", "", text)
    return [statement.strip() for statement in text.split(";") if statement.strip()]
