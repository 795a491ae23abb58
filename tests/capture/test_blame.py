"""Who holds up whom: chains to their roots, cycles by name, weights in samples."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from rogue_hunter.capture.blame import blame, blame_records, suspects
from rogue_hunter.capture.wait_graph import OBSERVERS, strongly_connected
from rogue_hunter.report.capture_text import blame_lines
from rogue_hunter.stream.tick import Record, record
from tests.tools.spindump import check, fixture, of, parsed, samples


def wait(pid: int, thread: str, on: int, on_thread: str | None, samples: int = 10, **more: object) -> Record:
    """A wait between processes p1, p2, ..."""
    return record("spindump_blocker", process=pid, pid=pid, command=f"p{pid}", thread_id=thread,
                  on_pid=on, on_command=f"p{on}", on_thread_id=on_thread, samples=samples,
                  **{"hops": 1, "blocked_by": "turnstile", **more})


@pytest.mark.parametrize("path", samples("spindump/*wswatchdog*"))
def test_the_process_that_held_up_the_machine(path: Path) -> None:
    """In the watchdog's report a thread of WindowServer is the root of the longest chain of waits that are named.

    The kernel itself followed another one over three hops, to loginwindow; both are reported.
    """
    answer = blame(parsed(path.read_bytes()))
    first = answer.roots[0]
    assert (first.command, first.node) == ("WindowServer", (176, "0x3e2"))
    assert first.chain[1:] == ("kernel_task [0] thread 0x13a", "WindowServer [176] thread 0x3e2")
    # 16 threads wait for one that waits for the root, which 5 more wait for: 12 samples each.
    assert (first.waiters, first.samples, first.foreign_samples) == (21, 21 * 12, 18 * 12)
    login = next(root for root in answer.roots if root.command == "loginwindow")
    assert login.hops == 3
    assert login.chain == ("logind [110] thread 0x31f", "2 not named", "loginwindow [374] thread 0xa8f")
    lines = list(blame_lines(answer))
    assert lines[0].startswith("1. WindowServer [176] thread 0x3e2 blocks 21 threads")
    assert "the longest chain of all, 3 hops, ends at loginwindow [374]" in lines
    check(blame_records(answer))


@pytest.mark.parametrize("path", samples("spindump/macos-*"))
def test_every_named_wait_ends_somewhere(path: Path) -> None:
    """No sample of waiting is lost on the way to the roots, and none is made up."""
    records = parsed(path.read_bytes())
    answer = blame(records)
    waits = [b for b in of(records, "spindump_blocker") if not {b["command"], b.get("on_command")} & OBSERVERS]
    named = sum(b["samples"] for b in waits if "on_pid" in b)
    assert sum(root.samples for root in answer.roots) == pytest.approx(named)
    assert answer.unnamed == sum("on_pid" not in b for b in waits)
    assert answer.observers == len(of(records, "spindump_blocker")) - len(waits)


def test_the_programs_that_made_the_report_are_left_out() -> None:
    """launchd waits for the spindump that it started to write the report: that is not what held the machine up. A
    program of Linux with such a name is one like any other."""
    head = b"Report Version: 60\nDuration: 1.00s\nMemory size: 16 GB\n\n"
    observed = b"Process: launchd [1]\nPath: /sbin/launchd\n\n  Thread 0x1  9 samples (1-9)\n" \
        b"  *9  wait4 + 1 (kernel + 5) [0xf] (blocked by wait4 on spindump [7])\n\n" \
        b"Process: spindump [7]\nPath: /usr/sbin/spindump\n\n  Thread 0x2  9 samples (1-9)\n\n"
    busy = b"Process: mediaanalysisd [9]\nCPU Time: 1.100s\nFootprint: 60.25 GB\nNote: Unresponsive for 2 seconds before " \
        b"sampling\n\n  Thread 0x3  9 samples (1-9)\n  9  main + 1 (media + 5) [0xf] (running)\n"
    records = parsed(head + observed + busy)
    answer = blame(records)
    assert (answer.roots, answer.observers) == ((), 1)
    lines = list(blame_lines(answer, suspects=list(suspects(records))))
    assert lines == [
        "no blocker found",
        "mediaanalysisd [9] did not respond for 2.0s: its main thread was running in main (media) for 9 of 9 samples; "
        "CPU time 1.1 s of 1 s sampled; memory 60.2 GiB on a machine of 16.0 GiB",
        "left out: 1 wait of programs that make such reports"]
    mine = parsed((head + observed).replace(b"/usr/sbin/spindump", b"/home/me/spindump"))
    assert [root.command for root in blame(mine).roots] == ["spindump"]


def test_a_deadlock_is_named() -> None:
    """Two that wait for each other in every sample are a deadlock; processes that wait for them are counted."""
    answer = blame(parsed(fixture("deadlock.spin")))
    (root,) = answer.roots
    assert root.cycle == ("alpha [100] thread 0x1", "beta [200] thread 0x2") and root.certain
    assert root.waiters == 3
    lines = list(blame_lines(answer))
    assert lines[0] == "1. deadlock: alpha [100] thread 0x1 -> beta [200] thread 0x2 -> alpha [100] thread 0x1"


def test_a_cycle_that_did_not_last_is_only_possible() -> None:
    """Of 1,000 samples, 3 and 5: the two waits need not have been at the same time."""
    answer = blame([wait(1, "a", 2, "b", 3), wait(2, "b", 1, "a", 5), record("spindump_report", steps=1000)])
    assert answer.roots[0].cycle and not answer.roots[0].certain
    assert next(blame_lines(answer)).startswith("1. possible deadlock:")


def test_a_thread_that_waits_for_itself() -> None:
    """`waiting for this thread` is a cycle of one."""
    report = (b"Process:  p [1]\n\n  Thread 0x1    5 samples (1-5)\n"
              b" *5  f (k) [0x1] (blocked by turnstile waiting for this thread - part of a deadlock)\n")
    (root,) = blame(parsed(report)).roots
    assert root.cycle == ("p [1] thread 0x1",) and root.certain


def test_blame_is_passed_on_up_to_the_time_waited() -> None:
    """14 samples for one that was blocked for 12: 2 end there, 12 behind it, split by weight."""
    answer = blame([wait(1, "a", 2, "b", 14), wait(2, "b", 3, "c", 9), wait(2, "b", 4, "d", 3)])
    kept = {root.command: root.samples for root in answer.roots}
    assert kept == {"p2": pytest.approx(2), "p3": pytest.approx(9 + 9), "p4": pytest.approx(3 + 3)}


def test_many_waiters_behind_one_that_waits_all_the_time() -> None:
    """Each of 16 waits passes on in full: the one in the middle was blocked as long as they were."""
    answer = blame([*(wait(1, f"w{i}", 1, "m", 12) for i in range(16)), wait(1, "m", 2, "r", 12)])
    assert [(root.command, root.samples) for root in answer.roots] == [("p2", 17 * 12)]


def test_a_holder_known_as_a_process_only_is_followed_as_a_guess() -> None:
    """Without a thread id the chain continues with any wait of the process, marked as a guess."""
    answer = blame([wait(1, "a", 2, None), wait(2, "b", 3, "c")])
    root = answer.roots[0]
    assert root.command == "p3" and root.guessed
    assert root.chain == ("p1 [1] thread a", "p2 [2]", "p3 [3] thread c")
    cycle = blame([wait(1, "a", 2, None), wait(2, "b", 1, None)]).roots[0]
    assert {name.split(" ")[0] for name in cycle.cycle} == {"p1", "p2"}


def test_a_thread_counted_in_a_group_is_followed() -> None:
    """`0xa,0xb` waits: who waits for 0xb waits behind that."""
    answer = blame([wait(1, "x", 2, "0xb"), wait(2, "0xa,0xb", 3, "c")])
    assert answer.roots[0].command == "p3" and answer.roots[0].guessed


def test_a_thread_named_without_its_process() -> None:
    """The report's list of threads shows whose it is."""
    thread = record("spindump_thread", process=2, pid=2, command="p2", thread_id="0x9", state="sleeping")
    edge = {k: v for k, v in wait(1, "a", 2, "0x9").items() if k not in ("on_pid", "on_command")}
    process = record("spindump_process", process=2, pid=2, command="holder")
    assert blame([edge, process, thread]).roots[0].command == "holder"


