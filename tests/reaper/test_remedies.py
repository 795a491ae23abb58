"""Renice, stop, freeze: under the guards and the audit of a kill; what is stopped continues by itself."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rogue_hunter.reaper import remedies
from rogue_hunter.reaper.candidate import manual
from rogue_hunter.reaper.confirm import numbers, question
from rogue_hunter.reaper.notify import sentence
from rogue_hunter.reaper.process import Gone, Pidfd, Veto, live
from rogue_hunter.reaper.run import reap_batch
from rogue_hunter.rules.load import parse
from rogue_hunter.rules.matcher import named
from rogue_hunter.rules.model import Action
from rogue_hunter.stream.tick import Tick
from tests.reaper.fakes import NOW, FakeMachine, FakeProcess, match_of, setup
from tests.tools import processes as waiting
from tests.tools.ticks import key, row

pytestmark = pytest.mark.waits

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs pidfds")


def rules(action: str) -> Any:
    return parse(f'[[rules]]\nname = "r"\nconditions = {{ cpu_percent_min = 50, command_patterns = ["^victim"] }}\n'
                 f"action = {{ {action} }}\n".encode())


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The processes that would end a stop are written down, not started."""
    made: list[tuple[Any, ...]] = []
    usual = remedies.apply
    monkeypatch.setattr("rogue_hunter.reaper.run.apply", lambda *words: usual(*words, keep=lambda *more: made.append(more)))
    return made


def run(tmp_path: Path, action: str, **process: Any) -> tuple[Any, FakeMachine, list[Any]]:
    machine = FakeMachine(FakeProcess(2000, **process))
    chosen = setup(tmp_path, machine, rules(action))
    (done,) = reap_batch([match_of(machine.processes[2000])], chosen)
    return done, machine, list(chosen.audit.recent(1e10))


def test_a_stop_is_audited_and_what_ends_it_is_started_first(tmp_path: Path, kept: list[tuple[Any, ...]]) -> None:
    action, machine, audit = run(tmp_path, 'type = "stop", seconds = 7')
    assert machine.sent == [(2000, signal.SIGSTOP)] and action["outcome"] == "stopped"
    assert kept == [("stop", str(machine.processes[2000].end_r), 7.0, (machine.processes[2000].end_r,))]
    assert [(e["kind"], e["action"], e.get("signal")) for e in audit] == [("intent", "stop", "SIGSTOP"), ("outcome", "stop", "SIGSTOP")]
    assert sentence(action) == "victim [2000] stopped: it continues in 7 s"


def test_what_a_person_stopped_is_not_continued(tmp_path: Path, kept: list[tuple[Any, ...]]) -> None:
    """The end of a stop would continue what was stopped before it, by Ctrl-Z or by a debugger."""
    action, machine, _ = run(tmp_path, 'type = "stop"', state="stopped")
    assert (action["outcome"], machine.sent, kept) == ("spared", [], [])


def test_without_what_ends_it_nothing_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such")
    action, machine, audit = run(tmp_path, 'type = "stop"')
    assert action["outcome"] == "refused" and machine.sent == [] and "cannot be started" in action["detail"]
    assert [e["kind"] for e in audit] == ["outcome"]


@pytest.mark.parametrize("remedy", ["renice", "stop", "freeze"])
@pytest.mark.parametrize(("process", "code"), [
    ({"uids": (1001,) * 4}, "not_my_uid"), ({"uids": (0,) * 4}, "root"), ({"exe": "/usr/bin/nvim"}, "whitelist"),
    ({"command": "rh-pipe"}, "rogue_hunter"), ({"leader": 1999}, "thread")])
def test_the_guards_hold_for_every_remedy(tmp_path: Path, kept: list[tuple[Any, ...]], remedy: str, process: dict[str, Any],
                                          code: str) -> None:
    action, machine, _ = run(tmp_path, f'type = "{remedy}"', **process)
    assert action["outcome"] == "refused" and code in action["refusals"] and machine.sent == [] and kept == []


