"""The unit of the systemd user manager, and its installation through systemctl.

No directive here needs a namespace: in a user manager those imply a user namespace, in which processes of other users
would belong to the user nobody, and before systemd 254 they are silently ignored.
"""

from __future__ import annotations

import os
import pwd
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import rogue_hunter
from rogue_hunter.service.manager import (
    Done,
    Program,
    Run,
    ServiceError,
    State,
    chosen,
    ours,
    read,
    remove_file,
    run_command,
    write_file,
)
from rogue_hunter.stream import wire

UNIT = "rogue-hunter.service"

MARK = b"# Written by rh-service"

_STATES = {"active": "running", "reloading": "running", "inactive": "stopped", "failed": "failed",
           "activating": "starting", "deactivating": "stopping"}

_TEXT = """\
{mark}; rh-service install overwrites it.
# Arguments: {arguments}
[Unit]
Description=rogue-hunter: find the process that makes the machine pause
Documentation={manual}
# Give up if it cannot start, for example because of a damaged database.
StartLimitIntervalSec=60
StartLimitBurst=5

[Service]
# READY=1 after the first reading, WATCHDOG=1 with every tick, STATUS= with the highest score.
Type=notify
NotifyAccess=main
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
{environment}# No restart after a clean stop.
Restart=on-failure
RestartSec=2
WatchdogSec=10
# It exits within 2 s.
TimeoutStopSec=10
KillMode=mixed
UMask=0077
# A sampler has to run exactly when nothing else can: no Nice, no CPUQuota. It limits its own CPU use.
MemoryMax=256M
OOMPolicy=continue
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
SystemCallArchitectures=native
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK

[Install]
WantedBy=default.target
"""

_FLEET_TEXT = """\
{mark}; rh-service install overwrites it.
# Arguments: {arguments}
[Unit]
Description=rogue-hunter: {name}
Documentation={manual}
# It never gives up: a server may be down for days.
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
{environment}# A hub waits for its server at the start.
TimeoutStartSec=infinity
Restart=on-failure
RestartSec=30
TimeoutStopSec=30
KillMode=mixed
UMask=0077
# It can wait: others come first.
Nice=10
OOMPolicy=continue
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
SystemCallArchitectures=native
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK

[Install]
WantedBy=default.target
"""


_SYSTEM_TEXT = """\
{mark}; rh-service install --system overwrites it.
# Arguments: {arguments}
[Unit]
Description=rogue-hunter: find the process that makes the machine pause (whole system)
Documentation=man:rh-pipe(1) man:rh-service(1)
StartLimitIntervalSec=60
StartLimitBurst=5

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=2
WatchdogSec=10
TimeoutStopSec=10
KillMode=mixed

# A user of its own: see {sysusers}.
User={user}
Group={user}
# Read from and written to, as XDG directories: /etc/rogue-hunter, /var/lib/rogue-hunter (the database),
# /var/log/rogue-hunter (log and audit file), /run/rogue-hunter (socket).
Environment=XDG_CONFIG_HOME=/etc XDG_DATA_HOME=/var/lib XDG_STATE_HOME=/var/log XDG_RUNTIME_DIR=/run
Environment=PYTHONDONTWRITEBYTECODE=1
ConfigurationDirectory=rogue-hunter
StateDirectory=rogue-hunter
LogsDirectory=rogue-hunter
RuntimeDirectory=rogue-hunter
StateDirectoryMode=0700
LogsDirectoryMode=0700
RuntimeDirectoryMode=0700
UMask=0077

# Four capabilities, all of them for reading. There is no CAP_KILL: this service can end or stop no process.
# CAP_PERFMON: perf events of all processes, for the flight recorder: who ran during a pause, with stacks.
# CAP_SYS_PTRACE: I/O counters, programs, memory maps and wait channels of processes of other users in /proc.
# CAP_DAC_READ_SEARCH: open those files and the programs themselves, for the names of functions; nothing is written.
# CAP_SYSLOG: addresses of kernel functions (/proc/kallsyms) and the kernel log, for stacks and captures.
AmbientCapabilities={capabilities}
CapabilityBoundingSet={capabilities}
NoNewPrivileges=yes

# A sampler has to run exactly when nothing else can: no Nice, no CPUQuota. It limits its own CPU use.
MemoryMax=256M
OOMPolicy=continue
TasksMax=64
# Programs below /home are read for the names of their functions.
ProtectHome=read-only
ProtectSystem=strict
PrivateTmp=yes
# /dev/kmsg is the kernel log; the rest of the list is what every program has.
DevicePolicy=closed
DeviceAllow=/dev/kmsg r
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RemoveIPC=yes
KeyringMode=private
SystemCallArchitectures=native
# What a service needs, and perf_event_open; without calls that need capabilities this unit does not have.
SystemCallFilter=@system-service perf_event_open
SystemCallFilter=~@privileged @resources
SystemCallFilter=setpriority sched_setaffinity sched_setscheduler sched_setattr ioprio_set prlimit64 setrlimit
SystemCallErrorNumber=EPERM
# Netlink: counts of started and exited processes. The metrics page is on 127.0.0.1.
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
IPAddressDeny=any
IPAddressAllow=localhost

[Install]
WantedBy=multi-user.target
"""
# Not set: ProtectProc and ProcSubset (it reads all of /proc), PrivateUsers (capabilities would not hold),
# ProtectKernelLogs (it takes CAP_SYSLOG), MemoryDenyWriteExecute (ctypes may need executable memory),
# PrivateNetwork (the host's netlink).

