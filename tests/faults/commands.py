"""Every filter as a process: damaged records on standard input, standard streams that are closed or full."""

from __future__ import annotations

import json
import os
import random
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rogue_hunter.__main__ import names
from rogue_hunter.config.options import Config
from rogue_hunter.scoring.stage import Score
from rogue_hunter.stream.pipeline import chain
from tests.tools import ticks as ticktools

from .mutate import mutate
from .table import REPO, SEED, Bench, Skip, case, clean

FILTERS = ("score", "track", "match", "forensics", "metrics")
"""Commands that read records on standard input. rh-reap has its own: it must not act on what it does not understand."""


@case("damaged records on standard input", "exit 0 or 65, only records on standard output, words on standard error, as "
      "many error records as lines that were bad")
def damaged(bench: Bench) -> str:
    rng = random.Random(SEED)
    there = [name for name in FILTERS if name in names()]
    lines = ticktools.lines(ticktools.Machine(SEED, processes=20).ticks(2000 if bench.long else 40)).split(b"\n")[:-1]
    if bench.long:
        lines = lines * (1_000_000 // len(lines) + 1)
    data = b"\n".join(mutate(line, rng) if rng.random() < 0.2 else line for line in lines)
    said = []
    for name in there:
        args = ("--textfile", str(bench.tmp / "x.prom")) if name == "metrics" else ()
        done = bench.rh(name, *args, stdin=data, timeout=3000)
        clean(done.stderr)
        assert done.returncode in (0, 65), (name, done.returncode, done.stderr[-500:])
        out = done.stdout.split(b"\n")
        assert out.pop() == b"", name
        types: dict[str, int] = {}
        for line in out:
            kind = json.loads(line)["type"]
            types[kind] = types.get(kind, 0) + 1
        assert done.stderr.count(b"\n") < 8, (name, done.stderr[:500])
        if name == "score":
            assert done.returncode == 65 and types["error"] > 10
            counted = int(done.stderr.split(b" line")[0].rsplit(b" ", 1)[-1])
            assert counted == types["error"], (counted, types)
        said.append(f"rh-{name} {done.returncode}, {types.get('error', 0)} errors")
    return f"{len(lines):,} lines, a fifth damaged: {'; '.join(said)}"


@case("records that rh-reap must not act on", "no signal to anybody: nothing but errors and refusals; bystanders live")
def reaper(bench: Bench) -> str:
    if "reap" not in names():
        raise Skip("no rh-reap yet")
    bystander = bench.start(["sleep", "300"])
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    start = int(Path(f"/proc/{bystander.pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    good = {"type": "match", "v": 1, "ts": 1.0, "boot_id": boot, "pid": bystander.pid, "start_ticks": start, "rule": "x",
            "action": "kill", "command": "sleep"}
    rng = random.Random(SEED)
    line = json.dumps(good).encode()
    pid = str(bystander.pid).encode()
    wrong = [line[:-1], line.replace(b'"pid": ', b'"pid": -'), line.replace(b'"v": 1', b'"v": 2'),
             b"\xef\xbb\xbf" + line, line.replace(pid, b'"' + pid + b'"'), line.replace(b'"ts": 1.0', b'"ts": NaN'),
             *(mutate(line, rng) for _ in range(3000 if bench.long else 300)), line]
    done = bench.rh("reap", "--yes", stdin=b"\n".join(wrong), timeout=600)
    clean(done.stderr)
    assert done.returncode in (0, 1, 65, 69), done
    assert bystander.poll() is None
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    acted = [o for o in outcomes if o["type"] == "action" and o["outcome"] in ("terminated", "killed", "survived")]
    assert not acted, acted[:3]
    return f"{len(wrong)} records: {len(outcomes)} answers, 0 signals, exit {done.returncode}"


@case("streams that are closed or full", "no traceback from any command; a full disk is exit 74, a closed pipe 141")
def streams(bench: Bench) -> str:
    ticks = ticktools.lines(chain(ticktools.Machine(SEED, processes=60, cpus=2).ticks(60), Score(Config())))
    source = bench.tmp / "in.ndjson"
    source.write_bytes(ticks)
    seen = []
    environment = {**bench.env, "LANG": "C", "PYTHONIOENCODING": "ascii"}
    tried = (("sample", "-n 1"), ("score", ""), ("config", "show"), ("track", ""), ("match", ""))
    for name, args in tried if bench.long else tried[:3]:
        if name not in names():
            continue
        command = " ".join([*map(str, bench.command(name)), args])
        codes = []
        shells = (f"{command} < {source} > /dev/full", f"{command} < {source} >&-", f"{command} <&- > /dev/null",
                  f"{command} < {source} 2>&- > /dev/null", f"{command} < {source} 2> /dev/full > /dev/null",
                  f"{{ {command} < {source}; echo $? >&3; }} 3>{bench.tmp}/code | head -c 1 > /dev/null")
        with ThreadPoolExecutor(2) as two:
            for done in two.map(lambda shell: subprocess.run(
                    ["/bin/sh", "-c", shell], env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False,
                    timeout=60), shells):
                clean(done.stderr)
                codes.append(done.returncode)
        usual = bench.rh(name, *args.split(), stdin=ticks)
        assert codes[0] == (74 if usual.stdout else usual.returncode), (name, codes)
        last = (bench.tmp / "code").read_text().strip()
        assert last in ("0", "141"), (name, last)
        seen.append(f"rh-{name} {','.join(map(str, codes[:-1]))},{last}")
    assert REPO.exists() and os.path.exists("/dev/full")
    return "; ".join(seen)