def test_what_changed_since_the_question_is_not_touched(tmp_path: Path, kept: list[tuple[Any, ...]]) -> None:
    """The process is read again right before, as before a signal."""
    process = FakeProcess(2000)
    machine = FakeMachine(process)

    def confirm(_: Any) -> bool:
        process.uids = (1000, 0, 0, 0)
        return True

    (action,) = reap_batch([match_of(process)], setup(tmp_path, machine, rules('type = "stop"'), confirm=confirm))
    assert action["outcome"] == "refused" and machine.sent == []


def test_dry_run_and_budget(tmp_path: Path, kept: list[tuple[Any, ...]]) -> None:
    machine = FakeMachine(*(FakeProcess(pid) for pid in range(2000, 2007)))
    matches = [match_of(p) for p in machine.processes.values()]
    dry = reap_batch(matches, setup(tmp_path, machine, rules('type = "stop"'), dry_run=True))
    assert sentence(dry[0]).startswith("victim [2000] would be stopped; nothing was done") and machine.sent == []
    done = reap_batch(matches, setup(tmp_path, machine, rules('type = "stop"')))
    assert [a["outcome"] for a in done] == ["stopped"] * 5 + ["refused"] * 2 and done[-1]["refusals"] == ["over_budget"]


def test_a_process_that_a_person_names(tmp_path: Path, kept: list[tuple[Any, ...]]) -> None:
    machine = FakeMachine(FakeProcess(2000))
    asked: list[str] = []
    chosen = setup(tmp_path, machine, confirm=lambda c: bool(asked.append(question(c)) or True))
    (action,) = reap_batch([manual(machine, 2000, NOW, "stop")], chosen)  # type: ignore[arg-type]
    assert asked[0].startswith("About to stop for a time 1 process:") and action["outcome"] == "stopped"


# -- real processes ----------------------------------------------------------------------------------------------------