def test_own_threads_weigh_less_than_others() -> None:
    """A pool that waits for itself ranks behind a process that holds up another one."""
    answer = blame([*(wait(1, f"w{i}", 1, "m", 1000) for i in range(50)), wait(2, "a", 3, "b", 1)])
    assert [root.command for root in answer.roots] == ["p3", "p1"]


def test_hops_are_counted_in_the_chain() -> None:
    """Links that the kernel followed without naming them lengthen the chain and are reported."""
    answer = blame([wait(1, "a", 2, "b", hops=4), wait(2, "b", 3, "c")])
    assert answer.roots[0].hops == 5
    assert answer.roots[0].chain == ("p1 [1] thread a", "3 not named", "p2 [2] thread b", "p3 [3] thread c")


def test_a_wait_for_input_is_blamed_but_passes_no_blame_on() -> None:
    """Who waits for a lock whose holder reads a pipe is held up by the holder; two idle ends are no deadlock."""
    answer = blame([wait(1, "a", 2, "b", 10), wait(2, "b", 3, "c", 10, blocked_by="pipe read")])
    assert [(r.command, r.samples, r.waiters, r.hops) for r in answer.roots] == [("p2", 10, 1, 1), ("p3", 10, 1, 1)]
    idle = blame([wait(1, "a", 2, "b", blocked_by="socket read"), wait(2, "b", 1, "a", blocked_by="socket read")])
    assert not any(root.cycle for root in idle.roots)


