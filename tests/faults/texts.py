"""Texts that other programs obey, made of names and paths: units, property lists, sudo's rules, crontabs, completion, SQL,
manual pages, the journal."""

from __future__ import annotations

import json
import os
import plistlib
import re
import shlex
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from rogue_hunter.capture import logs
from rogue_hunter.commandline import run as cli_run
from rogue_hunter.commandline.options import cron_line
from rogue_hunter.config.options import Config
from rogue_hunter.schema.field import Field
from rogue_hunter.service import launchd, systemd, tailspin
from rogue_hunter.service.manager import QUIET, Program, ServiceError
from rogue_hunter.text.format import visible
from tests.tools import docs
from tests.tools.plist import problems

from .hostile import _OBEYED, NAMES, _history
from .table import Bench, Skip, case, clean

PATHS = (*NAMES, "a b", "%h/x", "$HOME/x", "a\\", "a\\\nExecStartPre=/bin/evil", "x\n[Service]\nExecStart=/bin/evil",
         '"', "'", "; /bin/evil", "`evil`", "#x", "x\tALL=(ALL) ALL", "a, /bin/sh", "..", "-o /etc/x", "*", "a=b:c", "</string>",
         "&amp;", "]]>", "--><key>x</key><!--", "\u0085next", "!x", "ALL", "root ALL", "\\\\", "\ud800")
"""Names, and what means something in one of these texts."""


def _command_of(line: str) -> list[str]:
    """ExecStart taken apart as systemd.service(5) does it: quotes, backslashes, %% and $$."""
    words = [re.sub(r"\\(.)", r"\1", word[1:-1]) if word.startswith('"') else word
             for word in re.findall(r'"(?:[^"\\]|\\.)*"|[^ ]+', line)]
    assert not any(re.search(r"(?<!%)%(?!%)(?:%%)*(?!%)|(?<!\$)\$(?!\$)", re.sub(r"%%|\$\$", "", word)) for word in words)
    return [word.replace("%%", "%").replace("$$", "$") for word in words]


@case("names in a systemd unit", "the same lines whatever the paths are, and the same arguments after systemd's quoting; or refused in "
      "a line")
def unit(bench: Bench) -> str:
    usual = systemd.unit(Program(("/bin/rh-pipe", QUIET, "x"), (("XDG_DATA_HOME", "/x"),))).decode().split("\n")
    taken = refused = 0
    analyze = shutil.which("systemd-analyze")
    for path in PATHS:
        argv = ("/bin/rh-pipe", QUIET, "--db", path, f"/{path}")
        try:
            text = systemd.unit(Program(argv, (("XDG_DATA_HOME", f"/{path}"),))).decode()
        except ServiceError as error:
            refused += 1
            assert not _OBEYED.search(visible(str(error))), path
            continue
        lines = text.split("\n")
        assert [line.partition("=")[0] for line in lines if not line.startswith("#")] == \
            [line.partition("=")[0] for line in usual if not line.startswith("#")], path
        (start,) = [line for line in lines if line.startswith("ExecStart=")]
        (environment,) = [line for line in lines if line.startswith("Environment=")]
        assert _command_of(start.removeprefix("ExecStart=")) == list(argv), path
        assert _command_of(environment.removeprefix("Environment=").replace("$", "$$")) == [f"XDG_DATA_HOME=/{path}"], path
        assert not lines[-2].endswith("\\") and not any(line.endswith("\\") for line in lines), path
        taken += 1
    if analyze is not None:
        file = bench.tmp / systemd.UNIT
        file.write_bytes(systemd.unit(Program(("/bin/true", QUIET, "a b", "%h", "$HOME", '"', "\\"))))
        done = subprocess.run([analyze, "verify", "--man=no", file], capture_output=True, check=False, env=bench.env)
        assert done.returncode == 0 or b"Failed to" in done.stderr, done
    assert taken > 20 and refused > 8
    return f"{len(PATHS)} paths: {taken} written as they are, {refused} refused"


@case("names in a property list", "launchd's plist holds the same words, nothing but its own keys; or refused in a line")
def plist(bench: Bench) -> str:
    taken = refused = 0
    for path in PATHS:
        argv = ["/bin/rh-pipe", "--db", path]
        try:
            made = launchd.render(launchd.agent(argv, f"/{path}"))
        except ValueError as error:
            refused += 1
            assert not _OBEYED.search(visible(str(error))), path
            continue
        held = plistlib.loads(made)
        assert held["ProgramArguments"] == argv and held["StandardErrorPath"] == f"/{path}", path
        assert set(held) <= set(launchd.REASONS) and not problems(made), path
        taken += 1
    assert taken > 20 and refused >= 4
    return f"{len(PATHS)} paths: {taken} written as they are, {refused} refused"


