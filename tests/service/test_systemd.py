"""The unit, checked by systemd; a stand-in for systemctl; and a real user manager where this machine can run one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from rogue_hunter.service.manager import Done, Program, ServiceError, State, program
from rogue_hunter.service.systemd import UNIT, Systemd, SystemSystemd, quoted, system_unit, unit, unreadable
from tests.tools.docs import json_schema

ARGV = ("/opt/a b/100%/$x/bin/rh-pipe", "--quiet", "--db", '/d/"quoted"\\ä.db')


def verified(tmp_path: Path, content: bytes) -> subprocess.CompletedProcess[str]:
    """What systemd-analyze finds in a unit, with its manual pages."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed: the unit was not verified")
    (tmp_path / UNIT).write_bytes(content)
    (tmp_path / "run").mkdir(exist_ok=True)
    return subprocess.run(["systemd-analyze", "--user", "verify", str(tmp_path / UNIT)], check=False,
                          capture_output=True, text=True, env={"PATH": os.environ["PATH"], "HOME": str(tmp_path),
                                                               "XDG_RUNTIME_DIR": str(tmp_path / "run")})


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """systemd-analyze prints nothing, neither about a key nor about a manual page that man cannot find."""
    made = Program(("/bin/sh", "--quiet", "a b", "$HOME", "%h"), (("XDG_DATA_HOME", "/a %b"),))
    done = verified(tmp_path, unit(made))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    wrong = verified(tmp_path, unit(Program(("/bin/sh",))).replace(b"WatchdogSec=", b"WatchdogSek="))
    assert "WatchdogSek" in wrong.stdout + wrong.stderr


def test_the_unit_has_its_directives() -> None:
    """A watchdog, a bounded number of starts, a private umask, and nothing that needs a namespace."""
    said = unit(Program(ARGV)).decode()
    for line in ("Type=notify", "WatchdogSec=10", "UMask=0077", "Restart=on-failure", "StartLimitBurst=5",
                 "NoNewPrivileges=yes", "WantedBy=default.target"):
        assert f"\n{line}\n" in said
    keys = set(re.findall(r"(?m)^([A-Za-z]+)=", said))
    assert not keys & {"PrivateTmp", "PrivateUsers", "ProtectSystem", "ProtectHome", "ProtectProc", "PrivateDevices",
                       "ProtectKernelTunables", "ReadOnlyPaths", "PrivateNetwork", "Nice", "CPUQuota"}


@given(st.lists(st.text(st.characters(exclude_categories=("Cs", "Cc"))), min_size=1, max_size=5))
def test_words_survive_the_quoting(words: list[str]) -> None:
    """Taken apart as systemd does: quotes, backslashes, %% and $$."""
    line = " ".join(quoted(word, dollar=True) for word in words)
    found = [re.sub(r"\\(.)", r"\1", a[1:-1]) if a.startswith('"') else a
             for a in re.findall(r'"(?:[^"\\]|\\.)*"|[^ ]+', line)]
    assert [word.replace("%%", "%").replace("$$", "$") for word in found] == words


@pytest.mark.parametrize("word", ["a\nb", "a\x00b", "a\x1bb", "\udc80"])
def test_what_no_unit_can_hold(word: str) -> None:
    """A line feed in a path would be a line of the unit."""
    with pytest.raises(ServiceError):
        unit(Program(("/bin/rh-pipe", "--quiet", word)))


def test_the_program_is_this_installation() -> None:
    """An absolute path that can be run; of the environment only where things are."""
    made = program(["--hz", "2"], {"XDG_DATA_HOME": "/d", "XDG_STATE_HOME": "relative", "SECRET": "x"})
    assert Path(made.argv[0]).is_absolute() and os.access(made.argv[0], os.X_OK)
    assert made.argv[-3:] == ("--quiet", "--hz", "2")
    assert made.environment == (("XDG_DATA_HOME", "/d"),)