CAPABILITIES = ("CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_SYSLOG")
USER = "rogue-hunter"
_SYSUSERS = b"""\
# Written by rh-service; rh-service install --system overwrites it.
u rogue-hunter - "rogue-hunter, the process monitor" /var/lib/rogue-hunter
"""


def system_unit(program: Program, sysusers: Path) -> bytes:
    """The unit of the whole system. Raises ServiceError for a path that a unit cannot contain."""
    return _SYSTEM_TEXT.format(
        mark=MARK.decode(), command=" ".join(quoted(word, dollar=True) for word in program.argv), user=USER,
        arguments=wire.dumps(chosen(program.argv, program.name)).decode(), capabilities=" ".join(CAPABILITIES),
        sysusers=sysusers).encode()


def unit(program: Program) -> bytes:
    """The unit that runs `program`. Raises ServiceError for a path that a unit cannot contain."""
    lines = "".join(f"Environment={quoted(f'{name}={value}')}\n" for name, value in program.environment)
    command = " ".join(quoted(word, dollar=True) for word in program.argv)
    return (_TEXT if program.name == "rh-pipe" else _FLEET_TEXT).format(
        mark=MARK.decode(), command=command, environment=lines, manual=_manual(program.name), name=program.name,
        arguments=wire.dumps(chosen(program.argv, program.name)).decode()).encode()


def _manual(name: str) -> str:
    """URIs of the manual pages: files of this checkout or installation, else man: names, for a page in man's path."""
    for place in (Path(rogue_hunter.__file__).parents[1] / "man", Path(sys.prefix) / "share" / "man" / "man1"):
        if (page := place / f"{name}.1").is_file():
            return page.as_uri().replace("%", "%%")
    return f"man:{name}(1)"


def quoted(word: str, dollar: bool = False) -> str:
    """A word escaped by systemd.syntax(7) and systemd.service(5): quotes, backslashes, specifiers, variables."""
    if any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 or 0xD800 <= ord(char) < 0xE000 for char in word):
        raise ServiceError(f"{word!r}: a unit cannot contain these characters", 1)
    text = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    if dollar:
        text = text.replace("$", "$$")
    plain = all(char.isalnum() or char in "/._-+=:@%$," for char in text) and text
    return text if plain else f'"{text}"'


INSTEAD = "start it without one: rh-pipe --quiet &, or in a crontab: @reboot rh-pipe --quiet (both by its full path)"
"""Advice where no user manager runs: in a container, after su."""


class NoManager(ServiceError):
    """No user manager runs, or it cannot be reached."""


