"""What happens inside of the arena. Each function is run as the first process of a namespace and gives JSON."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rogue_hunter.cli.reap import Interrupts
from rogue_hunter.host.linux.host import LinuxHost
from rogue_hunter.reaper.audit import AuditLog
from rogue_hunter.reaper.candidate import manual
from rogue_hunter.reaper.guards import disarmed
from rogue_hunter.reaper.linux import LinuxMachine
from rogue_hunter.reaper.process import Handle, Stop
from rogue_hunter.reaper.run import Setup, exit_code, reap_batch
from rogue_hunter.rules.load import parse
from rogue_hunter.rules.matcher import Matcher
from rogue_hunter.rules.model import RuleSet
from rogue_hunter.sampling.sample import sample
from rogue_hunter.stream.clock import Rate, beats
from rogue_hunter.stream.pipeline import chain
from rogue_hunter.stream.tick import Record
from tests.reaper.arena import USER, Arena, wall

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER = (
    0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000)
"""Namespaces of unshare(2), by include/uapi/linux/sched.h."""

RULES = b"""
[[rules]]
name = "v"
conditions = { command_patterns = ["^victim"], cpu_percent_min = 50 }
action = { signal = "SIGTERM" }
[[rules]]
name = "quick"
conditions = { command_patterns = ["^victim"] }
action = { signal = "SIGKILL" }
[[rules]]
name = "brisk"
conditions = { command_patterns = ["^victim"] }
action = { timeout_seconds = 1.0 }
[[rules]]
name = "hasty"
conditions = { command_patterns = ["^victim"] }
action = { timeout_seconds = 0.1 }
[[rules]]
name = "gentle"
conditions = { command_patterns = ["^victim"] }
action = { timeout_seconds = 0.3, fallback_signal = "none" }
[safety]
min_pid = 1000
max_per_rule_per_hour = 1000
max_per_run = 1000
"""

PARSED = parse(RULES)
"""Before root is given up: the user may not be able to read the interpreter's own files."""

BOTH = parse(RULES.replace(b'signal = "SIGTERM"', b"timeout_seconds = 1"))


class Hooked(LinuxMachine):
    """Calls back before a process is opened and around each signal to it."""

    before_open: Callable[[int], None] = staticmethod(lambda pid: None)
    after_send: Callable[[int, int], None] = staticmethod(lambda pid, number: None)
    lie = False

    def open(self, pid: int) -> Handle:
        self.before_open(pid)
        return HookedHandle(super().open(pid), pid, self)


class HookedHandle:
    """A pidfd with hooks; with `lie` it says that the process lives on, so that SIGKILL is tried."""

    method = "pidfd"

    def __init__(self, real: Handle, pid: int, machine: Hooked) -> None:
        self.real, self.pid, self.machine = real, pid, machine

    def send(self, number: int) -> float | None:
        answer = self.real.send(number)
        self.machine.after_send(self.pid, number)
        return answer

    def gone(self) -> bool:
        return not self.machine.lie and self.real.gone()

    def fileno(self) -> int:
        return -1 if self.machine.lie else self.real.fileno()

    def close(self) -> None:
        self.real.close()


def setup(arena: Arena, rules: RuleSet | None = None, **more: Any) -> Setup:
    state = arena.dir / "state"
    return Setup(**{"rules": rules or PARSED, "machine": LinuxMachine(), "audit": AuditLog(state / "audit.log"),
                    "state_dir": state, "host": "arena", **more})


def judged(pid: int, rule: str = "v", **more: Any) -> Record:
    """What rh-match would say of a process that has burnt a core for a while."""
    match = manual(LinuxMachine(), pid, time.time())
    return {**match, "rule": rule, "evidence": "window", "priority": "high", "reason": "cpu 99 %", "cpu_percent": 99.0,
            "age_s": max(2.0, match["age_s"]), **more}


def brief(actions: list[Record]) -> list[dict[str, Any]]:
    return [{k: a.get(k) for k in ("pid", "outcome", "signals", "refusals", "wait_s", "detail", "method", "signal",
                                   "cpu_recovered_percent", "dry_run")} for a in actions]