class Systemctl:
    """A stand-in for the user manager: it knows one unit, after daemon-reload."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.known: bytes | None = None
        self.active = "inactive"
        self.enabled = False
        self.calls: list[str] = []
        self.fails: dict[str, Done] = {}

    def __call__(self, argv: Sequence[str]) -> Done:
        assert list(argv[:3]) == ["systemctl", "--user", "--no-pager"]
        verb, *rest = argv[3:]
        self.calls.append(verb)
        if verb in self.fails:
            return self.fails[verb]
        if verb == "daemon-reload":
            self.known = self.file.read_bytes() if self.file.exists() else None
        elif verb == "show":
            return Done(0, f"ActiveState={self.active}\nUnitFileState={'enabled' if self.enabled else 'disabled'}\n"
                           f"MainPID={4242 if self.active == 'active' else 0}\nStatusText=score 7\n"
                           "ExecMainStatus=0\nResult=success\n", "")
        elif self.known is None and verb in ("enable", "disable", "start", "stop", "restart"):
            return Done(5, "", f"Failed to {verb} unit: Unit file {UNIT} does not exist.\n")
        elif verb in ("start", "restart"):
            self.active = "active"
        elif verb == "stop":
            self.active = "inactive"
        elif verb == "enable":
            self.enabled = True
        elif verb == "disable":
            self.enabled = False
            self.active = "inactive" if "--now" in rest else self.active
        return Done(0, "", "")


@pytest.fixture
def systemd(tmp_path: Path) -> tuple[Systemd, Systemctl]:
    """The service on a stand-in."""
    fake = Systemctl(tmp_path / "systemd" / "user" / UNIT)
    return Systemd(Program(ARGV), fake, {"XDG_CONFIG_HOME": str(tmp_path)}), fake


def test_install_is_idempotent(systemd: tuple[Systemd, Systemctl]) -> None:
    """Once: written, known, enabled, started. Twice: nothing changes. With another program: written and restarted."""
    service, fake = systemd
    assert service.state() == State(False, "stopped", None, False, None, None, "score 7")
    said = service.install()
    assert said == [f"wrote {service.file}", f"started {UNIT}"]
    assert (fake.known, fake.enabled, fake.active) == (unit(Program(ARGV)), True, "active")
    assert service.file.stat().st_mode & 0o777 == 0o644
    assert [p.name for p in service.file.parent.iterdir()] == [UNIT]
    before = fake.calls.copy()
    assert service.install() == [f"{UNIT} is installed and runs already"]
    assert not {"start", "restart", "stop"} & set(fake.calls[len(before):])
    state = service.state()
    assert state == State(True, "running", True, True, 4242, None, "score 7")
    assert service.arguments() == ["--db", '/d/"quoted"\\ä.db']
    other = Systemd(Program(("/other/rh-pipe", "--quiet")), fake, {"XDG_CONFIG_HOME": str(service.file.parents[2])})
    assert other.state().current is False
    assert other.install() == [f"wrote {service.file}", f"restarted {UNIT}"]


def test_uninstall_leaves_nothing(systemd: tuple[Systemd, Systemctl]) -> None:
    """Twice is once; stop and start want it installed."""
    service, fake = systemd
    with pytest.raises(ServiceError, match="not installed"):
        service.start()
    service.install()
    assert service.stop() == [f"stopped {UNIT}"] and service.state().state == "stopped"
    assert service.restart() == [f"restarted {UNIT}"]
    assert service.uninstall() == [f"stopped {UNIT}", f"removed {service.file}"]
    assert (fake.known, fake.enabled, fake.active) == (None, False, "inactive")
    assert list(service.file.parent.iterdir()) == []
    assert service.uninstall() == [f"{UNIT} is not installed"]


def test_another_unit_of_the_name_is_not_changed(systemd: tuple[Systemd, Systemctl]) -> None:
    """Neither written over nor removed."""
    service, fake = systemd
    service.file.parent.mkdir(parents=True)
    service.file.write_text("[Service]\nExecStart=/bin/true\n")
    for do in (service.install, service.uninstall):
        with pytest.raises(ServiceError) as caught:
            do()
        assert caught.value.code == 1
    assert service.file.read_text() == "[Service]\nExecStart=/bin/true\n"
    assert "disable" not in fake.calls


UNREACHABLE = Done(1, "", "Failed to connect to bus: No medium found")


@pytest.mark.parametrize(("probe", "done"), [
    (Done(127, "", "systemctl: not found"), Done(127, "", "systemctl: not found")), (UNREACHABLE, UNREACHABLE),
    (Done(1, "offline\n", ""), UNREACHABLE)])
def test_no_user_manager(systemd: tuple[Systemd, Systemctl], probe: Done, done: Done) -> None:
    """69, no file is written, and the message says what to do instead."""
    service, fake = systemd
    fake.fails = {**dict.fromkeys(("daemon-reload", "show", "disable"), done), "is-system-running": probe}
    with pytest.raises(ServiceError, match="@reboot rh-pipe --quiet") as caught:
        service.install()
    assert caught.value.code == 69 and not service.file.exists()


def test_uninstall_removes_the_unit_without_a_user_manager(systemd: tuple[Systemd, Systemctl]) -> None:
    """The file and the link that starts it at login; another failure of systemctl still keeps both."""
    service, fake = systemd
    service.install()
    link = service.file.parent / "default.target.wants" / UNIT
    link.parent.mkdir()
    link.symlink_to(service.file)
    fake.fails = {"disable": Done(1, "", "Access denied")}
    with pytest.raises(ServiceError, match="Access denied"):
        service.uninstall()
    assert service.file.exists()
    fake.fails = dict.fromkeys(("is-system-running", "daemon-reload", "show", "disable"), UNREACHABLE)
    assert service.uninstall() == [f"removed {service.file}"]
    assert not service.file.exists() and not link.is_symlink()
    assert service.uninstall() == [f"{UNIT} is not installed"]


def test_a_failed_start_is_an_error(systemd: tuple[Systemd, Systemctl]) -> None:
    """In systemd's words."""
    service, fake = systemd
    fake.fails = {"start": Done(1, "", "Job for rogue-hunter.service failed.\nSee journalctl\n")}
    with pytest.raises(ServiceError, match=r"systemctl start .*: Job for rogue-hunter\.service failed\.$"):
        service.install()


