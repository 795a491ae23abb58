"""The agent on a stand-in for launchctl that behaves as the real one does."""

from __future__ import annotations

import plistlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from rogue_hunter.service.launchd import LABEL, Launchd
from rogue_hunter.service.manager import Done, Program, ServiceError, State
from rogue_hunter.service.tailspin import Tailspin, enabled_by
from tests.tools.plist import problems


class Launchctl:
    """A stand-in that behaves as the real one does: bootout returns before the job has ended, and a bootstrap until
    then fails with error 5, as one of a loaded or disabled job does."""

    def __init__(self, drain: int = 3, late: int = 0, gui: bool = True) -> None:
        self.loaded: Path | None = None
        self.draining = 0
        self.running = False
        self.disabled = False
        self.calls: list[str] = []
        self.drain, self.late, self.gui = drain, late, gui
        self.last = "\tlast exit code = 0\n"

    def __call__(self, argv: Sequence[str]) -> Done:
        assert argv[0] == "/bin/launchctl"
        verb, *rest = argv[1:]
        self.calls.append(verb)
        target = f"gui/501/{LABEL}"
        if self.draining:
            self.draining -= 1
            if not self.draining:
                self.loaded, self.running = None, False
        if verb == "enable":
            self.disabled = False
            return Done(0, "", "")
        if verb == "bootstrap":
            assert rest[0] == "gui/501"
            if self.loaded or self.disabled or not self.gui or self.late:
                self.late = max(0, self.late - 1)
                return Done(5, "", "Bootstrap failed: 5: Input/output error\n"
                                   "Try re-running the command as root for richer errors.\n")
            self.loaded, self.running = Path(rest[1]), True
            return Done(0, "", "")
        assert target in rest
        if self.loaded is None:
            code = {"print": 113, "bootout": 3, "kickstart": 113, "kill": 113}[verb]
            return Done(code, "", f"Could not find service \"{LABEL}\" in domain for user gui: 501\n")
        if verb == "print":
            return Done(0, f"{target} = {{\n\tactive count = 1\n\tpath = {self.loaded}\n"
                           f"\tstate = {'running' if self.running else 'not running'}\n\n\tprogram = /x\n"
                           "\tendpoints = {\n\t\tpid = 99\n\t}\n"
                           + ("\tpid = 4242\n" if self.running else self.last) + "}\n", "")
        if verb == "bootout":
            self.draining = self.drain
        elif verb == "kill":
            self.running = False
        else:
            self.running = True
        return Done(0, "", "")