@case("names in sudo's rules", "two lines, one exact command without a wildcard, the user by number where the name is none; or "
      "refused in a line")
def rules_of_sudo(bench: Bench) -> str:
    exact = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_.-]*|#1000) ALL=\(root\) NOPASSWD: (/[A-Za-z0-9/_.-]+ save -l 30 /[A-Za-z0-9/_.-]+)")
    taken = refused = 0
    for name in PATHS:
        for user, file in ((name, Config().forensics.tailspin_file), ("me", name), ("me", f"/var/db/{name}"), (name, f"/{name}")):
            try:
                lines = tailspin.text(user, 1000, file).decode().split("\n")
            except ServiceError as error:
                refused += 1
                assert not _OBEYED.search(visible(str(error))), name
                continue
            assert len(lines) == 3 and lines[0].startswith("# Written by rh-service") and lines[2] == "", name
            found = exact.fullmatch(lines[1])
            assert found and found.group(1).split(" ")[4:] == [file] and ".." not in file, lines[1]
            assert lines[1].startswith("#1000 ") or tailspin.NAME.fullmatch(user), lines[1]
            taken += 1
    assert taken > 20 and refused > 60
    return f"{4 * len(PATHS)} users and paths: {taken} exact rules, {refused} refused"


@case("names in a crontab", "rh-prune --print-cron: one line, each % escaped (a line feed to cron), the name one word; else refused")
def crontab(bench: Bench) -> str:
    taken = refused = 0
    for name in NAMES:
        try:
            line = cron_line("rh-prune", "0 4 * * *", ["--db", name])
        except cli_run.Failure as error:
            refused += 1
            assert not _OBEYED.search(visible(str(error))), name
            continue
        assert line.isprintable() and not re.search(r"(?<!\\)%", line), line
        words = shlex.split(line.removeprefix("0 4 * * *  ").replace("\\%", "%"))
        assert words[-4:] == ["--db", os.path.abspath(name), "</dev/null", ">/dev/null"], line
        taken += 1
    assert taken > 10 and refused > 5, (taken, refused)
    return f"{taken} names quoted, {refused} refused"


@case("names and the shell's completion", "in a directory of hostile names, words that are commands: nothing is run, nothing is obeyed")
def completion(bench: Bench) -> str:
    if shutil.which("bash") is None:
        raise Skip("no bash")
    place = bench.tmp / "here"
    place.mkdir()
    made = 0
    for name in NAMES:
        if "/" not in name and "\0" not in name and 0 < len(name.encode("utf-8", "surrogatepass")) < 200:
            (place / name).touch()
            made += 1
    for name in ("$(touch owned)", "`touch owned`", "x; touch owned", "x\ntouch owned", "-x"):
        (place / name).touch()
        made += 1
    script = bench.rh("config", "completion", "bash")
    clean(script.stderr, lines=0)
    bin_ = bench.tmp / "bin"
    bin_.mkdir()
    words = ["--d", "`touch owned`", "x;touch owned", "--db=$(touch owned)", "$(touch owned)", "'", "\\", '"', ""]
    for name in ("report", "match"):
        program = bin_ / f"rh-{name}"
        program.write_text("#!/bin/sh\nexec " + " ".join(bench.command(name)) + ' "$@"\n')
        program.chmod(0o755)
    lines = [script.stdout.decode()]
    for name in ("report", "match"):
        function = re.search(rf"complete .*-F (\S+) rh-{name}\b", lines[0])
        assert function, name
        for word in words[::1 if bench.long else 3]:
            lines.append(f"COMP_WORDS=(rh-{name} {_quoted(word)}); COMP_CWORD=1; COMPREPLY=(); {function.group(1)} rh-{name}; "
                         'printf "%s\\n" "${COMPREPLY[@]}"')
    done = subprocess.run(["bash", "--norc", "-c", "\n".join(lines)], cwd=place, capture_output=True, check=False, timeout=120,
                          env={**bench.env, "PATH": f"{bin_}:{os.environ['PATH']}"})
    clean(done.stderr)
    assert b"--db" in done.stdout, done
    assert sorted(p.name for p in place.iterdir() if p.name == "owned") == []
    return f"{made} files, {2 * len(words[::1 if bench.long else 3])} words: 0 run"


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"