def one(arena: Arena, kind: str, rule: str = "v") -> Any:
    """One victim of a kind, and a bystander of the same kind with another name."""
    victim, bystander = arena.victim(kind), arena.victim(kind, name="bystander")
    with wall() as took:
        actions = arena.as_user(lambda: reap_batch([judged(victim, rule)], setup(arena)))
    audit = arena.as_user(lambda: [e["kind"] + ":" + str(e.get("signal")) for e in
                                   setup(arena).audit.recent(100)])
    verdict = arena.as_user(lambda: list(setup(arena).audit.verify()))
    return {"actions": brief(actions), "took": took[0], "victim": arena.alive(victim),
            "bystander": bystander_lives(arena, bystander, kind), "audit": audit, "verdict": verdict,
            "bundle": sorted(actions[0].get("bundle", {})), "exit": exit_code(actions),
            "disarmed": arena.as_user(lambda: disarmed(setup(arena).state_dir))}


def bystander_lives(arena: Arena, pid: int, kind: str) -> bool:
    if kind != "stopped":
        return arena.alive(pid)
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "T"


def many(arena: Arena, count: int) -> Any:
    """Victims that ignore SIGTERM, all at once."""
    victims = [arena.victim("ignore") for _ in range(count)]
    bystander = arena.victim("ignore", name="bystander")
    with wall() as took:
        actions = arena.as_user(lambda: reap_batch([judged(v, "brisk") for v in victims], setup(arena)))
    return {"actions": brief(actions), "took": took[0], "alive": [arena.alive(v) for v in victims],
            "bystander": arena.alive(bystander)}


USUAL = parse(RULES.partition(b"[safety]")[0] + b"[safety]\nmax_per_rule_per_hour = 1000\n")
"""At most 20 in one run, as without any word on it."""


def crowd(arena: Arena, count: int) -> Any:
    """So many rogues at once that do not hear SIGTERM, and what two runs of the reaper leave of them."""
    victims = [arena.victim("ignore") for _ in range(count)]
    bystander = arena.victim("ignore", name="bystander")
    with wall() as took:
        actions = arena.as_user(lambda: reap_batch([judged(v, "hasty") for v in victims], setup(arena, USUAL)))
    first = {a["pid"] for a in actions if a["outcome"] == "killed"}
    audit = arena.as_user(lambda: [e["kind"] for e in setup(arena, USUAL).audit.recent(1000)])
    lines = arena.as_user(lambda: list(setup(arena).audit.verify()))
    return {"outcomes": Counter(a["outcome"] for a in actions), "took": took[0], "audit": Counter(audit),
            "refusals": Counter(code for a in actions for code in a.get("refusals", ())),
            "alive": [v for v in victims if arena.alive(v)] == [v for v in victims if v not in first],
            "bystander": arena.alive(bystander), "exit": exit_code(actions), "verdict": lines}


def named(arena: Arena, by_rule: bool) -> Any:
    """Every process that must be refused and can be made here, by --pid or by rule, without a question."""
    arena.next_pid(300)
    low = arena.victim()
    arena.next_pid(3000)
    cases: dict[str, int] = {"low_pid": low, "root": 1, "whitelist": arena.victim(name="systemd"),
                             "rogue_hunter": arena.victim(name="rh-pipe")}
    if arena.root:
        other = os.fork()
        if other == 0:
            os.setresuid(1001, 1001, 1001)
            signal.pause()
        setuid = os.fork()
        if setuid == 0:
            os.setresuid(1000, 0, 0)
            signal.pause()
        arena.children |= {other, setuid}
        time.sleep(0.05)
        cases |= {"not_my_uid": other, "root_saved": setuid}
    threaded = arena.fork(_threads)
    while len(os.listdir(f"/proc/{threaded}/task")) < 2:
        time.sleep(0.01)
    tid = next(int(t) for t in os.listdir(f"/proc/{threaded}/task") if int(t) != threaded)
    cases["thread"] = tid
    bystander = arena.victim(name="bystander")

    def work() -> Any:
        ours = {**cases, "self": os.getpid(), "ancestor": os.getppid()}
        parent = os.getpid()
        leader = os.fork()
        if leader == 0:
            _read_forever()
        ours["session_leader"] = parent  # self, too: the reaper leads its own session
        now = time.time()
        found = {}
        for name, pid in ours.items():
            match = manual(LinuxMachine(), pid, now)
            if by_rule:
                match |= {"rule": "quick", "age_s": 60.0}
            found[name] = brief(reap_batch([match], setup(arena)))[0]
        os.kill(leader, signal.SIGKILL)
        os.waitpid(leader, 0)
        return found

    found = arena.as_user(work)
    return {"found": found, "alive": {n: pid == 1 or n == "thread" or arena.alive(pid) for n, pid in cases.items()},
            "threaded": arena.alive(threaded), "bystander": arena.alive(bystander)}


