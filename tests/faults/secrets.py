"""What must not get out: secrets in arguments, and files that others may read."""

from __future__ import annotations

import json
import os
import shlex
import socket
import stat
import subprocess
import time
from pathlib import Path

from tests.tools.processes import python

from .limits import rows, state
from .table import Bench, case, clean

SECRETS = {
    "--password={}": "kR7-waterfall-91", "--token {}": "tok-5hf82kq0d7",
    "-H Authorization: Bearer {}": "bea-0ux72nq9zz", "API_KEY={}": "key-11kd93jf02", "postgres://u:{}@h/d": "pgs-8820fkdj31",
    "--client-secret {}": "cls-4481hdkw92",
}
OWN_WAYS = {
    "mysql -u root -p{} db": "mys-71hd02kq5x", "sshpass -p {} ssh h": "ssp-92kd81hf0q", "redis-cli -a {} ping": "red-66fj2ka81z",
    "curl -u me:{} https://h": "cur-30dk5jd71w", "ldapsearch -w{}": "lda-18fh4kx02p", "smbclient -U me%{}": "smb-55ah1jk93v",
    "7z x -p{} a.7z": "7zx-20dj4hf66b", "kubectl create --from-literal=password={}": "kub-84hs9dk31n",
}
"""Secrets in the way of one program, each command line in a process of its own."""

RULES = """
[[rules]]
name = "burner"
priority = "high"
conditions = { cpu_percent_min = 1, cmdline_patterns = ["while os.getppid|while kill -0"] }
"""


def _below(prompt: subprocess.Popen[bytes], args: list[str]) -> int:
    """The pid of a command that a shell started in the background."""
    assert prompt.stdin is not None and prompt.stdout is not None
    prompt.stdin.write(f"{shlex.join(args)} 2>&- & echo $!\n".encode())
    prompt.stdin.flush()
    return int(prompt.stdout.readline())


def everything(*places: Path) -> dict[Path, bytes]:
    """The bytes of every file below."""
    return {path: path.read_bytes() for place in places for path in place.rglob("*") if path.is_file()}


@case("secrets in arguments", "their bytes are in no database, -wal, log, audit, capture, socket, standard output or "
      "error")
