"""The agent on a stand-in for launchctl that behaves as the real one does."""

from __future__ import annotations

import plistlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from rogue_hunter.service.launchd import LABEL, Launchd, problems
from rogue_hunter.service.manager import Done, Program, ServiceError, State


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
                           + ("\tpid = 4242\n" if self.running else "\tlast exit code = 0\n") + "}\n", "")
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
