"""Records and ticks as text: what filters print on a terminal, and the line of `status --oneline`."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from rogue_hunter.report.record_text import block, line, prune_words, texts
from rogue_hunter.report.render import Style
from rogue_hunter.report.sentences import program_first
from rogue_hunter.report.views.status import oneline
from rogue_hunter.stream.tick import Tick, record
from rogue_hunter.text.format import columns
from tests.tools.ticks import START, closing, key, row

HOSTILE = "a\x1b[2J\x07\u202e"
UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")
LONG = "/opt/" + "x" * 70 + "/program --with many --options " * 3


def tick(seq: int, *rows: dict[str, Any], **more: Any) -> Tick:
    """One tick, a third of a second after the last."""
    held = {key(one): one for one in rows}
    return Tick(closing(seq, len(held), ts=START + seq / 3, **more), held, set(held))


EVENT = {"type": "event", "v": 1, "ts": START, "event": "e", "pid": 7, "start_ticks": 1, "command": HOSTILE, "score": 62,
         "band": "high", "dominant_resource": "cpu", "cpu_percent": 98.0, "cmdline": LONG, "duration_s": 5.0, "peak_score": 71}


@pytest.mark.parametrize(("found", "words"), [
    ({**EVENT, "kind": "enter"}, "(pid 7) began to hog cpu: score 62 high, 98 % of a core; "),
    ({**EVENT, "kind": "exit", "reason": "below_threshold"}, "calmed down after 5.0s, peak 71"),
    ({**EVENT, "kind": "exit", "reason": "exited", "processes": 4}, "and 3 processes of its unit exited after 5.0s"),
    ({**EVENT, "kind": "peak"}, "peaked at score 62 high after 5.0s"),
    (record("pause", ts=START, start=START - 2, end=START, duration_s=2.0, cause="cpu",
            culprits=[{"pid": 7, "command": HOSTILE, "resource": "cpu", "amount": 1.9, "share": 0.95}]),
     "PAUSE of 2.0s for want of cpu: "),
    (record("match", ts=START, rule="loop", pid=7, command=HOSTILE, reason="cpu 99 %\x1b"), "loop matches "),
    (record("capture", ts=START, status="ok", pid=7, command=HOSTILE, processes=2, threads=9, capture="c", trigger="event"),
     ": ok, 2 processes, 9 threads"),
    (record("capture", ts=START, status="skipped", reason="debounce\x1b"), "capture skipped: debounce"),
    (record("error", stage="rh-score", line=3, message="no JSON\x1b"), "error of rh-score, line 3: no JSON"),
    (record("dropped", ticks=1), "1 tick left out"),
    (record("event", ts=START), "event record without what its text needs"),
    (record("pause", ts=1e17), "pause record without what its text needs"),
])
def test_a_record_is_a_line(found: dict[str, Any], words: str) -> None:
    made = line(found)
    assert words in made and not UNSAFE.search(made)


def test_a_record_for_programs_only_has_no_line() -> None:
    assert line(record("machine_minute", minute=1)) == "" == line({"type": "from a later version"})


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_tick_is_a_table_that_fits(width: int) -> None:
    """The highest score first, ten processes at most, with any name."""
    rows = [row(100 + n, command=HOSTILE, cmdline=LONG, user=HOSTILE, score=n, band="low", cpu_percent=5.0 * n,
                memory_bytes=n << 30, disk_bytes_per_s=1e8, dominant_resource="cpu") for n in range(14)]
    made = block(tick(1, *rows), Style(width, False, 0)).splitlines()
    assert all(columns(one) <= width for one in made) and not UNSAFE.search("".join(made))
    heads = made[1].split() if made[1].lstrip().startswith("SCORE") else made[2].split()
    assert heads[-1] == "COMMAND" and made[-1].startswith("... and 4 more")
    assert heads[:1] == ["SCORE"] and [one.split()[0] for one in made if one.lstrip().startswith(("13", "12"))] == ["13", "12"]


def test_explained_scores_show_their_terms() -> None:
    terms = [{"resource": "cpu", "points": 62.0}, {"resource": "disk", "points": 0.0}, "no object", {"points": "x"}]
    assert "p7 (pid 7): cpu 62\n" in block(tick(1, row(7, command="p7", score=62, terms=terms)), Style(80, False, 0))
    assert "(pid" not in block(tick(1, row(7, command="p7", score=62)), Style(80, False, 0))


def test_ticks_are_printed_once_a_second_and_records_at_once() -> None:
    """By the clock of the ticks; the last tick is always printed."""
    ticks = [tick(n, row(7)) for n in range(8)]
    ticks[1].records.append(record("error", message="wrong"))
    made = list(texts(ticks, Style(100, False, 0)))
    assert [("error" in one, "COMMAND" in one) for one in made] == [(False, True), (True, False), (False, True), (False, True),
                                                                    (False, True)]
    assert list(texts(ticks, Style(100, False, 0), lambda found: found["type"] == "event")) == []


def test_what_was_pruned_is_a_sentence() -> None:
    found = record("prune", ts=START, database="x", dry_run=False, removed={"pauses": 3, "process_events": 4000},
                   before_bytes=5_800_000, after_bytes=200_000, events_left=12, open_events=0, below_limit=True,
                   older_than_s=1.0, max_bytes=1)
    assert prune_words(found) == ("removed 4003 rows (process_events 4000, pauses 3); 5.5 MiB before, 195 KiB after; "
                                  "12 events left")
    assert prune_words({**found, "dry_run": True, "removed": {}}).startswith("would remove 0 rows; ")


@pytest.mark.parametrize(("found", "pauses", "words"), [
    ({"watch": "stopped"}, [], "rh: off"),
    ({"watch": "stale", "degraded": "x"}, [], "rh: no answer"),
    ({"watch": "running", "degraded": "disk full"}, [], "rh: degraded"),
    ({"watch": "running", "max_score": 12}, [], "rh: 12 calm"),
    ({"watch": "running", "max_score": 62, "rogues": [{"score": 62, "band": "high", "command": HOSTILE, "cpu_percent": 98.0,
                                                       "dominant_resource": "cpu"}]}, [],
     "rh: 62 high a\\x1b[2J\\x07\\u202e cpu 98 % of a core"),
    ({"watch": "running", "max_score": 62}, [{"duration_s": 2.0, "cause": "cpu", "end": START - 5, "culprits": [
        {"command": "make"}]}], "rh: paused 2.0s for cpu by make, 5.0s ago"),
])
def test_the_state_in_one_line(found: dict[str, Any], pauses: list[dict[str, Any]], words: str) -> None:
    assert oneline(found, pauses, START) == words
    assert json.dumps(words)


@pytest.mark.parametrize(("line_", "short"), [
    ("/usr/bin/python3 backup.py /a/b", "python3 backup.py /a/b"), ("[kworker/0:1H-kblockd]", "[kworker/0:1H-kblockd]"),
    ("worker: /opt/x/bin/serve --all", "worker: serve --all"), ("sh -c /a/b", "sh -c /a/b"), ("/", "/"), ("//", "//"), ("a/b c", "a/b c"),
    ("", "")])
def test_the_program_comes_without_its_directory(line_: str, short: str) -> None:
    assert program_first(line_) == short