class Systemd:
    """The user manager, through systemctl."""

    kind = "systemd"
    _scope: tuple[str, ...] = ("--user",)
    _whose = "user manager"

    def __init__(self, program: Program, run: Run = run_command, environment: Mapping[str, str] = os.environ) -> None:
        self._program = program
        self._run = run
        self.name = UNIT if program.name == "rh-pipe" else f"rogue-hunter-{program.short}.service"
        base = environment.get("XDG_CONFIG_HOME", "")
        home = Path(base) if base.startswith("/") else Path(environment.get("HOME") or Path.home()) / ".config"
        self.file = home / "systemd" / "user" / self.name

    def text(self) -> bytes:
        """The unit."""
        return unit(self._program)

    def arguments(self) -> list[str]:
        """The arguments in the installed file that were chosen at the installation."""
        found = re.search(rb"(?m)^# Arguments: (.*)$", read(self.file) or b"")
        try:
            words = wire.loads(found.group(1)) if found else []
        except ValueError:
            return []
        return [str(word) for word in words] if isinstance(words, list) else []

    def install(self) -> list[str]:
        """Write, enable and start the unit; a running unit is restarted if it changed."""
        self._need_manager()
        said = [f"wrote {self.file}"] if write_file(self.file, self.text(), MARK) else []
        self._ask("daemon-reload")
        self._ask("enable", self.name)
        self._ask("reset-failed", self.name, fine=range(256))
        if self.state().state == "running" and said:
            return [*said, *self.restart()]
        if self.state().state != "running":
            return [*said, *self.start()]
        return [*said, f"{self.name} is installed and runs already"]

    def uninstall(self) -> list[str]:
        """Stop, disable, remove."""
        if not ours(self.file, MARK):
            return [f"{self.name} is not installed"]
        try:
            self._ask("disable", "--now", self.name)
        except NoManager:       # then nothing runs; the unit must be gone at the next login
            for link in self.file.parent.glob(f"*.wants/{self.name}"):
                link.unlink(missing_ok=True)
            remove_file(self.file, MARK)
            return [f"removed {self.file}"]
        remove_file(self.file, MARK)
        self._ask("daemon-reload")
        self._ask("reset-failed", self.name, fine=range(256))
        return [f"stopped {self.name}", f"removed {self.file}"]

    def start(self) -> list[str]:
        """Start it; systemctl waits for READY=1."""
        self._need()
        self._ask("start", self.name)
        return [f"started {self.name}"]

    def stop(self) -> list[str]:
        """Stop it; systemctl waits for its exit."""
        self._need()
        self._ask("stop", self.name)
        return [f"stopped {self.name}"]

    def restart(self) -> list[str]:
        """Stop and start."""
        self._need()
        self._ask("restart", self.name)
        return [f"restarted {self.name}"]

    def state(self) -> State:
        """The state by `systemctl show`."""
        there = read(self.file)
        done = self._ask("show", self.name,
                         "--property=ActiveState,UnitFileState,MainPID,StatusText,ExecMainStatus,Result")
        said = dict(line.split("=", 1) for line in done.out.splitlines() if "=" in line)
        active, pid = said.get("ActiveState", ""), said.get("MainPID", "0")
        running = pid.isdecimal() and int(pid) > 0
        status = said.get("ExecMainStatus", "")
        result = said.get("Result", "")
        return State(there is not None, _STATES.get(active, "unknown"), None if there is None else there == self.text(),
                     said.get("UnitFileState") == "enabled", int(pid) if running else None,
                     int(status) if status.isdecimal() and not running and there is not None else None,
                     said.get("StatusText") or (result if result not in ("", "success") else None) or active or None)

    def _need_manager(self) -> None:
        if self._ask("is-system-running", fine=range(256)).out.strip() == "offline":
            raise NoManager(f"there is no systemd {self._whose} here; {INSTEAD}", 69)

    def _need(self) -> None:
        if read(self.file) is None:
            raise ServiceError(f"{self.name} is not installed: rh-service install", 69)

    def _ask(self, *words: str, fine: range = range(1)) -> Done:
        """Run systemctl. Raises ServiceError for an exit status not in `fine`, NoManager without a manager."""
        done = self._run(["systemctl", *self._scope, "--no-pager", *words])
        if done.code == 127 or "connect to bus" in done.error.lower():
            raise NoManager(f"there is no systemd {self._whose} here ({done.words}); {INSTEAD}", 69)
        if done.code not in fine:
            raise ServiceError(f"systemctl {' '.join(words)}: {done.words}", 69)
        return done


class SystemSystemd(Systemd):
    """The manager of the whole system: one rh-pipe for all processes, under a user of its own."""

    _scope = ("--system",)
    _whose = "system manager"

    def __init__(self, program: Program, run: Run = run_command, root: Path = Path("/"),
                 uid: int | None = None) -> None:
        super().__init__(program, run)
        self._root, self._uid = root, os.geteuid() if uid is None else uid
        self.file = root / "etc/systemd/system" / self.name
        self._users = root / "etc/sysusers.d/rogue-hunter.conf"

    def text(self) -> bytes:
        """The unit."""
        return system_unit(self._program, self._users)

    def install(self) -> list[str]:
        """Make the user, then as for a user's service. Raises ServiceError if the program is where the user of the
        service cannot read it."""
        if self._uid != 0:
            raise ServiceError("--system is for root: sudo rh-service install --system", 1)
        if (closed := unreadable(Path(self._program.argv[0]))) is not None:
            raise ServiceError(f"{closed}: other users cannot read it, and the service has a user of its own; install "
                               "rogue-hunter in a place for all, for example: python3 -m venv /opt/rogue-hunter", 1)
        self._need_manager()
        folder = self._users.parent
        made = not folder.exists()
        said = [f"wrote {self._users}"] if write_file(self._users, _SYSUSERS, MARK) else []
        if made:
            folder.chmod(0o755)  # independent of the umask: other programs read it too
        done = self._run(["systemd-sysusers", str(self._users)])
        if done.code:
            raise ServiceError(f"systemd-sysusers: {done.words}", 69)
        return [*said, *super().install()]

    def uninstall(self) -> list[str]:
        """Stop, disable, remove. The user stays: it owns the history."""
        said = super().uninstall()
        return [*said, f"removed {self._users}"] if remove_file(self._users, MARK) else said


def lingers(folder: Path = Path("/var/lib/systemd/linger")) -> bool:
    """True if the services of this user keep running after logout, loginctl(1); False if that cannot be read."""
    try:
        return (folder / pwd.getpwuid(os.geteuid()).pw_name).exists()
    except (KeyError, OSError):
        return False


def unreadable(program: Path) -> Path | None:
    """The first part of a path that is closed to other users; None if they can run it. /home and /root are read-only
    or closed in the service, with any mode."""
    for part in (*reversed(program.parents), program):
        try:
            mode = part.stat().st_mode
        except OSError:
            return part
        if not mode & 0o001 or (part == program and not mode & 0o004):
            return part
    return None
