"""The mutation run itself: which changes it makes, and what it writes down of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mutation import results
from mutation.operators import Mutant, mutants
from mutation.targets import TARGETS

REPO = Path(__file__).resolve().parent.parent


def changes(code: str) -> list[str]:
    return [m.apply(code.encode()).decode() for m in mutants(code.encode())]


@pytest.mark.parametrize(("code", "expected"), [
    ("a < b", ["a <= b"]), ("a is not b", ["a is b"]), ("a not in b", ["a in b"]), ("a + b", ["a - b"]),
    ("x = 5", ["x = 6"]), ("x = True", ["x = False"]), ("x = 'word'", ["x = 'wordXX'"]), ("x = b'a'", ["x = b'aXX'"]),
    ("x = 'a sentence'", []), ("x = f'{a}'", []), ("import x", []), ("x: int = y", []), ("assert x", []),
    ("f(x)", ["pass"]), ("x.a = y", ["pass"]), ("x += y", ["pass"]), ("raise X", ["pass"]),
    ("x = -y", ["x = (y)"]), ("x = not y", ["x = (y)"]), ("x = min(y)", ["x = max(y)"]),
    ("x = y.startswith(z)", ["x = y.endswith(z)"]),
    ("while x:\n    break", ["while (not (x)):\n    break", "while x:\n    continue"]),
    ("if TYPE_CHECKING:\n    x = 5", []),
    ("def f():\n    '''Docstring'''\n    return y", ["def f():\n    '''Docstring'''\n    return None"]),
    ("def f(a=5): pass", ["def f(a=6): pass"]), ("__slots__ = ('a',)", []),
], ids=lambda v: v if isinstance(v, str) else "")
def test_one_small_change_at_a_time(code: str, expected: list[str]) -> None:
    assert changes(code) == expected


@pytest.mark.parametrize("module", ["rules/window", "reap/judge"])
def test_every_change_of_a_module_is_python_and_a_change(module: str) -> None:
    source = (REPO / "rogue_hunter" / f"{module}.py").read_bytes()
    found = list(mutants(source))
    assert len(found) > 20 and len({(m.start, m.end, m.text) for m in found}) == len(found)
    for mutant in found:
        assert mutant.apply(source) != source and compile(mutant.apply(source), module, "exec")


def test_what_must_notice_is_there() -> None:
    assert all((REPO / "tests" / test).is_file() for tests in TARGETS.values() for test in tests)
    assert all((REPO / "rogue_hunter" / f"{module}.py").is_file() for module in TARGETS)


def outcome(module: str, tried: int, *survivors: str) -> results.Outcome:
    lines = ["x = 5 | 6", "y = 7"]
    return results.Outcome(module, tried, [Mutant(0, 1, "", 1, change) for change in survivors], lines)


def test_a_record_replaces_its_own_module_and_keeps_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two may write at the same time: each reads what is there and replaces its rows."""
    monkeypatch.setattr(results, "PATH", tmp_path / "RESULTS.md")
    results.keep(outcome("wire", 10, "5 -> 6", "| -> &"))
    results.keep(outcome("reap/guards", 30, "a -> b"))
    text = results.PATH.read_text()
    assert "| wire | 10 | 8 | 80.0 % |" in text and "| all | 40 | 37 | 92.5 % |" in text
    assert "| wire | `x = 5 ¦ 6` | ¦ -> & |  |" in text
    results.PATH.write_text(text.replace("| 5 -> 6 |  |", "| 5 -> 6 | because |"))
    results.keep(outcome("reap/guards", 30))
    results.keep(outcome("wire", 12, "5 -> 6", "7 -> 8"))
    text = results.PATH.read_text()
    assert text.splitlines()[6:10] == ["|---|---|---|---|", "| reap/guards | 30 | 30 | 100.0 % |",
                                       "| wire | 12 | 10 | 83.3 % |", "| all | 42 | 40 | 95.2 % |"]
    assert [line for line in text.splitlines() if "`" in line and line.startswith("|")] == [
        "| wire | `x = 5 ¦ 6` | 5 -> 6 | because |", "| wire | `x = 5 ¦ 6` | 7 -> 8 |  |"]


def test_a_record_keeps_modules_that_are_newer_than_its_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "PATH", tmp_path / "RESULTS.md")
    results.keep(outcome("brand/new", 10, "5 -> 6"))
    results.keep(outcome("wire", 10, "a -> b"))
    text = results.PATH.read_text()
    assert text.index("| wire | 10 |") < text.index("| brand/new | 10 | 9 |") < text.index("| all | 20 | 18 |")
    assert text.index("| wire | `") < text.index("| brand/new | `")


HELD = ("reap/guards", "reap/identity", "reap/judge", "reap/candidate", "reap/budget", "rules/", "match", "score/", "wire")
"""Where a mistake ends the wrong process, or shows the wrong one: these are held to nine of ten."""


def test_the_last_run_noticed_nine_of_ten_where_it_counts_and_says_why_of_the_rest() -> None:
    first, _, second = results.PATH.read_text(encoding="utf-8").partition("| module | line of code |")
    counts = re.findall(r"^\| ([a-z_/]+) \| (\d+) \| (\d+) \|", first, re.MULTILINE)
    held = [(name, int(tried), int(noticed)) for name, tried, noticed in counts if name.startswith(HELD)]
    rows = [row for row in second.splitlines() if row.removeprefix("| ").startswith(HELD)]
    assert len(held) == sum(name.startswith(HELD) for name in TARGETS)
    assert not [name for name, tried, noticed in held if noticed < 0.9 * tried]
    assert sum(tried - noticed for _, tried, noticed in held) == len(rows)
    assert not [row for row in rows if row.endswith("|  |")]
