"""Stacks as collapsed lines, as speedscope's format, and as text."""

from __future__ import annotations

import re
from typing import Any

from rogue_hunter.report.capture_text import collapsed_text, speedscope, top_text
from rogue_hunter.report.render import Style
from rogue_hunter.report.views.status import _recorder
from rogue_hunter.stream.tick import Record, record

STACKS = [record("stack", pid=7, cpu=0, samples=30, stack="hog;main;spin"),
          record("stack", pid=7, cpu=1, samples=10, stack="hog;main;spin"),
          record("stack", pid=8, cpu=1, samples=5, stack="x\x1b[2J;do_it_[k]"), record("stack", samples=1, stack="[other stacks]")]
LINE = re.compile(r"[^;\n]+(?:;[^;\n]+)* [1-9][0-9]*")


def check_speedscope(file: dict[str, Any]) -> None:
    """The facts of the published schema (file-format-schema.json) that a sampled profile must fulfil."""
    assert file["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    frames = file["shared"]["frames"]
    assert frames and all(isinstance(f["name"], str) and set(f) <= {"name", "file", "line", "col"} for f in frames)
    assert 0 <= file["activeProfileIndex"] < len(file["profiles"])
    for profile in file["profiles"]:
        assert set(profile) == {"type", "name", "unit", "startValue", "endValue", "samples", "weights"}
        assert profile["type"] == "sampled"
        assert profile["unit"] in ("none", "nanoseconds", "microseconds", "milliseconds", "seconds", "bytes")
        assert len(profile["samples"]) == len(profile["weights"]) > 0
        assert sum(profile["weights"]) == profile["endValue"] - profile["startValue"]
        assert all(0 <= frame < len(frames) for sample in profile["samples"] for frame in sample)
    assert len({f["name"] for f in frames}) == len(frames)


def test_collapsed_lines() -> None:
    """`frame;frame count`: one line a stack, all CPUs together, nothing raw."""
    lines = collapsed_text(STACKS).splitlines()
    assert lines[0] == "hog;main;spin 40" and len(lines) == 3 and all(LINE.fullmatch(line) for line in lines)
    assert "\x1b" not in "".join(lines) and collapsed_text([]) == ""


def test_speedscope() -> None:
    """A profile of everything and one of each CPU; frames are shared."""
    file = speedscope(STACKS, "pause 1")
    check_speedscope(file)
    assert [p["name"] for p in file["profiles"]] == ["pause 1", "pause 1, CPU 0", "pause 1, CPU 1"]
    assert file["profiles"][0]["endValue"] == 46
    check_speedscope(speedscope(STACKS[:1], "x"))


def test_the_most_frequent_as_text() -> None:
    """Innermost first, the CPUs added up."""
    made = top_text(STACKS, Style(100, False, 0.0))
    assert "spin < main" in made.splitlines()[1] and "87 %" in made.splitlines()[1] and "\x1b" not in made
    many: list[Record] = [record("stack", pid=i, samples=100 - i, stack=";".join(f"f{n}" for n in range(20))) for i in range(9)]
    assert len(top_text(many, Style(100, False, 0.0)).splitlines()) == 6


def test_status_says_what_is_recorded_and_how_to_get_more() -> None:
    """All processes: nothing more to say. Less: the reason, the kernel's setting, and what helps."""
    assert _recorder({}) == {} == {k: v for k, v in _recorder({"recorder": {}}).items() if v}
    full = _recorder({"recorder": {"mode": "system", "why": "", "paranoid": 2, "bytes": 802816}})
    assert full == {"recorder": "system", "recorder_why": None, "recorder_more": None, "recorder_bytes": 802816}
    for mode, ending in (("own", "=0"), ("off", "own processes 2")):
        found = _recorder({"recorder": {"mode": mode, "why": "no permission for perf_event_open", "paranoid": 4}})
        assert "is 4" in found["recorder_why"] and "rh-service install --system" in found["recorder_more"]
        assert found["recorder_more"].endswith(ending)
    missing = _recorder({"recorder": {"mode": "off", "why": "this kernel or container has no perf_event_open"}})
    assert missing["recorder_more"] is None
