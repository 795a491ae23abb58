"""Laws of the verdict over random windows: the same input gives the same answer, sums hold, nothing is mixed up."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rogue_hunter.report.verdict_text import cause_fields, cause_words
from rogue_hunter.stream import wire
from rogue_hunter.verdict.engine import culprits, verdict
from rogue_hunter.verdict.model import Slice, Verdict, Window
from tests.tools.windows import BOOT, GIB, MIB, START, one, process, window

NAMES = ("sh", "python3", "dd", "kworker/u8:2", "make", "cc1", "tmux: server", "evil\x1b[2J")


@st.composite
def windows(draw: st.DrawFn) -> Window:
    """One to six slices with up to eight processes, some of them in units, with every kind of reading."""
    rnd = random.Random(draw(st.integers(0, 2**32)))
    people = [process(rnd.randrange(3, 40), rnd.choice(NAMES), ppid=rnd.choice((1, 2, 900, 7)),
                      start_ticks=rnd.randrange(3), cmdline=rnd.choice(("", "x --y", "bash job.sh")),
                      unit=rnd.choice(("", "a.service", "make[7]")), own=rnd.random() < 0.1,
                      cgroup=rnd.choice(("", "/q", "/"))) for _ in range(rnd.randrange(9))]
    people = list({(p["pid"], p["start_ticks"]): p for p in people}.values())
    slices = []
    for index in range(rnd.randrange(1, 7)):
        rows = [{**p, "cores": rnd.choice((0.0, 0.1, 0.9)), "child_cores": rnd.choice((0.0, 0.0, 0.4)),
                 "delay": rnd.choice((0.0, 0.2, 1.5)), "stuck": rnd.choice((0.0, 0.8)),
                 "disk_bytes": rnd.choice((0, 5 * MIB, GIB)), "memory_bytes": rnd.randrange(GIB),
                 "memory_growth_bytes": rnd.choice((0, GIB)), "pageins": rnd.choice((0, 9000)),
                 "wakeups": rnd.choice((0, 99_000)), "gpu_seconds": rnd.choice((0.0, 4.9))} for p in people]
        fields: dict[str, Any] = {
            "pressure_cpu_some_ms_per_s": rnd.choice((0.0, 900.0)), "late_s": rnd.choice((0.0, 0.9)),
            "pressure_memory_full_ms_per_s": rnd.choice((0.0, 400.0)),
            "pressure_io_full_ms_per_s": rnd.choice((0.0, 700.0)), "device_bytes": rnd.choice((0, GIB)),
            "memory_available_bytes": rnd.choice((GIB // 8, 5 * GIB)), "uninterruptible": rnd.randrange(4),
            "device_wait_ms": rnd.choice((1.0, 90.0)), "device_requests_s": rnd.choice((0.01, 4.0, 90.0))}
        groups = [{"unit": "make[7]", "name": "cc1", "pid": 7, "start_ticks": 1, "processes": rnd.randrange(2, 30),
                   "started": rnd.randrange(90), "cpu_seconds": rnd.random() * 9}] if rnd.random() < 0.5 else []
        made = one(index + rnd.choice((0, 0, 30)), rows, groups, **fields)
        gone = rnd.sample(sorted(made.machine), rnd.randrange(3))
        slices.append(Slice(made.start, made.seconds, {k: v for k, v in made.machine.items() if k not in gone},
                            made.processes, made.groups))
    limits = [{"ts": START + 3, "boot_id": BOOT, "kind": rnd.choice(("cpu_quota", "memory", "oom_kill", "io")),
               "cgroup": "/q", "limit": 1e6, "held_back_s": 3.0, "count": 2}] if rnd.random() < 0.4 else []
    waits = [{"ts": START + 4, "boot_id": BOOT, "kind": "file_lock", "object": "/x", "since_s": 9.0, "holder_pid": 5,
              "holder_start_ticks": 1, "holder": "evil\x1b[2J", "waiters": [{"pid": 6, "start_ticks": 1, "name": "w"}]}
             ] if rnd.random() < 0.3 else []
    return replace(window(*sorted(slices, key=lambda s: s.start), limits=limits, waits=waits),
                   recent=rnd.random() < 0.3)


def identities(judged: Window) -> dict[tuple[str, int, int], dict[str, Any]]:
    """What the window has of each identity: sums over its rows."""
    found: dict[tuple[str, int, int], dict[str, Any]] = {}
    for each in judged.slices:
        for row in each.processes:
            key = row["boot_id"], row["pid"], row["start_ticks"]
            held = found.setdefault(key, {"command": row["command"], "cpu": 0.0, "own": row.get("own")})
            held["cpu"] += row.get("cpu_seconds", 0.0) + row.get("children_cpu_seconds", 0.0)
    return found


@pytest.mark.slow
@given(windows())
def test_numbers_belong_to_one_identity(judged: Window) -> None:
    """A taker that is a process has the name, and no more CPU than the rows, of its identity; own ones are never named;
    shares of one cause add up to no more than all; points fall; a shortage stands before use."""
    found = verdict(judged)
    assert found == verdict(judged)
    known = identities(judged)
    for cause in found.causes:
        for taker in cause.takers:
            if taker.kind == "process" and taker.key in known:
                row = known[taker.key]
                assert taker.command == row["command"] and not row["own"]
                if cause.resource == "cpu":
                    assert taker.amount - taker.served <= row["cpu"] + 1e-6
            assert 0 <= taker.share <= 1 and taker.children <= taker.amount + 1e-6
            assert taker.seconds <= judged.seconds + 1e-6
        # A member of a group is not listed beside it.
        keys = [key for taker in cause.takers if taker.kind == "process" for key in [taker.key]]
        assert len(keys) == len(set(keys))
        assert sum(t.share for t in cause.takers if t.kind == "process") <= 1 + 1e-6
    points = [cause.points for cause in found.causes]
    assert points == sorted(points, reverse=True)
    kinds = [cause.kind in ("use", "own") for cause in found.causes]
    assert kinds == sorted(kinds)
    assert (found.state == "found") == bool(kinds and not kinds[0])


@pytest.mark.slow
@given(windows())
def test_sentences_are_safe_and_take_their_numbers_from_the_one_who_is_named(judged: Window) -> None:
    """No escape reaches a terminal; a pid in the part about the taker is its own; the record says the same."""
    for cause in verdict(judged).causes:
        words = cause_words(cause, START + 60)
        assert "\x1b" not in words and "\n" not in words
        fields = cause_fields(cause, START + 60)
        assert fields["words"] == words
        wire.dumps(fields)
        who = cause.who
        if who is not None and who.key is not None and cause.kind in ("shortage", "use"):
            assert f"(pid {who.key[1]})" in words.split(" waited ")[0]
            assert (fields["pid"], fields["start_ticks"]) == who.key[1:]
            assert fields["who"][0]["total"] == fields["total"]


@given(windows(), st.sampled_from(("cpu", "memory", "io")))
def test_culprits_of_a_pause_explain_no_more_than_all(judged: Window, resource: str) -> None:
    """They are the takers of a cause of the verdict, and what no process explains is a part."""
    cause, unexplained = culprits(judged, resource)
    assert cause is None or (cause.cause == resource and cause in verdict(judged).causes)
    if unexplained is not None:
        assert 0 <= unexplained <= 1


@given(st.lists(st.tuples(st.floats(0, 0.3), st.integers(0, GIB // 4), st.integers(0, 200)), max_size=30))
def test_a_quiet_machine_never_blames(rows: list[tuple[float, int, int]]) -> None:
    """However many processes use a little: none waits, so none is blamed."""
    people = [process(10 + n, f"p{n}", cores=cores / max(1, len(rows)), memory_bytes=memory, wakeups=wakeups,
                      delay=0.0005) for n, (cores, memory, wakeups) in enumerate(rows)]
    found: Verdict = verdict(window(*(one(n, people) for n in range(4))))
    assert found.state in ("nothing", "use") and all(cause.points < 20 for cause in found.causes)
