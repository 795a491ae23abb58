"""The commands themselves inside of the arena. Each function is run as the first process of a namespace, gives JSON."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NoReturn

import click

from tests.reaper.arena import Arena, readable
from tests.reaper.scenarios import INCIDENT_RULES, lives, scene
from tests.tools import forked

RULES = """
[safety]
min_pid = 1000
[[rules]]
name = "burner"
priority = "critical"
conditions = { command_patterns = ["^victim"], cpu_percent_min = 15, duration_seconds = 2 }
action = { signal = "SIGTERM", notify = true }
[[rules]]
name = "idler"
priority = "low"
conditions = { command_patterns = ["^idler", "^systemd$", "^rh-pipe$"], cpu_percent_max = 5 }
"""


Run = dict[str, Any]


class Place:
    """A home of the ordinary user, with rules in it."""

    def __init__(self, arena: Arena, rules: str = RULES) -> None:
        self.arena = arena
        self.home = arena.dir / "home"
        self.rules = self.home / ".config" / "rogue-hunter" / "reaper.toml"
        self.audit = self.home / ".local" / "state" / "rogue-hunter" / "audit.log"

        def make() -> None:
            self.rules.parent.mkdir(parents=True, mode=0o700)
            self.rules.write_text(rules)

        arena.as_user(make)

    @cached_property
    def _found(self) -> tuple[str, str]:
        return self.arena.as_user(interpreter)  # type: ignore[no-any-return]

    @property
    def env(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "PYTHONDONTWRITEBYTECODE")}
        path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH", ""), self._found[1]]))
        return {**kept, "PYTHONPATH": path, "HOME": str(self.home), "LANG": "C.UTF-8"}

    def argv(self, *words: str) -> list[str]:
        """The command line of rh-NAME ARGUMENT..."""
        return [self._found[0], "-P", "-m", "rogue_hunter", *words]

    def rh(self, *words: str, stdin: bytes = b"") -> Run:
        """rh-NAME ARGUMENT... as the user."""
        return self.arena.as_user(lambda: brief(self.forked(words, stdin)))  # type: ignore[no-any-return]

    def forked(self, words: Sequence[str], stdin: bytes) -> subprocess.CompletedProcess[bytes]:
        """Run a command here, as the user, to its end, without a start of Python."""
        read, write = os.pipe()
        streams = [read, os.memfd_create("out"), os.memfd_create("err")]
        pid = os.fork()
        if pid == 0:
            os.close(write)
            for number, fd in enumerate(streams):
                os.dup2(fd, number)
            self.become(words)
        os.close(read)
        with contextlib.suppress(BrokenPipeError):
            os.write(write, stdin)      # fits into the pipe
        os.close(write)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        out, err = (os.pread(fd, os.fstat(fd).st_size, 0) for fd in streams[1:])
        return subprocess.CompletedProcess(words, code, out, err)

    def become(self, words: Sequence[str]) -> NoReturn:
        """This process, the user's, becomes a command."""
        os.chdir(self.home)
        env = {"PATH": os.environ["PATH"], "HOME": str(self.home), "LANG": "C.UTF-8"}
        os.environ.clear()
        os.environ.update(env)
        forked.command(words)

    def shell(self, *stages: Sequence[str], before: str = "") -> Run:
        """A pipeline of commands in the user's shell; the exit code is the last one's."""
        line = " | ".join(" ".join(self.argv(*stage)) for stage in stages)
        return self.arena.as_user(lambda: brief(subprocess.run(  # type: ignore[no-any-return]
            [*before.split(), "sh", "-c", line], stdin=subprocess.DEVNULL, capture_output=True, env=self.env,
            cwd=self.home, check=False, timeout=60)))

    @contextmanager
    def background(self, *words: str, end: int = signal.SIGTERM) -> Iterator[int]:
        """A command in the background, ended by a signal; gives its pid. Its threads would import what the user may not read:
        it has an interpreter of its own."""
        def work() -> None:
            log = os.open(self.home / "background.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(log, 2)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.chdir(self.home)
            os.execve(argv[0], argv, env)

        argv, env = self.argv(*words), self.env
        pid = self.arena.fork(work, "x")
        try:
            yield pid
            os.kill(pid, end)
            _, status = os.waitpid(pid, 0)
            self.arena.children.discard(pid)
            assert os.waitstatus_to_exitcode(status) == 0, (self.home / "background.log").read_text()
        finally:
            self.arena.end(pid)

    def entries(self) -> list[Run]:
        """The lines of the audit file."""
        return [json.loads(line) for line in self.audit.read_text().splitlines()] if self.audit.exists() else []


def interpreter() -> tuple[str, str]:
    """A Python that this user may run, and where it finds the packages: the running one may lie in root's home."""
    named = f"python3.{sys.version_info.minor}"
    packages = os.path.dirname(os.path.dirname(click.__file__))
    for program, path in ((sys.executable, ""), *((f"{folder}/{named}", packages)
                                                  for folder in os.environ["PATH"].split(os.pathsep))):
        probe = [program, "-P", "-c", "import rogue_hunter.stream.wire, click"]
        try:
            if subprocess.run(probe, capture_output=True, check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(
                    [os.environ["PYTHONPATH"], path])}).returncode == 0:
                return program, path
        except OSError:
            continue
    raise LookupError(f"NOT TESTED: no {named} here that an ordinary user may run")