def test_nothing_to_blame() -> None:
    """No waits, or none that names anybody."""
    assert list(blame_lines(blame([]))) == ["no blocker found"]
    port = record("spindump_blocker", process=1, pid=1, command="p", thread_id="a", blocked_by="turnstile", samples=1,
                  on_what="receive port")
    assert blame([port]).unnamed == 1


def test_a_hostile_name_stays_a_name() -> None:
    """Escapes in a name do not reach the terminal."""
    edge = wait(1, "a", 2, "b")
    edge["on_command"] = "\x1b]52;c;evil\x07\u202e"
    assert not any(c in line for line in blame_lines(blame([edge])) for c in "\x1b\x07\u202e")


@pytest.mark.slow
def test_a_chain_of_two_thousand_and_a_crowd() -> None:
    """A convoy of thousands is answered without recursion and without much work."""
    chain = [wait(i, "t", i + 1, "t") for i in range(1, 2000)]
    root = blame(chain).roots[0]
    assert (root.command, root.hops, root.waiters) == ("p2000", 1999, 1999)
    crowd = blame([wait(i, "t", 1, "t") for i in range(2, 2000)]).roots[0]
    assert (crowd.command, crowd.processes) == ("p1", 1998)


def test_the_same_records_give_the_same_answer() -> None:
    """The answer does not hang on the order of waits."""
    edges = [wait(1, "a", 2, "b", 3), wait(2, "b", 3, "c", 2), wait(4, "d", 3, "c", 9), wait(5, "e", 2, "b", 1)]
    wanted = [(r.command, round(r.samples, 6)) for r in blame(edges).roots]
    for seed in range(5):
        random.Random(seed).shuffle(edges)
        assert [(r.command, round(r.samples, 6)) for r in blame(edges).roots] == wanted


def test_components_and_order() -> None:
    """Tarjan's components on a known graph, holders before their waiters."""
    graph = {1: [2], 2: [3], 3: [1, 4], 4: [5], 5: [4], 6: [6]}
    found = strongly_connected(graph)
    assert sorted(sorted(c) for c in found) == [[1, 2, 3], [4, 5], [6]]
    home = {n: i for i, c in enumerate(found) for n in c}
    assert home[1] > home[4]
