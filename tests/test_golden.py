"""Golden cases: the output of a command for a given input, byte for byte, by the commands themselves.

A case is a directory `tests/golden/TOOL/CASE/` with
    cmd         a line of shell; rh-NAME are the commands of this checkout, the directory of the case is the current one
    in.ndjson   its standard input (none: empty)
    out.ndjson  its standard output
    err         parts of its standard error, one a line (none: it is empty)
    rc          its exit code
`pytest tests/test_golden.py --golden` writes out.ndjson and rc again: read `git diff tests/golden` afterwards.
"""

from __future__ import annotations

import difflib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from rogue_hunter.__main__ import names
from tests.tools import forked

GOLDEN = Path(__file__).parent / "golden"
SCHEMAS = Path(__file__).resolve().parent.parent / "rogue_hunter/schemas"
CASES = sorted(path.parent for path in GOLDEN.glob("*/*/cmd"))


def name_of(case: Path) -> str:
    return f"{case.parent.name}/{case.name}"


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, clean_env: Mapping[str, str]
) -> Callable[[Path], subprocess.CompletedProcess[bytes]]:
    """Runs a case with every rh-NAME on PATH."""
    programs = tmp_path_factory.mktemp("bin")
    for name in names():
        forked.program(programs / f"rh-{name}", name)
    env = {**clean_env, "PATH": f"{programs}:{os.environ['PATH']}", "LC_ALL": "C"}

    def one(case: Path) -> subprocess.CompletedProcess[bytes]:
        source = case / "in.ndjson"
        return subprocess.run(
            ["sh", "-c", (case / "cmd").read_text()],
            input=source.read_bytes() if source.exists() else b"",
            capture_output=True,
            cwd=case,
            env=env,
            timeout=60,
            check=False,
        )

    return one


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_golden(
    case: Path, run: Callable[[Path], subprocess.CompletedProcess[bytes]], request: pytest.FixtureRequest
) -> None:
    """The output, the exit code and standard error are those of the case."""
    if " jq " in (case / "cmd").read_text() and shutil.which("jq") is None:
        pytest.skip("needs jq")
    done = run(case)
    said = done.stderr.decode()
    if request.config.getoption("--golden"):
        (case / "out.ndjson").write_bytes(done.stdout)
        (case / "rc").write_text(f"{done.returncode}\n")
    wanted = (case / "out.ndjson").read_bytes()
    if done.stdout != wanted:
        changes = difflib.unified_diff(
            wanted.decode().splitlines(), done.stdout.decode().splitlines(), "wanted", "said", lineterm="", n=1
        )
        pytest.fail("\n".join([*changes, said]))
    assert done.returncode == int((case / "rc").read_text()), said
    parts = (case / "err").read_text().splitlines() if (case / "err").exists() else []
    assert bool(said) is bool(parts), said
    assert [part for part in parts if part not in said] == [], said
    assert "Traceback" not in said


RECORDS = [case for case in CASES if "jq" not in (case / "cmd").read_text() and case.parent.name in ("score", "track")]


@pytest.mark.parametrize("case", RECORDS, ids=name_of)
def test_output_keeps_the_schemas(case: Path) -> None:
    """Every record in an expected output is valid by the packaged JSON Schema of its type."""
    for line in (case / "out.ndjson").read_bytes().splitlines():
        record = json.loads(line)
        schema = SCHEMAS / f"{record['type']}.json"
        if schema.exists() and record["type"] != "pause":
            Draft202012Validator(json.loads(schema.read_bytes())).validate(record)


def test_there_are_cases() -> None:
    """Every filter has its golden cases, good and bad input among them, and no directory is without a command."""
    assert {case.parent.name for case in CASES} >= {"score", "track", "sample", "config", "forensics", "pipeline"}
    assert len(CASES) >= 40
    codes = {int((case / "rc").read_text()) for case in CASES}
    assert {0, 2, 65, 69, 78} <= codes
    assert sorted(path for path in GOLDEN.glob("*/*") if path.is_dir()) == CASES


def test_worked_examples_are_golden() -> None:
    """The numbers by which the share model was chosen are in the golden outputs too."""
    rows = [json.loads(line) for line in (GOLDEN / "score/share-two-loops/out.ndjson").read_bytes().splitlines()]
    assert {r["pid"]: r["score"] for r in rows if r["type"] == "process"} == {7: 0, 101: 76, 102: 76}
    rows = [json.loads(line) for line in (GOLDEN / "score/stress/out.ndjson").read_bytes().splitlines()]
    assert {r["command"]: r["score"] for r in rows if r["type"] == "process"}["ld"] == 37