@pytest.mark.waits
@pytest.mark.slow
def test_under_a_real_user_manager(clean_env: Mapping[str, str], tmp_path: Path) -> None:
    """systemd --user in a namespace of its own: installed, ready, reloaded, killed and started again, stopped in its
    tracks and found by the watchdog, asked to stop, and removed."""
    manager = next((p for p in ("/lib/systemd/systemd", "/usr/lib/systemd/systemd") if os.path.exists(p)), None)
    if os.geteuid() != 0 or sys.platform != "linux" or manager is None or not shutil.which("unshare"):
        pytest.skip("a user manager of our own needs root, systemd and unshare")
    script = Path(__file__).parent / "systemd_user.sh"
    apart = ["unshare", "--mount", "--fork", "--pid", "--mount-proc", "--kill-child"]
    done = subprocess.run([*apart, "/bin/sh", str(script), manager, sys.executable], capture_output=True, text=True,
                          timeout=200, check=False, env={**clean_env, "LC_ALL": "C.UTF-8", "TMPDIR": str(tmp_path)})
    if "SKIP" in done.stdout:
        pytest.skip(f"no user manager can run here: {done.stdout.strip()[-200:]}")
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines() if line[:1].isupper())
    assert done.returncode == 0, done.stdout + done.stderr

    def service(step: str) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(found[step])
        Draft202012Validator(json_schema("service")).validate(record)
        return record

    first = service("INSTALLED")
    assert (first["state"], first["installed"], first["current"], first["enabled"]) == ("running", True, True, True)
    assert first["says"].startswith("score ")
    assert found["RELOADED"] == "configuration read again: system.hz 3.0 -> 5.0"
    killed = service("KILLED")
    assert killed["state"] == "running" and killed["pid"] != first["pid"]
    starved = service("STARVED")
    assert starved["state"] == "running" and starved["pid"] not in (first["pid"], killed["pid"])
    stopped = service("STOPPED")
    assert (stopped["state"], stopped["exit_code"], "pid" in stopped) == ("stopped", 0, False)
    assert (found["RC"], found["EVENTS"]) == ("69", "0")
    assert service("UNINSTALLED")["installed"] is False


