"""Documents cannot rot: they are made from the declarations, and real records and files are held to them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from rogue_hunter.config.options import Config
from rogue_hunter.config.toml import settings
from rogue_hunter.schema import RECORDS
from rogue_hunter.schema.events import EVENT
from rogue_hunter.schema.field import Field
from rogue_hunter.schema.sampling import METRICS, SNAPSHOT
from rogue_hunter.store.database import open_writer
from rogue_hunter.store.tables import TABLES
from rogue_hunter.stream import wire
from tests.tools import docs

REPO = Path(__file__).resolve().parent.parent
RECORDED = REPO / "tests" / "fixtures" / "recorded.ndjson"

LOOP = "import time\nend = time.time() + 30\nwhile time.time() < end: pass"

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


# -- made from the declarations ----------------------------------------------------------------------------------------


def test_what_is_committed_is_what_the_declarations_say() -> None:
    """`python -m tests.tools.docs` brings up to date what is named here."""
    assert [str(path.relative_to(REPO)) for path in docs.stale()] == []


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the documents."""
    shutil.copytree(REPO / "man", tmp_path / "man")
    shutil.copytree(REPO / "rogue_hunter" / "schemas", tmp_path / "rogue_hunter" / "schemas")
    shutil.copytree(REPO / "rogue_hunter" / "data", tmp_path / "rogue_hunter" / "data")
    shutil.copy(REPO / "README.md", tmp_path)
    docs.write(tmp_path)
    return tmp_path


def test_every_kind_of_staleness_is_seen_and_mended(checkout: Path) -> None:
    """A changed line, a missing schema, a schema of no type, a new command; and the text around it is not changed."""
    assert docs.stale(checkout) == []
    schemas, formats = checkout / "rogue_hunter" / "schemas", checkout / "man" / "rogue-hunter.5"
    (schemas / "process.json").unlink()
    (schemas / "gone.json").write_text("{}\n")
    before = formats.read_text()
    formats.write_text(before.replace("CPU use of the interval", "something else").replace(".Sh FILES", ".Sh PLACES"))
    (checkout / "man" / "rh-zzz.1").write_text(".Sh NAME\n.Nm rh-zzz\n.Nd do nothing\n")
    assert {path.name for path in docs.stale(checkout)} == {
        "process.json", "gone.json", "rogue-hunter.5", "rogue-hunter.7", "README.md",
    }  # fmt: skip
    assert len(docs.write(checkout)) == 5
    assert docs.stale(checkout) == []
    assert formats.read_text() == before.replace(".Sh FILES", ".Sh PLACES")
    assert "| Others | `rh-zzz` | do nothing |" in (checkout / "README.md").read_text()
    assert not (schemas / "gone.json").exists()


@pytest.mark.parametrize("broken", ["README.md", "man/rogue-hunter.7", "man/rh-score.1"])
def test_a_document_that_cannot_be_made_is_named(checkout: Path, broken: str) -> None:
    """A lost marker or .Nd line is an error and not an empty table."""
    (checkout / broken).write_text("nothing\n")
    with pytest.raises(docs.DocsError, match=re.escape(broken)):
        docs.write(checkout)


def test_what_is_generated_obeys_no_text_and_breaks_no_line() -> None:
    """A description may have any characters: mdoc reads it as text."""
    lines = docs.item("name", r".Sh 'x' \fB \n " + "word " * 40).splitlines()
    assert lines[0] == ".It Va name"
    assert lines[1].startswith(r"\&.Sh 'x' \efB \en word")
    assert all(len(line) <= 80 and not line.startswith((".", "'")) for line in lines[1:])


