"""The parts of tests.fresh that need no root: pip's configuration, the table of results."""

from __future__ import annotations

import configparser
from pathlib import Path

from tests.fresh.__main__ import CELLS, HEAD, Outcome, merged, row
from tests.fresh.machine import config_text, named_paths


def test_the_configuration_of_pip_is_written_as_pip_reads_it(tmp_path: Path) -> None:
    """A value of several lines stays one value; paths and file URLs that exist are found, for an index its directory."""
    index = tmp_path / "an index" / "simple"
    index.mkdir(parents=True)
    settings = {"global": {"cert": str(tmp_path / "none.pem"), "find-links": str(tmp_path),
                           "extra-index-url": f"\n{index.as_uri()}\nhttps://example.org/simple"}}
    read = configparser.RawConfigParser()
    read.read_string(config_text(settings))
    assert read["global"]["extra-index-url"].split() == [index.as_uri(), "https://example.org/simple"]
    assert read["global"]["find-links"] == str(tmp_path)
    assert named_paths(settings) == [tmp_path, index.parent]


def test_a_run_of_some_cells_replaces_their_rows_only() -> None:
    first = [row(Outcome(cell, "3.9", 1, 2, 3, "green", True, "5 passed"), ["--quick"], "abc, 2026") for cell in CELLS]
    text = merged("", first)
    assert text == HEAD + "\n".join(first) + "\n"
    again = row(Outcome(CELLS[1], "3.10", 1, 2, None, "first command: status 69"), [], "def, 2026")
    lines = merged(text, [again]).removeprefix(HEAD).splitlines()
    assert lines == [first[0], again, *first[2:]]
    assert all(line.count("|") == HEAD.splitlines()[-1].count("|") for line in lines)