def secrets(bench: Bench) -> str:
    args = [word.format(secret) for form, secret in SECRETS.items() for word in (
        [form] if form.startswith("-H") else form.split(" "))]
    # Below a shell without a script each is a unit of its own, so each has an event. They end with that shell.
    prompt = bench.start(["/bin/sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    code = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"
    burner = _below(prompt, [*python(code), "curl", *args])
    shell = _below(prompt, ["/bin/sh", "-c", "while kill -0 $PPID; do :; done # mysql --password="
                            + next(iter(SECRETS.values()))])
    # These wait: eight that burn would keep everything else from running.
    idle = [bench.start([*python("import signal; signal.pause()"), *line.format(secret).split(" ")])
            for line, secret in OWN_WAYS.items()]
    every = (*SECRETS.values(), *OWN_WAYS.values())
    environment = bench.env
    home = Path(environment["HOME"])
    config = bench.tmp / "c.toml"
    config.write_text('[log]\nlevel = "debug"\n[bands]\nelevated = 31\nhigh = 32\ncritical = 33\n')
    with open(bench.tmp / "tee", "wb") as tee, open(bench.tmp / "stderr", "wb") as stderr:
        pipe = bench.start(bench.command("pipe", "--hz", "10", "--tee", "--for", "3s", "-c", config), stdout=tee,
                           stderr=stderr)
    run = home / ".local/state/rogue-hunter/run"
    end = time.monotonic() + 10
    while not (found := [p for p in run.glob("*") if p.is_socket()]) and time.monotonic() < end:
        time.sleep(0.05)
    heard = b""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(found[0]))
        client.settimeout(1.0)
        held: dict[Path, bytes] = {}
        looked = 0.0
        while pipe.poll() is None and len(heard) < 1 << 24:
            # Looked at while it runs: the -wal is gone afterwards.
            if time.monotonic() > looked + 0.25:
                held = everything(home)
                looked = time.monotonic()
            try:
                data = client.recv(1 << 16)
            except TimeoutError:
                continue
            if not data:
                break
            heard += data
    assert pipe.wait(60) == 0
    clean((bench.tmp / "stderr").read_bytes())
    database = home / ".local/share/rogue-hunter/rogue-hunter.db"
    assert any(path.name.endswith("-wal") for path in held), sorted(held)
    told = [row[0] for row in rows(database, "SELECT cmdline FROM process_events WHERE cmdline IS NOT NULL"
                                             f" AND pid IN ({burner}, {shell})")]
    assert len(told) == 2, told
    # What is recorded, what is reported, and what a person sees.
    recorded = bench.rh("sample", "-n", "2", "--record", bench.tmp / "recording")
    captured = bench.rh("forensics", "capture", str(burner), str(shell), str(idle[0].pid), "--ndjson")
    rules = bench.tmp / "rules.toml"
    rules.write_text(RULES)
    matched = bench.rh("match", "-c", rules, stdin=recorded.stdout)
    told_of = {json.loads(line)["pid"] for line in matched.stdout.splitlines()}
    assert {burner, shell} <= told_of, matched
    reaped = bench.rh("reap", "-c", rules, "--dry-run", "--yes", stdin=matched.stdout)
    audit = home / ".local/state/rogue-hunter/audit.log"
    assert str(burner).encode() in audit.read_bytes() and str(burner).encode() in reaped.stdout
    prompt.kill()   # the burners are in everything by now; what follows reads what was written
    prompt.wait(30)
    reports = [bench.rh("report", *view) for view in (("--table",), ("events", "--csv"), ("captures",))]
    reports += [captured, matched, reaped]
    said = {Path("socket"): heard, Path("sample"): recorded.stdout,
            **{Path(name): (bench.tmp / name).read_bytes() for name in ("tee", "stderr")},
            **{Path(f"report {i}"): done.stdout + done.stderr for i, done in enumerate(reports)}}
    places = {**held, **everything(home, bench.tmp / "recording"), **said}
    assert b'"type":"process"' in heard and str(burner).encode() in heard
    leaks = [(str(path), secret) for path, data in places.items() for secret in every
             if secret.encode() in data]
    assert not leaks, leaks
    assert any(b"[REDACTED]" in data or b"***" in data for data in places.values()), told
    (captures,) = rows(database, "SELECT count(*) FROM forensic_captures")[0]
    assert captures, "no capture to look into"
    names = sorted({path.name for path in held})
    return f"{len(every)} secrets, {captures} captures, {len(places)} files and streams ({', '.join(names)[:120]}): 0 bytes of them"


@case("umask 000", "nothing that any command makes may be looked into by group or others (systemd's unit: not written)")
def umask(bench: Bench) -> str:
    environment = {**bench.env, "XDG_RUNTIME_DIR": str(bench.tmp / "runtime")}
    (bench.tmp / "runtime").mkdir(0o700)
    home = Path(environment["HOME"])
    runs = [("config", "init"), ("config", "show"), ("pipe", "--quiet", "--for", "1s", "--hz", "10"), ("report",),
            ("prune", "--older-than", "1d"), ("sample", "-n", "1", "--record", str(bench.tmp / "home/recording")),
            ("service", "install")]
    done = []
    old = os.umask(0)
    try:
        for args in runs:
            ran = bench.rh(args[0], *args[1:], env=environment)
            clean(ran.stderr)
            done.append(f"rh-{args[0]} {ran.returncode}")
        # While it runs, for what is gone afterwards: the socket, the -wal.
        pipe = bench.start(bench.command("pipe", "--quiet", "--hz", "10"), env=environment, stderr=subprocess.DEVNULL)
        database = home / ".local/share/rogue-hunter/rogue-hunter.db"
        end = time.monotonic() + 20
        while not (list((bench.tmp / "runtime").rglob("*.sock*")) and Path(f"{database}-wal").exists()) and time.monotonic() < end:
            time.sleep(0.05)
        looked = _open_to_others(home, bench.tmp / "runtime")
        pipe.terminate()
        pipe.wait(30)
    finally:
        os.umask(old)
    assert "ticks" in state(database)       # how many a busy machine lets it take is not the point
    after = _open_to_others(home, bench.tmp / "runtime")
    assert not looked[1] | after[1], looked[1] | after[1]
    kinds = sorted({path.name for path in looked[0] | after[0]})
    made = len(looked[0] | after[0])
    return f"{', '.join(done)}; {made} files and directories ({', '.join(kinds)[:160]}): 0 open to others"


def _open_to_others(*places: Path) -> tuple[set[Path], set[str]]:
    """Everything of ours, and what of it group or others may use."""
    found, wrong = set(), set()
    for place in places:
        for path in place.rglob("*"):
            if "rogue-hunter" in str(path) or "recording" in str(path):
                mode = path.lstat().st_mode
                found.add(path)
                # The unit lies in a directory of systemd's and holds nothing but a command line.
                others = 0o022 if path.suffix in (".service", ".plist") else 0o077
                if not stat.S_ISLNK(mode) and mode & others:
                    wrong.add(f"{path}: {stat.S_IMODE(mode):04o}")
    assert found
    return found, wrong