@pytest.fixture
def child(spawn: Callable[..., subprocess.Popen[bytes]]) -> Iterator[subprocess.Popen[bytes]]:
    yield spawn(["sleep", "60"])


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def wait_for(pid: int, wanted: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while state(pid) != wanted:
        assert time.monotonic() < deadline, state(pid)
        time.sleep(0.02)


@LINUX
def test_a_stopped_process_continues_by_itself(child: subprocess.Popen[bytes]) -> None:
    """The process that does it is one of its own, in a session of its own."""
    handle = Pidfd(child.pid)
    told: list[int] = []
    process = live((child.pid, 1), {"pid": child.pid}, (0,), leader=child.pid)
    outcome = remedies.apply(Action(type="stop", seconds=0.6), process, handle, told.append, lambda pid: None)
    assert outcome == ("stopped", "it continues in 0.6 s") and told == [signal.SIGSTOP]
    wait_for(child.pid, "T")
    wait_for(child.pid, "S")
    handle.close()


@LINUX
def test_it_continues_although_the_one_that_stopped_it_was_killed(child: subprocess.Popen[bytes],
                                                                  spawn: Callable[..., subprocess.Popen[bytes]]) -> None:
    code = ("import sys, time; from rogue_hunter.reaper import remedies; from rogue_hunter.reaper.process import Pidfd; "
            "from rogue_hunter.rules.model import Action; from rogue_hunter.reaper.process import live; p = int(sys.argv[1]); "
            "remedies.apply(Action(type='stop', seconds=1.5), live((p, 1), {'pid': p}, (0,), leader=p), Pidfd(p), "
            "lambda n: None, lambda pid: None); print('done', flush=True); time.sleep(60)")
    stopper = spawn([sys.executable, "-c", code, str(child.pid)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert stopper.stdout is not None and stopper.stdout.readline() == b"done\n"
    stopper.kill()
    wait_for(child.pid, "T")
    wait_for(child.pid, "S")


@LINUX
def test_renice_changes_every_thread_and_never_raises_the_priority(spawn: Callable[..., subprocess.Popen[bytes]]) -> None:
    code = "import threading, time; [threading.Thread(target=time.sleep, args=(60,)).start() for _ in range(3)]; print('x', flush=True)"
    child = spawn([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"x\n"
    handle = Pidfd(child.pid)
    process = live((child.pid, 1), {"pid": child.pid}, (0,), leader=child.pid)
    before = os.getpriority(os.PRIO_PROCESS, child.pid)
    assert remedies.apply(Action(type="renice", nice=15), process, handle, lambda n: None, lambda pid: None) == (
        "reniced", f"nice {before} to 15")
    tids = [int(name) for name in os.listdir(f"/proc/{child.pid}/task")]
    assert len(tids) == 4 and {os.getpriority(os.PRIO_PROCESS, tid) for tid in tids} == {15}
    assert remedies.apply(Action(type="renice", nice=10), process, handle, lambda n: None, lambda pid: None)[0] == "spared"
    handle.close()


# -- control groups ----------------------------------------------------------------------------------------------------


@pytest.fixture
def group(tmp_path: Path) -> Path:
    """A tree like that of cgroup v2, with two members in two groups."""
    place = tmp_path / "user.slice" / "app.scope"
    (place / "below").mkdir(parents=True)
    for folder, pid in ((place, 2000), (place / "below", 2001)):
        (folder / "cgroup.procs").write_text(f"{pid}\n")
        (folder / "cgroup.freeze").write_text("0")
    return tmp_path


def freeze(group: Path, protected: Callable[[int], str | None], cgroup: str = "/user.slice/app.scope") -> tuple[str, str]:
    process = live((2000, 1), {"pid": 2000, "cgroup": "/of/version/1"}, (0,), leader=2000)
    kept: list[Any] = []
    done = remedies.apply(Action(type="freeze", seconds=9), process, None, lambda n: None, protected,  # type: ignore[arg-type]
                          keep=lambda *words: kept.append(words), place=lambda pid: (group, cgroup))
    assert kept == [("freeze", str(group / "user.slice/app.scope/cgroup.freeze"), 9.0, ())] * (done[0] == "frozen")
    return done


def test_a_control_group_is_frozen_if_all_of_its_processes_may_be(group: Path) -> None:
    asked: list[int] = []
    assert freeze(group, asked.append)[0] == "frozen"
    assert asked == [2000, 2001] and (group / "user.slice/app.scope/cgroup.freeze").read_text() == "1"


@pytest.mark.parametrize("cgroup", ["/", "", "/../../etc", "/no/such"])
def test_a_group_that_is_not_its_own_is_not_frozen(group: Path, cgroup: str) -> None:
    with pytest.raises(Veto, match="cannot be frozen"):
        freeze(group, lambda pid: None, cgroup)


def test_a_group_with_a_protected_process_is_not_frozen(group: Path) -> None:
    """The scope of a terminal holds the shell, and perhaps rogue-hunter itself."""
    with pytest.raises(Veto, match="process 2001 of its control group must not be frozen: it is a shell"):
        freeze(group, lambda pid: "it is a shell" if pid == 2001 else None)
    assert (group / "user.slice/app.scope/cgroup.freeze").read_text() == "0"


def test_a_group_that_the_process_has_left_is_not_frozen(group: Path) -> None:
    (group / "user.slice/app.scope/cgroup.procs").write_text("2002\n")
    with pytest.raises(Gone):
        freeze(group, lambda pid: None)
    assert (group / "user.slice/app.scope/cgroup.freeze").read_text() == "0"


def unified() -> Path | None:
    """Where cgroup v2 is mounted, if groups can be made there."""
    place = remedies.placed(os.getpid()) if sys.platform == "linux" else None
    return place[0] if place is not None and os.access(place[0], os.W_OK) else None


@LINUX
@pytest.mark.skipif(unified() is None, reason="FREEZE NOT TRIED: no cgroup v2 in which this user may make a group")
def test_a_real_control_group_is_frozen_and_continues(spawn: Callable[..., subprocess.Popen[bytes]]) -> None:
    """In the kernel's own tree, wherever it is mounted: a loop does not run while its group is frozen."""
    place = unified()
    assert place is not None
    made = place / f"rogue-hunter-test-{os.getpid()}"
    made.mkdir()
    loop = spawn(["/bin/sh", "-c", "while :; do :; done"])
    try:
        (made / "cgroup.procs").write_text(str(loop.pid))
        asked: list[int] = []
        kept: list[Any] = []
        process = live((loop.pid, 1), {"pid": loop.pid, "cgroup": "/"}, (0,), leader=loop.pid)
        with contextlib.closing(Pidfd(loop.pid)) as handle:
            done = remedies.apply(Action(type="freeze", seconds=1.0), process, handle, lambda n: None, asked.append,
                                  keep=lambda *words: kept.append(words))
        assert done == ("frozen", f"control group {made.name}; it continues in 1 s") and asked == [loop.pid]

        def frozen() -> bool:
            return "frozen 1" in (made / "cgroup.events").read_text().splitlines()

        def used() -> int:
            return int(Path(f"/proc/{loop.pid}/stat").read_text().rpartition(")")[2].split()[11])

        waiting.wait_for(frozen, 20)
        remedies.keeper(*kept[0])
        waiting.wait_for(lambda: not frozen(), 20)
        before = used()
        waiting.wait_for(lambda: used() > before, 20)
    finally:
        loop.kill()
        loop.wait(10)
        waiting.wait_for(lambda: not (made / "cgroup.procs").read_text(), 20)
        made.rmdir()


@LINUX
def test_the_keeper_thaws_a_group(tmp_path: Path) -> None:
    switch = tmp_path / "cgroup.freeze"
    switch.write_text("1")
    remedies.keeper("freeze", str(switch), 0.2)
    deadline = time.monotonic() + 20
    while switch.read_text() != "0":
        assert time.monotonic() < deadline
        time.sleep(0.02)


# -- choosing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "chosen"), [
    ("1 3-5", [1, 3, 4, 5]), ("2,4", [2, 4]), ("all", [1, 2, 3, 4, 5, 6]), ("ALL", [1, 2, 3, 4, 5, 6]), ("", []),
    ("0 7 99999999999999-999999999999999", []), ("5-3", []), ("x", []), ("1 x", []), ("-1", []), ("3-", []), ("²", [])])
def test_numbers_of_a_list(answer: str, chosen: list[int]) -> None:
    assert numbers(answer, 6) == chosen


def test_those_of_a_name() -> None:
    rows = [row(4001, cmdline="/usr/lib/Firefox -x", cpu_percent=3.0), row(4002, command="firefox", cpu_percent=9.0),
            row(4003, command="firefox", uid=7), row(4004, command="rh-top", cmdline="x firefox", own=True), row(4005)]
    tick = Tick(processes={key(each): each for each in rows})
    assert [each["pid"] for each in named(iter([tick]), "FIREFOX", 1000)] == [4002, 4001]
    assert [each["pid"] for each in named(iter([tick]), "", 1000)] == [4002, 4001, 4005]


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize(("answers", "words"), [(b"1\ny\n", b"root's" if os.geteuid() == 0 else b"terminated by SIGTERM"),
                                                (b"\n", b"Which?"), (b"x\n", b"Which?")])
def test_a_process_is_chosen_from_a_list_and_then_asked_about(
        spawn: Callable[..., subprocess.Popen[bytes]], clean_env: dict[str, str], tmp_path: Path, answers: bytes,
        words: bytes) -> None:
    """rh-reap --command TEXT on a terminal of its own; the guards decide last."""
    child = spawn(["sleep", "86399"])
    time.sleep(2.1)     # a younger one is refused
    pid, master = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [sys.executable, "-P", "-m", "rogue_hunter", "reap", "--command", "86399"],
                  {**clean_env, "HOME": str(tmp_path)})
    os.write(master, answers)
    shown = b""
    with contextlib.suppress(OSError):      # the other end is closed
        while more := os.read(master, 65536):
            shown += more
    os.waitpid(pid, 0)
    os.close(master)
    assert str(child.pid).encode() in shown and b"Which?" in shown and words in shown, shown
    assert (child.poll() is None) is (b"terminated" not in words)


def test_a_group_that_is_frozen_already_is_not_continued(group: Path) -> None:
    switch = group / "user.slice/app.scope/cgroup.freeze"
    switch.write_text("1\n")
    assert freeze(group, lambda pid: None)[0] == "spared"
    assert switch.read_text() == "1\n"


def test_a_group_with_a_process_that_cannot_be_seen_is_not_frozen(group: Path) -> None:
    """To a container, the pid of a process outside of it is 0."""
    (group / "user.slice/app.scope/below/cgroup.procs").write_text("0\n")
    with pytest.raises(Veto, match="process 0 of its control group must not be frozen"):
        freeze(group, lambda pid: None)
