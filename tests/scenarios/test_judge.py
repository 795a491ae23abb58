"""The judge of the scenarios: what counts as right, and what as blame of somebody innocent."""

from __future__ import annotations

import pytest

from tests.scenarios.catalogue import ALL, Scenario, find
from tests.scenarios.judge import mark, mark_top, top_first


def truth(kind: str = "culprit") -> Scenario:
    return Scenario("cpu-x", kind, "", lambda stage: None, who=("indexer",), causes=("cpu",), victims=("player",))


RIGHT = {"cause": "cpu", "command": "python3", "who": [{"command": "python3", "name": "python3 indexer.py"}]}
WRONG = {"cause": "cpu", "command": "bash", "who": [{"command": "bash"}]}


def test_the_first_name_counts() -> None:
    """A process that is listed first under the first cause is the one that is named."""
    assert mark(truth(), "found", [RIGHT], [], "").cell() == "1c"
    assert mark(truth(), "found", [WRONG, RIGHT], [], "").cell() == "3cB"
    assert mark(truth(), "found", [WRONG], [], "").cell() == "-cB"
    assert mark(truth(), "nothing", [], [], "").cell() == "--"


def test_victims_are_asked_for_where_there_are_any() -> None:
    """A right answer also names who suffers."""
    assert mark(truth(), "found", [RIGHT], [{"name": "player.py"}], "").victims is True
    assert mark(truth(), "found", [RIGHT], [], "").victims is False


def test_use_is_no_blame() -> None:
    """On a control only a verdict of trouble with a name counts as blame."""
    assert not mark(truth("benign"), "use", [RIGHT], [], "").blamed
    assert mark(truth("benign"), "found", [RIGHT], [], "").blamed


def test_top_names_its_first_line_that_is_not_ours() -> None:
    """The last screen, without top itself and rh-pipe."""
    output = ("PID USER PR NI VIRT RES SHR S %CPU %MEM TIME+ COMMAND\n    5 root 20 0 1 1 1 R 50.0 0.1 0:01.00 old\n"
              "PID USER PR NI VIRT RES SHR S %CPU %MEM TIME+ COMMAND\n"
              "    9 root      20   0    1    1    1 R  99.0   0.1   0:01.00 top -b\n"
              "    7 root      20   0    1    1    1 R  98.0   0.1   0:01.00 python3 indexer.py\n"
              "    8 root      20   0    1    1    1 R  40.0   0.1   0:01.00 rh-pipe\n")
    assert top_first(output, {8}) == ["python3 indexer.py"]
    assert mark_top(truth(), ["python3 indexer.py"]).cell() == "1c"


def test_the_catalogue_is_whole() -> None:
    """At least 40 scenarios, each of its own name, each with a truth that can be met, controls among them."""
    assert len(ALL) >= 40 and len({one.name for one in ALL}) == len(ALL)
    for one in ALL:
        assert one.kind in ("culprit", "self", "nobody", "benign")
        assert bool(one.who and one.causes) or one.kind in ("benign", "nobody"), one.name
    assert len(find(["ok"])) >= 5
    with pytest.raises(KeyError):
        find(["nonsense"])