def agent(tmp_path: Path, fake: Launchctl, argv: Sequence[str] = ("/opt/bin/rh-pipe", "--quiet")) -> Launchd:
    """The service on a stand-in, with a sleep that does not wait."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    return Launchd(Program(tuple(argv)), tmp_path / "state" / "rh-pipe.err", fake, 501, tmp_path, sleep, lambda: now[0])


def test_the_agent_is_installed_and_brought_up_to_date(tmp_path: Path) -> None:
    """A changed plist is unloaded, waited for, and loaded again; the directory of its errors is there."""
    fake = Launchctl()
    service = agent(tmp_path, fake)
    assert service.state() == State(False, "stopped", None, False, says="not loaded")
    assert service.install() == [f"wrote {service.file}", f"loaded {LABEL} into gui/501"]
    assert service.file == tmp_path / "Library" / "LaunchAgents" / f"{LABEL}.plist" == fake.loaded
    assert problems(service.file.read_bytes()) == [] and (tmp_path / "state").is_dir()
    assert service.file.stat().st_mode & 0o777 == 0o644
    assert service.state() == State(True, "running", True, True, 4242, None, "running")
    fake.calls.clear()
    assert service.install() == [f"{LABEL} is installed and loaded already"]
    assert not {"bootout", "bootstrap", "kickstart"} & set(fake.calls)
    other = agent(tmp_path, fake, ["/opt/bin/rh-pipe", "--quiet", "--hz", "2"])
    assert other.state().current is False
    assert other.install() == [f"wrote {service.file}", f"loaded {LABEL} into gui/501"]
    assert fake.calls.count("bootout") == 1 and fake.running
    assert other.arguments() == ["--hz", "2"]
    assert plistlib.loads(service.file.read_bytes())["ProgramArguments"][-2:] == ["--hz", "2"]


def test_error_5_passes_or_is_explained(tmp_path: Path) -> None:
    """One retry; a disabled label is enabled first; without a session the error has the reason."""
    fake = Launchctl(late=1)
    fake.disabled = True
    agent(tmp_path, fake).install()
    assert fake.running and fake.calls.count("bootstrap") == 2
    with pytest.raises(ServiceError, match=r"error 5|Input/output error \(no graphical session"):
        agent(tmp_path / "b", Launchctl(gui=False)).install()


def test_a_job_that_never_ends(tmp_path: Path) -> None:
    """It is waited for, up to a limit."""
    fake = Launchctl(drain=10**6)
    service = agent(tmp_path, fake)
    service.install()
    with pytest.raises(ServiceError, match="does not exit"):
        service.uninstall()
    assert service.file.exists()


def test_the_agent_is_stopped_started_and_removed(tmp_path: Path) -> None:
    """stop is a clean end, after which launchd lets it be; uninstall waits until it is gone."""
    fake = Launchctl()
    service = agent(tmp_path, fake)
    with pytest.raises(ServiceError, match="not installed"):
        service.stop()
    service.install()
    assert service.stop() == [f"stopped {LABEL}"] and not fake.running and fake.loaded
    assert service.state().state == "stopped" and service.state().exit_code == 0
    service.start()
    service.restart()
    assert fake.running
    assert service.uninstall() == [f"unloaded {LABEL}", f"removed {service.file}"]
    assert fake.loaded is None and not service.file.exists()
    assert service.uninstall() == [f"{LABEL} is not installed"]
    service.file.write_text("somebody's")
    with pytest.raises(ServiceError, match="is not removed"):
        service.uninstall()


def test_a_relative_program_is_refused(tmp_path: Path) -> None:
    """launchd has no PATH."""
    with pytest.raises(ServiceError, match="relative"):
        agent(tmp_path, Launchctl(), ["rh-pipe", "--quiet"]).text()


@pytest.mark.parametrize(("last", "word", "state"), [
    ("\truns = 12\n\tlast terminating signal = Killed: 9\n\tlast exit reason = JETSAM_REASON_MEMORY_HIGHWATER\n",
     "not running", State(True, "failed", True, True, None, None, "not running", "Killed: 9",
                          "JETSAM_REASON_MEMORY_HIGHWATER", 12)),
    ("\truns = 3\n\tlast exit code = 78: EX_CONFIG\n", "not running",
     State(True, "failed", True, True, None, 78, "not running", None, None, 3)),
    ("\truns = 40\n\tlast exit code = 0\n", "spawn scheduled",
     State(True, "failed", True, True, None, 0, "spawn scheduled: launchd waits before it starts it again", None, None,
           40)),
    ("\tlast exit code = (never exited)\n", "not running", State(True, "stopped", True, True, None, None, "not running")),
])
def test_a_killed_job_and_one_in_a_crash_loop(tmp_path: Path, last: str, word: str, state: State) -> None:
    """The line of a signal takes the place of the exit code; a job that launchd holds back has failed."""
    fake = Launchctl()
    service = agent(tmp_path, fake)
    service.install()
    fake.running, fake.last = False, last
    ask = fake.__call__

    def run(argv: Sequence[str]) -> Done:
        done = ask(argv)
        return Done(done.code, done.out.replace("state = not running", f"state = {word}"), done.error)

    assert Launchd(Program(("/opt/bin/rh-pipe", "--quiet")), tmp_path / "state" / "rh-pipe.err", run, 501,
                   tmp_path).state() == state


@pytest.mark.parametrize("code", [5, 17, 37])
def test_codes_of_a_loaded_job(tmp_path: Path, code: int) -> None:
    """bootstrap of a job that is loaded already fails with one of three codes: no error, and no second load."""
    fake = Launchctl()

    def run(argv: Sequence[str]) -> Done:
        done = fake(argv)
        return Done(code, "", "already loaded") if argv[1] == "bootstrap" else done

    Launchd(Program(("/opt/bin/rh-pipe", "--quiet")), tmp_path / "state" / "e", run, 501, tmp_path).install()
    assert fake.running and fake.calls.count("bootstrap") == 1


@pytest.mark.parametrize(("place", "warned"), [("Documents/x", True), ("Desktop", True), ("src", False)])
def test_a_protected_folder_is_warned_of(tmp_path: Path, place: str, warned: bool) -> None:
    """launchd may not read what lies in these folders of the user."""
    program = str(tmp_path / place / "bin" / "rh-pipe")
    said = agent(tmp_path, Launchctl(), [program, "--quiet"]).install()
    assert any("TCC" in line and place.split("/", maxsplit=1)[0] in line for line in said) == warned


def test_tailspin(tmp_path: Path) -> None:
    """It is enabled once, and disabled by uninstall only if it was disabled before; what it says of itself is read."""
    on = [False]
    calls: list[list[str]] = []

    def run(argv: Sequence[str]) -> Done:
        calls.append(list(argv))
        if argv[-1] in ("enable", "disable"):
            on[0] = argv[-1] == "enable"
        return Done(0, "" if on[0] is None else "tailspin is enabled\n" if on[0] else
                    "tailspin has been disabled (default behavior)\n", "")

    def tailspin() -> Tailspin:
        return Tailspin(tmp_path / "tailspin.before", ["/usr/bin/sudo"], run)

    assert tailspin().enabled() is False and tailspin().uninstall() == []
    assert tailspin().install()[0].startswith("enabled tailspin") and tailspin().enabled() is True
    assert ["/usr/bin/sudo", "/usr/bin/tailspin", "enable"] in calls
    assert tailspin().install() == ["tailspin is enabled already"]
    assert tailspin().uninstall() == ["disabled tailspin, as it was before"] and on == [False]
    on[0] = True
    tailspin().install()
    assert tailspin().uninstall() == [] and on == [True]
    assert enabled_by("usage: tailspin ...") is None