def _threads() -> None:
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    while True:
        signal.pause()


def _read_forever() -> None:
    while True:
        signal.pause()


def reuse(arena: Arena, rounds: int, between: str) -> Any:
    """The pid changes hands between match and SIGTERM, or between SIGTERM and SIGKILL; the replacement has the name
    and the user of the victim."""
    counts: dict[str, int] = {}
    harmed = same_pid = 0
    for begin in range(0, rounds, 50):
        pids = [arena.victim("obey", pid=3000 + i) for i in range(min(50, rounds - begin))]
        bystander = arena.victim("obey", name="bystander", pid=9000)
        time.sleep(0.05)  # older than one tick of the clock that start times count in
        actions, replaced = _reused(arena, pids, between)
        for action in actions:
            key = f"{action['outcome']}:{'+'.join(action.get('signals', []))}"
            counts[key] = counts.get(key, 0) + 1
        for pid, new in replaced.items():
            same_pid += new == pid
            harmed += not arena.alive(new)
            arena.end(new)
        harmed += not arena.alive(bystander)
        for pid in (bystander, *pids):
            arena.end(pid)
    return {"counts": counts, "harmed": harmed, "same_pid": same_pid}


def _reused(arena: Arena, pids: list[int], between: str) -> tuple[list[Record], dict[int, int]]:
    """The actions on `pids`, each of which changes hands on the way, and who has them now."""
    replaced: dict[int, int] = {}

    def replace(pid: int) -> None:
        if pid not in replaced:
            arena.end(pid)
            replaced[pid] = arena.victim("obey", pid=pid)

    def work() -> list[Record]:
        machine = Hooked()
        machine.lie = between == "kill-lie"
        if between == "term":
            machine.before_open = lambda pid: arena.call("replace", pid)
        else:
            machine.after_send = lambda pid, number: arena.call("replace", pid)
        matches = [judged(pid, "hasty") for pid in pids]
        # One at a time: the kernel hands out a pid once, and each round wants its own.
        return [a for m in matches for a in reap_batch([m], setup(arena, machine=machine, kill_wait_s=0.01))]

    return arena.as_user(work, on={"replace": replace}), replaced


def interrupted(arena: Arena) -> Any:
    """SIGINT in the wait after SIGTERM."""
    victim, bystander = arena.victim("ignore"), arena.victim("ignore", name="bystander")

    def work() -> list[Record]:
        stop = Stop()
        timer = threading.Timer(0.3, lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT))
        with Interrupts().handled(stop.set):
            timer.start()
            return reap_batch([judged(victim)], setup(arena, stop=stop))

    with wall() as took:
        actions = arena.as_user(work)
    last = arena.as_user(lambda: setup(arena).audit.recent(100)[-1])
    return {"actions": brief(actions), "took": took[0], "victim": arena.alive(victim), "exit": exit_code(actions),
            "bystander": arena.alive(bystander), "audit": last["outcome"]}


def both(arena: Arena) -> Any:
    """Two reapers at once on the same victim."""
    victim, bystander = arena.victim("ignore"), arena.victim("ignore", name="bystander")
    out: dict[str, Any] = {}
    match = arena.as_user(lambda: judged(victim))

    def reaper(name: str) -> None:
        def work() -> None:
            actions = reap_batch([match], setup(arena, rules=BOTH))
            (arena.dir / name).write_text(repr(brief(actions)))

        out[name] = arena.fork(work, "reaper")

    for name in ("a", "b"):
        (arena.dir / name).write_text("")
        os.chown(arena.dir / name, arena.uid, -1)
        reaper(name)
    for pid in out.values():
        os.waitpid(pid, 0)
        arena.children.discard(pid)
    entries = arena.as_user(lambda: setup(arena).audit.recent(100))
    return {"actions": [eval((arena.dir / n).read_text())[0] for n in out],
            "signals": [e["signal"] for e in entries if e["kind"] in ("intent", "escalate")],
            "verdict": arena.as_user(lambda: list(setup(arena).audit.verify())), "victim": arena.alive(victim),
            "bystander": arena.alive(bystander)}


