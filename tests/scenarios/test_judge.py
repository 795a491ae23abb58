"""The judge of the scenarios: what counts as right, and what as blame of an innocent process."""

from __future__ import annotations

import pytest

from tests.scenarios import catalogue, rare
from tests.scenarios.judge import mark, mark_peer
from tests.scenarios.peers import Reading, atop_reading, expert, pidstat_reading, top_reading
from tests.scenarios.scenario import ALL, Scenario, find


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


def test_a_list_behind_a_sentence_that_names_no_process_is_no_answer() -> None:
    """No process alone has a good part: its first is named in the sentence, or none is."""
    silent = {"cause": "cpu", "words": "others waited", "who": RIGHT["who"]}
    assert mark(truth(), "found", [silent], [], "").cell() == "-cB"
    named = {**silent, "words": "others waited; no process alone: the highest was python3 indexer.py"}
    assert mark(truth(), "found", [named], [], "").cell() == "1c"


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
    assert top_reading(output, {8}) == Reading(["python3 indexer.py"], "cpu")
    assert mark_peer(truth(), Reading(["python3 indexer.py"], "cpu")).cell() == "1c"


def test_a_directory_is_no_name() -> None:
    """Files of a scenario lie in a directory with its name, which says nothing about who is named."""
    victim = {"cause": "cpu", "command": "python3", "cmdline": "python3 /tmp/indexer-1/player.py"}
    assert mark(truth(), "found", [victim], [], "").cell() == "-cB"


ATOP = """PRC vm 1 2026/11/28 02:00:00 9 7 (old) S 100 900 0 0
SEP
DSK vm 1 2026/11/28 02:00:03 3 vda {busy} 1 2 3
PRG vm 1 2026/11/28 02:00:03 3 7 (python3) R 0 0 7 1 0 1 (python3 indexer.py) 1 0 1
PRG vm 1 2026/11/28 02:00:03 3 9 (dd) D 0 0 9 1 0 1 (dd if=x) 1 0 1
PRC vm 1 2026/11/28 02:00:03 3 7 (python3) R 100 250 20 0
PRC vm 1 2026/11/28 02:00:03 3 9 (dd) D 100 10 20 0
PRD vm 1 2026/11/28 02:00:03 3 9 (dd) D n y 5 90000 0 0 0
SEP
"""
PIDSTAT = """Linux (vm)
# Time        UID       PID   kB_rd/s   kB_wr/s kB_ccwr/s iodelay  Command
02:00:03        0         7      0.00    252.00     24.00       0  python3 indexer.py
02:00:03        0         9  90000.00      0.00     24.00       0  dd if=x
"""


def test_other_tools_are_read_as_an_operator_reads_them() -> None:
    """atop marks a busy disk; pidstat -d ranks by traffic; an expert asks the disk first if CPUs wait for it."""
    assert atop_reading(ATOP.format(busy=100), set()).commands[0] == "python3 python3 indexer.py"
    assert atop_reading(ATOP.format(busy=2900), set()) == Reading(["dd dd if=x"], "io")
    disk = pidstat_reading(PIDSTAT, set())
    assert disk == Reading(["dd if=x", "python3 indexer.py"], "io")
    screen = "%Cpu(s): 10.0 us, 5.0 sy, 0.0 ni, 40.0 id, {wa} wa\nx /usr/bin/sleep. wa\n  PID USER      PR\n" \
             "    7 root      20   0    1    1    1 R  98.0   0.1   0:01.00 python3 indexer.py\n"
    assert expert(screen.format(wa="45.0"), {"pidstat": disk}, "", set()).commands[0] == "dd if=x"
    assert expert(screen.format(wa="1.0"), {"pidstat": disk}, "", set()) == Reading(["python3 indexer.py"], "cpu")
    assert expert("", {}, "    9 D    cat /mnt/x\n", set()) == Reading(["cat /mnt/x"], "io")


def test_the_catalogue_is_whole() -> None:
    """At least 60 scenarios, each of its own name, each with a truth that can be met, controls among them."""
    assert catalogue and rare and len(ALL) >= 60 and len({one.name for one in ALL}) == len(ALL)
    for one in ALL:
        assert one.kind in ("culprit", "self", "nobody", "benign")
        assert bool(one.who and one.causes) or one.kind in ("benign", "nobody"), one.name
    assert len(find(["ok"])) >= 5
    with pytest.raises(KeyError):
        find(["nonsense"])
