"""What the shell's completion offers for rh-report, whose options may come before the view."""

from __future__ import annotations

import pytest
from click.shell_completion import ShellComplete

from rogue_hunter.cli.report import VIEWS, command


def offered(args: list[str], word: str) -> list[tuple[str, str]]:
    """Type and value of each completion of `word` after `args`."""
    complete = ShellComplete(command, {}, "rh-report", "_RH_REPORT_COMPLETE")
    return [(item.type, item.value) for item in complete.get_completions(args, word)]


@pytest.mark.parametrize(("args", "word", "expected"), [
    ([], "", [("plain", name) for name in VIEWS]),
    ([], "--d", [("plain", "--db")]),
    (["--db"], "", [("file", "")]),
    (["--db", "x.db"], "ev", [("plain", "events"), ("plain", "event")]),
    (["--db", "x.db", "why"], "--a", [("plain", "--at")]),
    (["events"], "--d", [("plain", "--db")]),
    (["events"], "--a", []),
])
def test_options_complete_before_and_after_the_view(args: list[str], word: str,
                                                    expected: list[tuple[str, str]]) -> None:
    assert offered(args, word) == expected