def no_audit(arena: Arena, how: str) -> Any:
    """Nothing is done that cannot be recorded."""
    victim = arena.victim()
    path = arena.dir / "state" / "audit.log"
    more: dict[str, Any] = {}

    def work() -> list[Record]:
        chosen = setup(arena, **more)
        if how == "directory":
            path.mkdir(parents=True)
        elif how == "link":
            path.parent.mkdir(mode=0o700)
            path.symlink_to("/dev/null")
        elif how == "damaged":
            path.parent.mkdir(mode=0o700)
            path.write_text("what is this\n")
        elif how == "full":
            chosen.audit.check()
            import resource

            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        elif how == "closed":
            path.parent.mkdir(mode=0o700)
            os.chmod(path.parent, 0o500)
        return reap_batch([judged(victim)], chosen)

    actions = arena.as_user(work)
    return {"actions": brief(actions), "victim": arena.alive(victim), "exit": exit_code(actions)}


def changed(arena: Arena, how: str) -> Any:
    """What a process turned into between the match and the signal."""
    ready_r, ready_w = os.pipe()
    go_r, go_w = os.pipe()

    def morph() -> None:
        os.read(go_r, 1)
        if how == "calm":
            os.write(ready_w, b".")
        else:
            ctypes.CDLL(None).prctl(15, b"systemd" if how == "whitelisted" else b"harmless", 0, 0, 0)
            os.write(ready_w, b".")
        while True:
            signal.pause()

    victim = arena.fork(morph)
    match = arena.as_user(lambda: judged(victim))
    if how == "calm":
        del match["age_s"]
        match |= {"ts": match["ts"] - 2, "start_time": match["ts"] - 60}
    if how == "ended":
        arena.end(victim)
    elif how == "zombie":
        os.kill(victim, signal.SIGKILL)
        os.waitid(os.P_PID, victim, os.WEXITED | os.WNOWAIT)
    else:
        os.write(go_w, b".")
        os.read(ready_r, 1)
    actions = arena.as_user(lambda: reap_batch([match], setup(arena)))
    return {"actions": brief(actions), "victim": arena.alive(victim) if how != "zombie" else None,
            "exit": exit_code(actions)}