def brief(done: subprocess.CompletedProcess[bytes]) -> Run:
    return {"rc": done.returncode, "err": done.stderr.decode(),
            "out": [json.loads(line) for line in done.stdout.splitlines()]}


def old_enough() -> None:
    """Windows of two seconds, and processes that differ by their start."""
    time.sleep(3.2)


def wait_for(what: Callable[[], Any], seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(found)


def incident(arena: Arena, strace: str) -> Any:
    """Sample, match and reap as a pipeline of three commands: first dry (under strace, where there is one), then not."""
    place = Place(arena, INCIDENT_RULES)
    with scene(arena) as (rogue, people):
        names = {pid: name for name, pid in {**rogue, **people}.items()}
        old_enough()
        traces = {name: place.home / name for name in ("dry.trace", "real.trace")}
        before = {name: f"{strace} -f --seccomp-bpf -qq -e trace=kill,tkill,tgkill,pidfd_send_signal,rt_sigqueueinfo -e signal=none "
                        f"-o {trace}" if strace else "" for name, trace in traces.items()}
        pipeline = (("sample", "-n", "2"), ("match",))
        dry = place.shell(*pipeline, ("reap", "--dry-run"), before=before["dry.trace"])
        lived = {name: lives(pid) for pid, name in names.items()}
        real = place.shell(*pipeline, ("reap", "--yes"), before=before["real.trace"])
        wait_for(lambda: not any(lives(pid) for pid in rogue.values()), 5)
        return {"dry": told(dry, names), "real": told(real, names), "lived": lived, "dry_rc": dry["rc"],
                "real_rc": real["rc"], "alive": {name: lives(pid) for pid, name in names.items()},
                "traces": {name: trace.read_text() for name, trace in traces.items() if trace.exists()},
                "people": sorted(people), "check": place.rh("reap", "--verify")["out"][0]}


def told(run: Run, names: dict[int, str]) -> dict[str, list[str]]:
    return {names.get(a["pid"], str(a.get("cmdline"))): [a["rule"], a["outcome"]] for a in run["out"]
            if a["type"] == "action"}


def refusals(arena: Arena) -> Any:
    """--pid with --yes on everything that is protected, and --all with rules that match it."""
    arena.next_pid(300)
    low = arena.victim(name="idler")
    arena.next_pid(3000)
    cases = {"low_pid": low, "root": 1, "whitelist": arena.victim(name="systemd"),
             "rogue_hunter": arena.victim(name="rh-pipe")}
    if arena.root:
        for name, ids in (("not_my_uid", (1001, 1001, 1001)), ("root_saved", (1000, 0, 0))):
            pid = os.fork()
            if pid == 0:
                os.setresuid(*ids)
                signal.pause()
            arena.children.add(pid)
            cases[name] = pid
    bystander = arena.victim(name="bystander")
    place = Place(arena)
    found = {name: place.rh("reap", "--yes", "--pid", str(pid)) for name, pid in cases.items()}

    def with_ancestor() -> Run:
        return brief(place.forked(("reap", "--yes", "--pid", str(os.getpid())), b""))

    found["ancestor"] = arena.as_user(with_ancestor)
    old_enough()
    everything = place.rh("reap", "--yes", "--all")
    alive = {name: pid == 1 or arena.alive(pid) for name, pid in cases.items()}
    return {"found": found, "all": everything, "pids": cases, "alive": alive, "bystander": arena.alive(bystander),
            "missing": place.rh("reap", "--yes", "--pid", "4000000")}


def asked(arena: Arena, answer: str) -> Any:
    """On a terminal: the question comes there, and the answer decides. `^C` is a signal at the question."""
    victim, bystander = arena.victim(), arena.victim(name="bystander")
    place = Place(arena)

    def on_a_terminal() -> Any:
        out_r, out_w = os.pipe()
        pid, terminal = pty.fork()
        if pid == 0:
            os.dup2(out_w, 1)
            place.become(("reap", "--pid", str(victim)))
        os.close(out_w)
        seen = b""
        while b"[y/N]" not in seen and readable(terminal, 20):
            seen += os.read(terminal, 4096)
        os.write(terminal, b"\x03" if answer == "^C" else answer.encode() + b"\n")
        out = b""
        while part := os.read(out_r, 65536):
            out += part
        _, status = os.waitpid(pid, 0)
        os.close(terminal)
        return seen.decode(), out.decode(), os.waitstatus_to_exitcode(status)

    seen, out, code = arena.as_user(on_a_terminal)
    unasked = place.rh("reap", "--pid", str(bystander))  # no terminal, no --yes
    return {"seen": seen, "out": [json.loads(line) for line in out.splitlines()], "rc": code,
            "victim": arena.alive(victim), "bystander": arena.alive(bystander), "unasked": unasked,
            "kinds": [e["kind"] for e in place.entries()]}


def no_audit(arena: Arena) -> Any:
    """The audit file cannot be written: a directory has its name."""
    victim = arena.victim()
    place = Place(arena)
    arena.as_user(lambda: place.audit.mkdir(parents=True, mode=0o700))
    done = place.rh("reap", "--yes", "--pid", str(victim))
    return {"done": done, "victim": arena.alive(victim)}


def twice(arena: Arena) -> Any:
    """Two commands at once on a process that ignores SIGTERM; then the audit file is changed by a byte."""
    victim, bystander = arena.victim("ignore"), arena.victim("ignore", name="bystander")
    place = Place(arena)
    argv = place.argv("reap", "--yes", "--pid", str(victim))

    def both() -> list[Run]:
        started = [subprocess.Popen(argv, stdin=subprocess.DEVNULL, env=place.env,
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=place.home) for _ in range(2)]
        done = [(each, *each.communicate(timeout=60)) for each in started]
        return [brief(subprocess.CompletedProcess((), each.returncode, out, err)) for each, out, err in done]

    runs = arena.as_user(both)
    signals = [e["signal"] for e in place.entries() if e["kind"] in ("intent", "escalate")]
    whole = place.rh("reap", "--verify")

    def change() -> None:
        text = place.audit.read_bytes()
        place.audit.write_bytes(text.replace(b'"command":"victim"', b'"command":"victin"', 1))

    arena.as_user(change)
    return {"runs": runs, "signals": signals, "whole": whole, "changed": place.rh("reap", "--verify"),
            "victim": arena.alive(victim), "bystander": arena.alive(bystander)}


CROWD = """
[[rules]]
name = "crowd"
priority = "high"
conditions = { age_seconds = 1, command_patterns = ["^victim$"] }
action = { timeout_seconds = 1.0 }
"""


def crowd(arena: Arena) -> Any:
    """Several that ignore SIGTERM, through the pipeline."""
    victims = [arena.victim("ignore") for _ in range(3)]
    bystander = arena.victim("ignore", name="bystander")
    place = Place(arena, CROWD)
    old_enough()
    done = place.shell(("sample", "-n", "2"), ("match",), ("reap", "--yes"))
    return {"done": done, "alive": [arena.alive(v) for v in victims], "bystander": arena.alive(bystander),
            "kinds": [e["kind"] for e in place.entries()]}


def kept(arena: Arena) -> Any:
    """An action in the database that was named, and in the user's own once it exists."""
    victims = [arena.victim() for _ in range(2)]
    bystander = arena.victim(name="bystander")
    place = Place(arena)
    named = str(place.home / "named.db")
    first = place.rh("reap", "--yes", "--pid", str(victims[0]), "--db", named)
    place.shell(("pipe", "--for", "1s", "-q", "--no-socket"))
    second = place.rh("reap", "--yes", "--pid", str(victims[1]))
    return {"first": first, "second": second, "named": place.rh("report", "actions", "--db", named)["out"],
            "own": place.rh("report", "actions")["out"], "alive": [arena.alive(v) for v in victims],
            "bystander": arena.alive(bystander), "victims": victims}


def pipe(arena: Arena, mode: str) -> Any:
    """rh-pipe over a process that burns and two that do not concern it; in observe, a person ends it beside rh-pipe."""
    place = Place(arena)
    config = place.home / "config.toml"
    burner, _, _ = RULES.partition('[[rules]]\nname = "idler"')  # which matches rh-pipe by its name
    arena.as_user(lambda: config.write_text(f'[reap]\nmode = "{mode}"\n{burner}\n[notifications]\nenabled = false\n'))
    victim = arena.victim("busy")
    bystander = arena.victim(name="bystander")
    words = ("pipe", "-q", "--no-socket", "-c", str(config))
    log = place.home / ".local" / "state" / "rogue-hunter" / "rh-pipe.log"
    with place.background(*words):
        if mode == "armed":
            wait_for(lambda: not arena.alive(victim))
            survived = arena.alive(victim)
            time.sleep(1)
        else:
            wait_for(lambda: log.exists() and "rule burner matches" in log.read_text())     # without a start of Python for each look
            survived = arena.alive(victim)
            place.rh("reap", "--yes", "--pid", str(victim))
            wait_for(lambda: place.rh("report", "actions")["out"])
    return {"survived": survived, "bystander": arena.alive(bystander), "matches": place.rh("report", "matches")["out"],
            "actions": place.rh("report", "actions")["out"], "timeline": place.rh("report", "timeline")["out"],
            "log": [json.loads(line)["message"] for line in log.read_text().splitlines()], "victim": victim,
            "metrics": metrics(place)}


def metrics(place: Place) -> str:
    argv = place.argv("metrics")

    def work() -> str:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, env=place.env, check=False)
        return done.stdout.decode() + done.stderr.decode()

    return place.arena.as_user(work)  # type: ignore[no-any-return]


def disarming(arena: Arena) -> Any:
    """The configuration of an armed rh-pipe is set to observe while it runs, then a process begins to burn."""
    place = Place(arena)
    config = place.home / "config.toml"
    arena.as_user(lambda: config.write_text(f'[reap]\nmode = "armed"\n{RULES}'))
    log = place.home / ".local" / "state" / "rogue-hunter" / "rh-pipe.log"

    def said(words: str) -> bool:
        return log.exists() and words in log.read_text()

    with place.background("pipe", "-q", "--no-socket", "-c", str(config)):
        armed = wait_for(lambda: said("armed: processes that match"))
        arena.as_user(lambda: config.write_text(f'[reap]\nmode = "observe"\n{RULES}'))
        disarmed = wait_for(lambda: said("no longer armed"))
        victim = arena.victim("busy")
        matched = wait_for(lambda: said("rule burner matches"))
        time.sleep(1.0)
        return {"armed": armed, "disarmed": disarmed, "matched": matched, "victim": arena.alive(victim),
                "actions": place.entries()}