# -- the whole system ------------------------------------------------------------------------------------------------

SYSTEM = Program(("/opt/rogue-hunter/bin/rh-pipe", "--quiet"))


def test_the_unit_of_the_system_is_hardened(tmp_path: Path) -> None:
    """systemd finds nothing wrong with it and gives it an exposure below 3, of 10 for a unit without any protection;
    each capability has its reason above it, and none of them is for writing or signals."""
    text = system_unit(SYSTEM, Path("/etc/sysusers.d/rogue-hunter.conf")).decode()
    (capabilities,) = re.findall(r"(?m)^AmbientCapabilities=(.*)$", text)
    assert capabilities.split() == ["CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_SYSLOG"]
    assert all(f"# {name}: " in text for name in capabilities.split())
    assert f"CapabilityBoundingSet={capabilities}\n" in text and "User=rogue-hunter\n" in text
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed: the exposure of the unit was not computed")
    (tmp_path / UNIT).write_text(text.replace("/opt/rogue-hunter/bin/rh-pipe", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=30", "--no-pager",
                           str(tmp_path / UNIT)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    print(done.stdout.strip().splitlines()[-1])
    # A key that this version does not know, a call that no group has: all of that is a warning.
    wrong = [line for line in done.stderr.splitlines() if UNIT in line]
    assert wrong == []


def test_only_root_installs_for_the_system(tmp_path: Path) -> None:
    """The user and the unit are written and the user made before the unit is started; uninstall removes both files."""
    (tmp_path / "opt").mkdir()
    program = tmp_path / "opt/rh-pipe"
    program.write_text("")
    program.chmod(0o755)
    calls: list[str] = []

    def run(argv: Sequence[str]) -> Done:
        calls.append(" ".join(argv[:4]))
        return Done(0, "ActiveState=inactive\nUnitFileState=disabled\nMainPID=0\n" if "show" in argv else "running", "")

    service = SystemSystemd(Program((str(program), "--quiet", "--hz", "2")), run, tmp_path, 0)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ServiceError, match="no systemd system manager"):
        patch.setattr("rogue_hunter.service.systemd.unreadable", lambda program: None)
        SystemSystemd(SYSTEM, lambda argv: Done(1, "offline\n", ""), tmp_path, 0).install()
    assert not (tmp_path / "etc").exists()
    with pytest.raises(ServiceError, match="for root"):
        SystemSystemd(SYSTEM, run, tmp_path, 1000).install()
    open_to_all = all(part.stat().st_mode & 1 for part in program.parents)
    if not open_to_all:  # pytest's own directory is closed to others
        with pytest.raises(ServiceError, match="other users cannot read it"):
            service.install()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rogue_hunter.service.systemd.unreadable", lambda program: None)
        said = service.install()
    assert said[0].startswith("wrote ") and (tmp_path / "etc/sysusers.d/rogue-hunter.conf").exists()
    assert (tmp_path / "etc/sysusers.d").stat().st_mode & 0o777 == 0o755
    assert calls[1].startswith("systemd-sysusers ") and all("--user" not in call for call in calls)
    assert service.file == tmp_path / "etc/systemd/system" / UNIT and service.arguments() == ["--hz", "2"]
    assert len(service.uninstall()) == 3 and not service.file.exists()
    assert not (tmp_path / "etc/sysusers.d/rogue-hunter.conf").exists()


def test_a_program_that_others_cannot_read(tmp_path: Path) -> None:
    """The first directory that is closed is named."""
    assert unreadable(Path("/bin/sh")) is None
    assert unreadable(Path("/nonexistent/rh-pipe")) == Path("/nonexistent")
    closed = tmp_path / "closed"
    closed.mkdir(0o700)
    (closed / "rh-pipe").write_text("")
    assert unreadable(closed / "rh-pipe") in (closed, *closed.parents)
