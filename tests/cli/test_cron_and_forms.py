"""rh-prune --print-cron: a line that works with the PATH and the syntax of cron."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


def test_the_line_runs_without_a_path(rh: Run, tmp_path: Path, clean_env: Mapping[str, str]) -> None:
    """By the full path of this installation, with the other options, and with the places that were in force."""
    database = tmp_path / "50% full.db"
    places = {"XDG_DATA_HOME": str(tmp_path / "a b"), "HOME": str(tmp_path)}
    done = rh("prune", "--older-than", "7d", "--db", database, "--print-cron", **places)
    assert done.returncode == 0, done.stderr
    line = done.stdout.decode().rstrip("\n")
    assert line.startswith("0 4 * * *  ") and line.endswith(">/dev/null")
    script = line.removeprefix("0 4 * * *  ").replace("\\%", "%")     # cron does the same
    assert "%" not in line.replace("\\%", "")
    ran = subprocess.run(["/bin/sh", "-c", script], env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}, cwd=tmp_path,
                         capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode not in (126, 127), ran.stderr
    assert "50% full.db" in ran.stderr      # it does not exist: rh-prune itself reports that
    assert f"XDG_DATA_HOME='{tmp_path}/a b'" in script


def test_the_file_of_metrics_is_written_by_the_printed_line(rh: Run, tmp_path: Path, clean_env: Mapping[str, str]) -> None:
    """Cron's standard input is an empty pipe, its directory the home directory, wherever the line was made."""
    done = rh("metrics", "--textfile", os.path.relpath(tmp_path / "a b.prom"), "--print-cron", HOME=str(tmp_path))
    line = done.stdout.decode().rstrip("\n")
    assert done.returncode == 0 and line.startswith("* * * * *  ") and line.endswith(">/dev/null"), done.stderr
    rh("pipe", "-q", "--for", "3s", "--hz", "10", "--no-socket", HOME=str(tmp_path))
    ran = subprocess.run(["/bin/sh", "-c", line.removeprefix("* * * * *  ")], env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
                         input="", cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    page = (tmp_path / "a b.prom").read_bytes()
    assert b"rogue_hunter_ticks_total " in page and b"rogue_hunter_ticks_total 0.0" not in page     # those of the database
    assert rh("metrics", "--print-cron").returncode == 2


def test_what_a_line_cannot_hold_is_refused(rh: Run) -> None:
    done = rh("prune", "--db", "a\nb", "--print-cron")
    assert done.returncode == 2 and done.stdout == b""


@pytest.mark.parametrize(("form", "first"), [("table", b"RULE"), ("json", b"["), ("csv", b"type,")])
def test_rh_format_chooses_the_form_of_a_pipe(rh: Run, form: str, first: bytes) -> None:
    """As `watch`, a pager and cron need it; an option still wins, and a wrong word is an error that names the right ones."""
    assert rh("match", "rules", RH_FORMAT=form).stdout.startswith(first)
    assert rh("match", "rules", "--ndjson", RH_FORMAT=form).stdout.startswith(b'{"type":"rule"')
    wrong = rh("match", "rules", RH_FORMAT="tabel")
    assert wrong.returncode == 2 and b"table, json, ndjson, csv" in wrong.stderr
