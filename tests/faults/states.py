"""What /proc may be like: processes in strange states, no /proc at all, a secret in a form of its own."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

from tests.tools.processes import python

from .limits import _works, state
from .table import Bench, Skip, case, clean

HEADLESS = """
import ctypes, os, threading
def burn():
    print("ready", flush=True)
    while True: pass
threading.Thread(target=burn).start()
ctypes.CDLL(None).syscall(93 if os.uname().machine == "aarch64" else 60, 0)
"""
"""Its first thread ends alone: /proc/PID/stat says Z, cmdline is empty, exe leads nowhere, and it burns a core."""


@case("a zombie whose threads live", "a row with its state, its threads and the CPU time of them all; a score")
def headless(bench: Bench) -> str:
    child = bench.start(python(HEADLESS), stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"ready\n"
    end = time.monotonic() + 10
    while b") Z " not in (held := Path(f"/proc/{child.pid}/stat").read_bytes()) and time.monotonic() < end:
        time.sleep(0.01)
    if b") Z " not in held:
        raise Skip("the first thread did not end")
    done = bench.rh("sample", "-n", "4", "--hz", "4")
    clean(done.stderr, lines=0)
    assert done.returncode == 0
    read = [json.loads(line) for line in done.stdout.splitlines()]
    seen = [row for row in read if row["type"] == "process" and row["pid"] == child.pid]
    last = seen[-1]
    assert last["state_raw"] == "Z" and last["threads"] >= 2 and max(row.get("cpu_percent", 0) for row in seen) > 1, last
    assert {row["errors"] for row in read if row["type"] == "tick"} == {0}
    scored = bench.rh("score", stdin=done.stdout)
    (score,) = [row["score"] for row in map(json.loads, scored.stdout.splitlines())
                if row["type"] == "process" and row["pid"] == child.pid][-1:]
    assert score > 0, score
    return f"state {last['state']}, {last['threads']} threads, {last['cpu_percent']} %, score {score}"


def _refuses(bench: Bench, name: str, args: tuple[str, ...], prefix: list[str], stdin: bytes = b"") -> str:
    """A command ends at once, in one line of words."""
    began = time.process_time(), time.monotonic()
    done = bench.rh(name, *args, prefix=prefix, stdin=stdin, timeout=60)
    clean(done.stderr, lines=1)
    assert done.returncode in (69, 74), (name, done)
    assert done.stderr.count(b"/") >= 1, done.stderr
    assert time.monotonic() - began[1] < 30
    return f"rh-{name} {done.returncode}"


@case("no /proc", "unmounted, hidden below an empty directory, an empty --proc-root: one line, exit 69 or 74, at once")
def no_proc(bench: Bench) -> str:
    empty = bench.tmp / "empty"
    empty.mkdir()
    database = bench.tmp / "x.db"
    pipe = ("--quiet", "--no-socket", "--db", str(database))
    said = []
    for name, args in (("sample", ("-n", "2")), ("pipe", pipe)):
        said.append("empty root: " + _refuses(bench, name, (*args, "--proc-root", str(empty)), []))
    missing = str(bench.tmp / "none")
    said.append("no root: " + _refuses(bench, "sample", ("--proc-root", missing), []))
    if os.geteuid() == 0:
        covered = ["unshare", "--mount", "sh", "-c", f'mount --bind {empty} /proc && exec "$@"', "sh"]
        _works(covered)
        for name, args in (("sample", ("-n", "2")), ("pipe", pipe)):
            said.append("unmounted: " + _refuses(bench, name, args, covered))
        reap = bench.rh("reap", "--pid", "4242", "--yes", "--dry-run", prefix=covered)
        clean(reap.stderr, lines=1)
        assert reap.returncode == 1 and not reap.stdout, reap
        read = bench.rh("report", "status", "--db", database, prefix=covered)
        clean(read.stderr)
    return ", ".join(said)


@case("/proc goes away", "covered under a running rh-pipe: it reads on through what it holds open, or says that it cannot; "
      "whole when it is back; exit 0")
def proc_goes(bench: Bench) -> str:
    if os.geteuid() != 0:
        raise Skip("mounting needs root")
    _works(["unshare", "--mount", "true"])
    gate, empty = bench.tmp / "gate", bench.tmp / "empty"
    empty.mkdir()
    os.mkfifo(gate)
    # One shell in the same mount namespace covers /proc and uncovers it on request.
    script = (f'"$@" & while read word; do case $word in cover) mount --bind {empty} /proc;; '
              "uncover) umount /proc;; end) kill -TERM $!; wait $!; exit $?;; esac; done < " + str(gate))
    child = bench.start(["unshare", "--mount", "sh", "-c", script, "sh", *bench.command(
        "pipe", "--quiet", "--hz", "10", "--tee", "--no-socket", "--db", str(bench.tmp / "x.db"))],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    out = child.stdout

    def ticks(wanted: int, good: bool | None = None) -> list[dict[str, object]]:
        """So many closing rows in a row that are as wanted; no more than a hundred are waited for."""
        found: list[dict[str, object]] = []
        for _ in range(100):
            while b'"type":"tick"' not in (line := out.readline()):
                assert line, "rh-pipe ended"
            row = json.loads(line)
            whole = not row["errors"] and row["processes"] > 3
            found = [*found, row] if good is None or whole is good else []
            if len(found) >= wanted:
                return found
        raise AssertionError("not as wanted in a hundred ticks")

    with open(gate, "wb", buffering=0) as told:
        before = ticks(3, True)[-1]
        told.write(b"cover\n")
        during = ticks(5)
        time.sleep(0.3)
        during += ticks(5)
        told.write(b"uncover\n")
        after = ticks(3, True)[-1]
        told.write(b"end\n")
        _, err = child.communicate(timeout=60)
    clean(err)
    assert child.returncode == 0, (child.returncode, err)
    assert after["processes"] > 3 and state(bench.tmp / "x.db")["ticks"] > 10
    worst = max(int(str(row["errors"])) for row in during)
    assert all(row["errors"] or row["unreadable"] or int(str(row["processes"])) > 3 for row in during), during
    return (f"{before['processes']} processes before, {len(during)} ticks meanwhile with {worst} errors at most, "
            f"{after['processes']} after; exit 0")