@case("names in SQL", "as the text of every option that looks for one: found or not, the same database afterwards")
def sql(bench: Bench) -> str:
    database = bench.tmp / "x.db"
    _history(database)
    before = _dump(database)
    asked = 0
    texts = [*NAMES, "%", "_", "' OR 1=1 --", '" OR ""="', "x'; DELETE FROM process_events; --", "1); DROP VIEW v_pauses; --",
             "1 UNION SELECT * FROM actions", "\\"]
    from rogue_hunter.report import queries
    from rogue_hunter.report.queries import Period, source

    found = 0
    with source(database, 1_700_000_500.0, Config()) as held:
        for text in texts:
            period = Period(0, 2e9, text)
            for look in (queries.events, lambda c, p, w: queries.worst(c, p, w, 0)):
                found += len(look(held.reader, period, held.watched))   # type: ignore[no-untyped-call]
                asked += 1
            assert queries.event(held.reader, text, held.watched) is None, text
        everything = len(queries.events(held.reader, Period(0, 2e9), held.watched))
        assert len(queries.events(held.reader, Period(0, 2e9, "' OR 1=1 --"), held.watched)) == 0
        assert len(queries.events(held.reader, Period(0, 2e9, "%"), held.watched)) < everything
    for text in ("x'; DROP TABLE process_events; --", "%"):
        done = bench.rh("report", "events", "--command", text, "--since", "@1699999000", "--until", "@1700009000", "--db", database)
        clean(done.stderr)
        assert done.returncode == 0, done
    assert _dump(database) == before
    return f"{asked + 2} questions with {len(texts)} texts, {found} rows found; 0 tables changed"


def _dump(database: Path) -> list[tuple[str, int]]:
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master ORDER BY name")]
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")]
        return [*((name, 0) for name in names),
                *((table, connection.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0]) for table in tables)]


@case("names in manual pages", "pages are made of declarations only; what would be a request of roff there is text, and mandoc "
      "finds nothing")
def manual(bench: Bench) -> str:
    texts = [*(name for name in NAMES if _plain(name)), ".Ex", "'br", "\\fBx", ".de XX", "a\n.so /etc/passwd", "\\*(xx", "x \\\" y", ".", "'"]
    page = [".Dd January 1, 2026", ".Dt X 1", ".Os", ".Sh NAME", ".Nm x", ".Nd y", ".Sh DESCRIPTION"]
    lines = "\n".join(docs._list((Field(f"name{i}", str, "", text).name, docs._told(Field("x", str, "", text)))
                                 for i, text in enumerate(texts))).split("\n")
    ours = [line for line in lines if line[:1] in (".", "'")]
    assert {line.split(" ")[0] for line in ours} <= {".Bl", ".It", ".El"}, ours
    assert not [line for line in lines if "\\" in line.replace("\\e", "").replace("\\&", "").replace("\\(dq", "")]
    linted = ""
    if shutil.which("mandoc"):
        file = bench.tmp / "x.1"
        file.write_text("\n".join([*page, *lines, ""]), "utf-8")
        done = subprocess.run(["mandoc", "-T", "utf8", file], capture_output=True, check=False)
        assert done.returncode == 0 and b"/etc/passwd" in done.stdout and b"root:" not in done.stdout, done
        linted = ", read by mandoc"
    return f"{len(texts)} texts: {len(lines)} lines, {len(ours)} requests of ours, 0 of theirs{linted}"


def _plain(name: str) -> bool:
    return bool(name.strip()) and not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", name)


@case("names in the journal", "what goes there is one line without anything that is obeyed, and no level of its own; what comes from "
      "there is told as it is, and harmless to a reader")
def journal(bench: Bench) -> str:
    sent = 0
    for name in NAMES:
        if "\0" in name or "/" in name:
            continue
        done = bench.rh("report", "--db", bench.tmp / name[:200]) if sent < 4 or bench.long else None
        shown = done.stderr.decode() if done else f"rh-x: {visible(name)}\n"
        assert shown.count("\n") == 1 and not _OBEYED.search(shown) and not re.match("<[0-9]>", shown), shown
        sent += 1
    entries = [{"__REALTIME_TIMESTAMP": "1700000000000000", "__CURSOR": "x", "PRIORITY": "3", "_COMM": name, "_PID": "7",
                "SYSLOG_IDENTIFIER": name, "MESSAGE": name} for name in NAMES]
    entries += [{**entries[0], "MESSAGE": list(name.encode("utf-8", "surrogatepass"))} for name in NAMES]
    data = [json.dumps(entry).encode() + b"\n" for entry in entries]
    told = [each for each in logs.journal(data, None) if each["type"] == "log_entry"]
    assert len(told) == len(entries), len(told)
    for each in told:
        line = json.dumps(each)
        assert "\n" not in line and not _OBEYED.search(visible(each["message"])), each
        line.encode()
    file = bench.tmp / "journal"
    file.write_bytes(b"".join(data))
    shown = bench.rh("forensics", "parse", "--table", file)
    clean(shown.stderr)
    assert shown.returncode == 0 and not _OBEYED.search(shown.stdout.decode()), shown.stdout
    return f"{sent} lines sent, {len(told)} entries read, {len(shown.stdout):,} characters shown: 0 that a terminal obeys"