def test_check_exits_1_and_changes_nothing(checkout: Path, monkeypatch: pytest.MonkeyPatch,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    """What CI would call."""
    readme = checkout / "README.md"
    stale = readme.read_text().replace("`rh-score`", "`rh-skore`")
    readme.write_text(stale)
    monkeypatch.setattr(docs, "REPO", checkout)
    assert docs.main(["--check"]) == 1
    assert capsys.readouterr().out == "README.md: stale\n"
    assert readme.read_text() == stale
    assert docs.main([]) == 0
    assert docs.main(["--check"]) == 0
    shutil.rmtree(checkout / "man")
    assert docs.main(["--check"]) == 69


# -- JSON Schemas ------------------------------------------------------------------------------------------------------


def validator(kind: str) -> Draft202012Validator:
    """The packaged schema of a type."""
    schema = json.loads((REPO / "rogue_hunter" / "schemas" / f"{kind}.json").read_bytes())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def hold(data: bytes) -> dict[str, int]:
    """Every line is a record that its schema holds for; gives how many there were of each type."""
    validators: dict[str, Draft202012Validator] = {}
    counts: dict[str, int] = {}
    for line in data.splitlines():
        record = json.loads(line)
        if record["type"] not in validators:
            validators[record["type"]] = validator(record["type"])
        errors = [error.message for error in validators[record["type"]].iter_errors(record)]
        assert not errors, (errors, record)
        counts[record["type"]] = counts.get(record["type"], 0) + 1
    return counts


def value(field: Field) -> Any:
    """Some value that the field may have."""
    if field.choices:
        return field.choices[0]
    return {int: 7, float: 1.5, str: "x", bool: True, list: [], dict: {}}[field.type]


@pytest.mark.parametrize("kind", RECORDS)
def test_a_schema_and_the_reader_agree(kind: str) -> None:
    """Both take a record with all fields, and one with the required ones and an unknown key; both refuse each field's
    absence where it is required, and each field of a wrong type."""
    schema = validator(kind)
    whole = {field.name: value(field) for field in RECORDS[kind]}

    def taken(fields: Mapping[str, Any]) -> tuple[bool, bool]:
        try:
            wire.check(kind, dict(fields))
            read = True
        except ValueError:
            read = False
        return schema.is_valid({"type": kind, "v": 1, **fields}), read

    assert taken(whole) == (True, True)
    required = {field.name: whole[field.name] for field in RECORDS[kind] if field.required}
    assert taken({**required, "of_a_later_version": 1}) == (True, True)
    for field in RECORDS[kind]:
        wrong: Any = 5 if field.type in (str, list, dict, bool) else "5"
        assert taken({**whole, field.name: wrong}) == (False, False), field.name
        if field.required:
            assert taken({k: v for k, v in whole.items() if k != field.name}) == (False, False), field.name
    assert not schema.is_valid({"type": kind, "v": 2, **whole})
    assert not schema.is_valid({"type": "other", "v": 1, **whole})


@pytest.fixture(scope="module")
def live(clean_env: Mapping[str, str]) -> bytes:
    """Four ticks of this machine, on which a loop is busy."""
    loop = subprocess.Popen([sys.executable, "-c", LOOP])
    try:
        done = subprocess.run([sys.executable, "-P", "-m", "rogue_hunter", "sample", "-n", "4", "--hz", "4"],
                              capture_output=True, env=dict(clean_env), timeout=60, check=True)
    finally:
        loop.kill()
        loop.wait()
    return done.stdout


@pytest.fixture(params=["live", "recorded"])
def stream(request: pytest.FixtureRequest) -> bytes:
    """Ticks of this machine, and ticks recorded on another day."""
    if request.param == "recorded":
        return RECORDED.read_bytes()
    data: bytes = request.getfixturevalue("live")
    return data


@pytest.mark.slow
@pytest.mark.parametrize("model", ["share", "stress"])
def test_the_schemas_hold_for_what_the_filters_print(stream: bytes, model: str, rh: Run, tmp_path: Path) -> None:
    """rh-sample, rh-score with reasons, rh-track with ticks; no line is lost on the way."""
    config = tmp_path / "low.toml"
    bands = "medium = 1\nelevated = 2\nhigh = 3\ncritical = 4\ntracking = 'medium'\n"
    config.write_text(f"[bands]\n{bands}[scoring.stress.bands]\n{bands}[tracking]\nenter_s = 0.0\n")
    counts = hold(stream)
    assert counts["process"] > 0 and counts["tick"] >= 4
    scored = rh("score", "--model", model, "--explain", "-c", config, stdin=stream)
    assert (scored.returncode, scored.stderr) == (0, b"")
    assert hold(scored.stdout) == counts
    tracked = rh("track", "--model", model, "--tee", "-c", config, stdin=scored.stdout)
    assert (tracked.returncode, tracked.stderr) == (0, b"")
    seen = hold(tracked.stdout)
    assert seen.pop("event") >= 2
    assert seen == counts


@pytest.mark.waits
@pytest.mark.slow
def test_the_schemas_hold_for_rh_pipe_and_for_errors(rh: Run, tmp_path: Path) -> None:
    """The tee of rh-pipe, and the answer to a malformed line."""
    piped = rh("pipe", "--tee", "--quiet", "--for", "5s", "--hz", "4", "--db", tmp_path / "x.db")
    assert (piped.returncode, piped.stderr) == (0, b"")
    assert hold(piped.stdout)["tick"] >= 1
    answered = rh("score", stdin=b"nonsense\n")
    assert answered.returncode == 65
    assert hold(answered.stdout) == {"error": 1}


# -- the database ------------------------------------------------------------------------------------------------------


def test_the_columns_of_a_new_database_are_the_declared_ones(tmp_path: Path) -> None:
    """Name, type and order; rogue-hunter(5) has what sqlite3 shows."""
    connection, _ = open_writer(tmp_path / "x.db")
    query = "SELECT name, type, \"notnull\" FROM pragma_table_info(?)"
    try:
        for table in TABLES:
            made = connection.execute(query, (table.name,)).fetchall()
            assert made == [(c.name, c.sql, int(c.required and c.name != "id")) for c in table.columns], table.name
    finally:
        connection.close()


def test_a_snapshot_has_a_column_for_each_field_and_for_its_range() -> None:
    """A field that is added to the schema cannot be forgotten in the database."""
    (snapshots,) = (table for table in TABLES if table.name == "process_snapshots")
    columns = {c.name: c.sql for c in snapshots.columns}
    wanted = {f.name: f.sql for f in SNAPSHOT}
    wanted |= {f.name + tail: f.sql for f in METRICS for tail in ("_low", "_high")}
    assert wanted.items() <= columns.items()
    assert {f.name for f in EVENT} >= wanted.keys()


def test_rogue_hunter_5_names_every_field_key_and_column() -> None:
    """No field, option or column is missing from the page."""
    page = (REPO / "man" / "rogue-hunter.5").read_text()
    told = set(re.findall(r"^\.It Va \"?([a-z_0-9]+)", page, re.MULTILINE))
    ranges = {f.name + tail for f in METRICS for tail in ("_low", "_high")}
    assert {field.name for fields in RECORDS.values() for field in fields} <= told | ranges
    assert {column.name for table in TABLES for column in table.columns} <= told | ranges
    assert {setting.name for setting in settings(Config())} <= told
    parts = set(re.findall(r"^\.Ss (.*)$", page, re.MULTILINE))
    assert {f"[{setting.table}]" for setting in settings(Config())} <= parts
    assert {table.name for table in TABLES} | RECORDS.keys() <= parts