def traced(arena: Arena, stopped: bool) -> Any:
    """A process that a debugger holds, running or stopped at a breakpoint; a bystander that another one holds."""
    victim, bystander = arena.victim("loop" if not stopped else "obey"), arena.victim(name="bystander")
    ready_r, ready_w = os.pipe()

    def trace() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        for pid in (victim, bystander):
            if libc.ptrace(0x4206, pid, None, None):     # PTRACE_SEIZE
                raise OSError(ctypes.get_errno(), "ptrace")
            if stopped:
                libc.ptrace(0x4207, pid, None, None)     # PTRACE_INTERRUPT
                os.waitpid(pid, 0x40000000)              # __WALL
        os.write(ready_w, b".")
        while True:
            pid, status = os.waitpid(-1, 0x40000000)
            if os.WIFSTOPPED(status):                    # as a debugger does with signals: hand them on
                libc.ptrace(7, pid, None, ctypes.c_void_p(os.WSTOPSIG(status)))     # PTRACE_CONT

    tracer = arena.fork(trace, "debugger")
    os.read(ready_r, 1)
    try:
        actions = arena.as_user(lambda: reap_batch([judged(victim, "quick")], setup(arena)))
    finally:
        arena.end(tracer)       # the kernel reports the end of a process to its debugger first
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and os.waitid(os.P_PID, victim, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None \
            and actions[0]["outcome"] in ("terminated", "killed"):
        time.sleep(0.01)
    return {"actions": brief(actions), "victim": arena.alive(victim), "bystander": arena.alive(bystander)}


def elsewhere(arena: Arena, kind: str) -> Any:
    """A process of this user in namespaces of its own, as programs in a sandbox and in a container are."""
    flags = {"user": CLONE_NEWUSER, "mount": CLONE_NEWUSER | CLONE_NEWNS, "container":
             CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWIPC | CLONE_NEWUTS}[kind]
    ready_r, ready_w = os.pipe()

    def apart() -> None:
        if ctypes.CDLL(None, use_errno=True).unshare(flags):
            os.write(ready_w, b"-")
            return
        os.write(ready_w, b".")
        while True:
            signal.pause()

    victim, bystander = arena.fork(apart), arena.victim(name="bystander")
    if os.read(ready_r, 1) != b".":
        sys.exit(f"NOT TESTED: no {kind} namespace for an ordinary user here")
    actions = arena.as_user(lambda: reap_batch([judged(victim)], setup(arena)))
    return {"actions": brief(actions), "victim": arena.alive(victim), "bystander": arena.alive(bystander)}


def other_user(arena: Arena, saved: bool) -> Any:
    """A process that was this user's when it was matched and is another user's when it is to be ended."""
    go_r, go_w = os.pipe()
    ready_r, ready_w = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        os.setresuid(USER, USER, 0)      # a program that may become root again
        ctypes.CDLL(None).prctl(15, b"victim", 0, 0, 0)
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
        os.write(ready_w, b".")
        os.read(go_r, 1)
        os.setresuid(*((USER, 0, 0) if saved else (0, 0, 0)))
        os.write(ready_w, b".")
        while True:
            signal.pause()
    arena.children.add(child)
    os.read(ready_r, 1)
    match = judged(child)
    os.write(go_w, b".")
    os.read(ready_r, 1)
    actions = arena.as_user(lambda: reap_batch([match], setup(arena)))
    return {"actions": brief(actions), "victim": arena.alive(child)}


def frozen(arena: Arena, folder: str) -> Any:
    """A process in a frozen control group (version 1) takes no signal at all, not even SIGKILL."""
    victim, bystander = arena.victim(), arena.victim(name="bystander")
    (Path(folder) / "cgroup.procs").write_text(str(victim))
    (Path(folder) / "freezer.state").write_text("FROZEN")
    try:
        with wall() as took:
            actions = arena.as_user(lambda: reap_batch([judged(victim, "quick")], setup(arena)))
        why = arena.as_user(lambda: disarmed(setup(arena).state_dir))
    finally:
        (Path(folder) / "freezer.state").write_text("THAWED")
        arena.end(victim)
    return {"actions": brief(actions), "took": took[0], "bystander": arena.alive(bystander), "disarmed": why,
            "exit": exit_code(actions)}


INCIDENT_RULES = """
[[rules]]
name = "infinite_loop"
priority = "critical"
conditions = { cpu_percent_min = 4, duration_seconds = 3, exclude_patterns = ["^chrome$", "^rustc$", "^cargo build"] }
[[rules]]
name = "zombie_test_binary"
priority = "critical"
conditions = { age_seconds = 3, command_patterns = ["^/tmp/test_", "^/tmp/.*_test$"] }
[[rules]]
name = "hung_test"
priority = "high"
conditions = { age_seconds = 3, cpu_percent_max = 5, command_patterns = ["cargo-nextest", ".*_test.*", "test_.*"] }
[[rules]]
name = "orphaned_monitor"
priority = "low"
conditions = { age_seconds = 3, cpu_percent_max = 1, orphan = true, command_patterns = ["^tail -f", "^watch "] }
"""
BUSY = "while :; do n=0; while [ $n -lt 30000 ]; do n=$((n+1)); done; sleep 0.03; done"
"""A shell that burns about half of a core: more than enough for the rule."""

INCIDENT = parse(INCIDENT_RULES.encode())


def _pause(seconds: float) -> bool:
    time.sleep(max(0.0, seconds))
    return True


def _exec(*argv: str, program: str | None = None) -> Callable[[], None]:
    return lambda: os.execv(program or argv[0], list(argv))


def _child(*argv: str, stay: bool) -> Callable[[], None]:
    """A grandchild whose parent stays, or is gone."""
    def work() -> None:
        child = os.fork()
        if child == 0:
            os.execv(argv[0], list(argv))
        if stay:
            os.waitpid(child, 0)

    return work


def incident(arena: Arena) -> Any:
    """The rogues of that day and the people's own processes, found by the sampler, judged by the rules, ended."""
    with scene(arena) as (rogue, people):
        return _incident(arena, rogue, people)


@contextlib.contextmanager
def scene(arena: Arena) -> Iterator[tuple[dict[str, int], dict[str, int]]]:
    """The rogues of that day, and the people's own processes, by name."""
    os.chdir(arena.dir)
    arena.dir.chmod(0o755)
    Path("notes.log").write_text("x")
    for name, script in (("build", BUSY), ("page", BUSY), ("my_test.py", "read x")):
        Path(name).write_text(script)
    binary = Path(f"/tmp/test_rh_{arena.dir.name[-8:]}")
    for program, copies in (("/bin/sleep", (binary, Path("cargo-nextest"))),
                            ("/bin/sh", (Path("vim"), Path("cargo"), Path("chrome")))):
        for copy in copies:
            shutil.copy(program, copy)
            copy.chmod(0o755)
    os.mkfifo("input")
    os.chmod("input", 0o666)
    keep = os.open("input", os.O_RDWR)
    try:
        yield _people_and_rogues(arena, str(binary))
    finally:
        os.close(keep)
        binary.unlink()


def _editor() -> None:
    os.dup2(os.open("input", os.O_RDONLY), 0)
    os.execv("./vim", ["vim", "my_test.py"])


def _people_and_rogues(arena: Arena, binary: str) -> tuple[dict[str, int], dict[str, int]]:
    rogue = {
        "loop": arena.fork(_exec("/bin/sh", "-c", BUSY), "sh"),
        "hung": arena.fork(_exec("cargo-nextest", "600", program="./cargo-nextest"), "x"),
        "binary": arena.fork(_exec(binary, "600"), "x"),
    }
    people = {
        "editor": arena.fork(_editor, "x"),
        "build": arena.fork(_exec("cargo", "build", "--release", program="./cargo"), "x"),
        "browser": arena.fork(_exec("chrome", "page", "--type=renderer", program="./chrome"), "x"),
        "shell": arena.fork(_child("/usr/bin/tail", "-f", "notes.log", stay=True), "shell"),
    }
    # However busy the machine is, the loop gets its core; the people's own loops take what is left.
    for name, nice in ((rogue["loop"], -19 if arena.root else 0), (people["build"], 19), (people["browser"], 19)):
        os.setpriority(os.PRIO_PROCESS, name, nice)
    arena.fork(_child("/usr/bin/tail", "-f", "notes.log", stay=False), "x")
    rogue["tail"], people["pager"] = _tails()
    return rogue, people


def _incident(arena: Arena, rogue: dict[str, int], people: dict[str, int]) -> Any:
    names = {pid: name for name, pid in {**rogue, **people}.items()}

    def work() -> Any:
        host = LinuxHost()
        matches: dict[Any, Record] = {}
        for tick in chain(sample(host, beats(Rate(4.0), _pause, count=20)), Matcher(INCIDENT, lifetime=False)):
            for record in tick.records:
                matches.setdefault((record["pid"], record["rule"]), record)
        host.close()
        judged = list(matches.values())
        return (reap_batch(judged, setup(arena, INCIDENT, dry_run=True)), reap_batch(judged, setup(arena, INCIDENT)))

    dry, real = arena.as_user(work)

    def told(actions: list[Record]) -> dict[str, list[str]]:
        return {names.get(a["pid"], str(a.get("cmdline"))): [a["rule"], a["outcome"]] for a in actions}

    return {"dry": told(dry), "real": told(real), "alive": {name: lives(pid) for pid, name in names.items()},
            "rogue": sorted(rogue), "people": sorted(people)}


def _tails() -> tuple[int, int]:
    """The tail whose parent died, and the one whose parent waits for it."""
    while True:
        found = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and (folder / "comm").read_text() == "tail\n":
                found[int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == 1] = int(folder.name)
        if len(found) == 2:
            return found[True], found[False]
        time.sleep(0.05)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def system_calls(arena: Arena, dry_run: bool) -> Any:
    """For strace: one run on one victim; the pid of the victim is given back."""
    victim = arena.victim()
    actions = arena.as_user(lambda: reap_batch([judged(victim)], setup(arena, dry_run=dry_run)))
    alive = arena.alive(victim)
    arena.children.discard(victim)  # dies with the namespace: no signal from here may be in the trace
    return {"actions": brief(actions), "pid": victim, "alive": alive}
