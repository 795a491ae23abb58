"""The launchd job: the committed file, what is in it and what may not be."""

from __future__ import annotations

import plistlib
from pathlib import Path

import pytest

from rogue_hunter.service.launchd import LABEL, REASONS, agent, render
from tests.tools.plist import problems

REPO = Path(__file__).resolve().parent.parent.parent
FILE = REPO / "launchd" / f"{LABEL}.plist"
SAMPLES = REPO.parent / "shared" / "samples" / "launchd"

EXAMPLE = agent(["/usr/local/bin/rh-pipe"], "/Users/YOU/Library/Logs/rogue-hunter/rh-pipe.log")


def test_the_committed_file_is_what_is_made() -> None:
    """launchd/ holds what the code makes, with its comments, and nothing else."""
    assert FILE.read_bytes() == render(EXAMPLE)
    assert [f.name for f in FILE.parent.iterdir()] == [FILE.name]


def test_the_keys_have_their_values() -> None:
    """Every key is there with its reason, the values survive the way through XML, and nothing is found wrong."""
    data = render(EXAMPLE)
    assert plistlib.loads(data) == EXAMPLE
    assert problems(data) == []
    assert set(EXAMPLE) == set(REASONS) and data.count(b"<!--") == len(REASONS)
    assert EXAMPLE["ProcessType"] == "Interactive" and EXAMPLE["LegacyTimers"] is True
    assert EXAMPLE["KeepAlive"] == {"SuccessfulExit": False}
    assert EXAMPLE["Label"] + ".plist" == FILE.name


def test_keys_that_come_twice_are_found() -> None:
    """At any depth: a parser keeps one of the two and says nothing."""
    data = render(EXAMPLE)
    twice = data.replace(b"\t<key>RunAtLoad</key>", b"\t<key>RunAtLoad</key>\n\t<false/>\n\t<key>RunAtLoad</key>")
    assert plistlib.loads(twice)["RunAtLoad"] is True
    assert problems(twice) == ["RunAtLoad comes twice"]
    inner = data.replace(b"<key>SuccessfulExit</key>",
                         b"<key>SuccessfulExit</key><true/><key>SuccessfulExit</key>")
    assert problems(inner) == ["SuccessfulExit comes twice"]


@pytest.mark.parametrize(("program", "log", "complaint"), [
    (["rh-pipe"], "/tmp/x", "ProgramArguments: a relative path: rh-pipe"),
    (["/bin/rh-pipe"], "~/Library/Logs/x", "StandardErrorPath: a relative path: ~/Library/Logs/x"),
    (["/bin/rh-pipe"], "$HOME/x", "StandardErrorPath: a relative path"),
])
def test_relative_paths_are_refused(program: list[str], log: str, complaint: str) -> None:
    """launchd expands nothing: such a job would start and write nowhere, or not start."""
    with pytest.raises(ValueError) as caught:
        agent(program, log)
    assert complaint in str(caught.value)


def test_a_hostile_path_stays_text() -> None:
    """What a path contains is text in the XML, and a comment cannot be ended by it."""
    program = ["/opt/a & b/<x>--></dict>/rh-pipe", "--db", "/Users/YOU/ü \"q\".db"]
    made = agent(program, "/tmp/-->")
    assert plistlib.loads(render(made)) == made and problems(render(made)) == []


def test_what_is_no_job() -> None:
    """Broken XML, a list, a throttled job, an unknown key: each is named."""
    assert problems(b"<plist><dict>")[0].startswith("not a property list")
    assert problems(plistlib.dumps(["x"])) == ["not a dictionary"]
    assert "ProgramArguments is not a list of strings" in problems(plistlib.dumps({**EXAMPLE, "ProgramArguments": []}))
    assert problems(plistlib.dumps({**EXAMPLE, "ProcessType": "Background"})) == [
        "ProcessType is not Interactive: launchd would throttle it"]
    assert problems(plistlib.dumps({**EXAMPLE, "KeepAliv": True})) == ["KeepAliv is not a known key"]


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the shared samples are not here")
def test_jobs_in_the_wild() -> None:
    """Real jobs parse; that they set no ProcessType, and are throttled for it, is what the check says of them."""
    for path in sorted(SAMPLES.glob("*.plist")):
        found = problems(path.read_bytes())
        assert "ProcessType is missing" in found and not any("twice" in f or "not a property" in f for f in found)
