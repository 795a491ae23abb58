"""Questions on a terminal, and notifications."""

from __future__ import annotations

import os
import pty
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from rogue_hunter.reaper.candidate import Candidate
from rogue_hunter.reaper.confirm import NoTerminal, confirm_on_tty, question
from rogue_hunter.reaper.notify import PER_MINUTE, Notifier, command, spawn
from rogue_hunter.reaper.process import live
from rogue_hunter.rules.model import Settings
from tests.reaper.fakes import RULES, FakeProcess, match_of

ON = Settings(notify=True, notify_urgency="low", notify_timeout_ms=7)


def candidates(count: int, **more: Any) -> list[Candidate]:
    return [Candidate(match_of(FakeProcess(2000 + i), **more), RULES) for i in range(count)]


@pytest.mark.parametrize(("answer", "expected"), [
    (b"y\n", True), (b"YES\n", True), (b"n\n", False), (b"\n", False), (b"yy\n", False), (b"yes please\n", False),
    (b"\x04", False), (b"ja\n", False)])
def test_only_yes_is_yes(answer: bytes, expected: bool) -> None:
    master, slave = pty.openpty()
    path = os.ttyname(slave)
    shown: list[bytes] = []

    def person() -> None:
        while b"[y/N]" not in b"".join(shown):
            shown.append(os.read(master, 4096))
        os.write(master, answer)

    thread = threading.Thread(target=person)
    thread.start()
    assert confirm_on_tty(candidates(2), path) is expected
    thread.join()
    assert b"About to terminate 2 processes" in b"".join(shown)
    os.close(master)
    os.close(slave)


def test_without_a_terminal_there_is_no_question() -> None:
    with pytest.raises(NoTerminal, match="--yes"):
        confirm_on_tty(candidates(1), "/nowhere/tty")


def test_the_question_names_names_and_obeys_none() -> None:
    text = question(candidates(30, command="\x1b]52;c;x\x07\n", reason="cpu\u202e99", priority="critical"))
    assert "\x1b" not in text and "\x07" not in text and "\u202e" not in text
    assert "and 10 more" in text and "critical: 30" in text and text.endswith("Proceed? [y/N] ")
    assert len(text.splitlines()) == 64


def test_the_question_says_what_is_known_of_each_process() -> None:
    (c,) = candidates(1, priority="high")
    p = FakeProcess(2000, cmdline="python3 job.py --all", ppid=900, user="me", tty="pts/3")
    c.live, c.parent = live(p.key, p.row, p.uids, leader=2000, age_s=3725.0), "bash"
    assert question([c]).splitlines() == [
        "About to terminate 1 process:", "     2000  victim: python3 job.py --all",
        "           user me, CPU 99 %, memory 1.0 MiB, age 1h 02m, parent bash [900],", "           pts/3",
        "           r: cpu 99 %",
        "  high: 1", "Proceed? [y/N] "]
    c.live.row["cmdline"] = "python3 " + "--option " * 40
    assert all(len(line) < 80 for line in question([c]).splitlines())       # a terminal would break within a word
    del c.match["cpu_percent"]
    for name in ("user", "tty", "ppid", "cmdline"):
        del c.live.row[name]
    lines = question([c]).splitlines()
    assert lines[1] == "     2000  [victim]"
    assert " ".join(lines[2].split() + lines[3].split()).startswith(
        "user unknown, CPU 1 % over its life, memory 1.0 MiB, age 1h 02m, no terminal")


class Shown:
    def __init__(self) -> None:
        self.argv: list[list[str]] = []
        self.now = 0.0

    def run(self, argv: Sequence[str]) -> bool:
        self.argv.append(list(argv))
        return True

    def notifier(self, settings: Settings = ON, platform: str = "linux") -> Notifier:
        return Notifier(settings, run=self.run, clock=lambda: self.now, platform=platform)


def test_names_are_data_and_markup_is_escaped() -> None:
    assert command("t<b>\n", "a <b>&\x1b[2J --x", ON, "linux") == [
        "notify-send", "--app-name=rogue-hunter", "--urgency=low", "--expire-time=7", "--", r"t<b>\n",
        r"a &lt;b&gt;&amp;\x1b[2J --x"]
    mac = command('"; do shell script "x', "body", ON, "darwin")
    assert mac[-2:] == ['"; do shell script "x', "body"] and mac[0] == "osascript"
    assert not any("shell" in part for part in mac[:-2])


def test_no_more_than_a_person_reads() -> None:
    shown = Shown()
    notifier = shown.notifier()
    assert sum(notifier.show("t", "b") for _ in range(PER_MINUTE + 5)) == PER_MINUTE
    shown.now = 61
    assert notifier.show("t", "b") and shown.argv[-1][-1] == "b (and 5 not shown)"
    assert notifier.show("t", "b") and shown.argv[-1][-1] == "b"
    assert not shown.notifier(Settings()).show("t", "b")


@pytest.mark.parametrize(("change", "told"), [
    ({"outcome": "killed"}, True), ({"outcome": "survived"}, True), ({"outcome": "already_gone"}, False),
    ({"outcome": "killed", "rule": "watch"}, False), ({"outcome": "killed", "rule": "unheard"}, False)])
def test_actions_are_notified_when_their_rule_asks_for_it(change: dict[str, Any], told: bool) -> None:
    shown = Shown()
    assert shown.notifier().action({**match_of(FakeProcess(2000)), **change}, RULES) is told
    assert not told or shown.argv[0][-2:] == [f"{change['outcome']}: victim [2000]", "r: cpu 99 %"]


def test_a_missing_desktop() -> None:
    assert spawn(["/nowhere/notify-send"]) is False
    assert spawn(["false"]) is False
    assert spawn(["true"]) is True
