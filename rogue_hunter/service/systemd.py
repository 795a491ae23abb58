"""The unit of systemd's user manager.

No directive here needs a namespace of its own: in a user's manager those imply a user namespace, in which the processes
of others would be nobody's, or are passed over in silence before systemd 254.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from rogue_hunter.service.manager import Done, Run, ServiceError, State, put, read, run_command, take_away
from rogue_hunter.service.program import QUIET, Program
from rogue_hunter.stream import wire

UNIT = "rogue-hunter.service"

MARK = b"# Written by rh-service"

_STATES = {"active": "running", "reloading": "running", "inactive": "stopped", "failed": "failed",
           "activating": "starting", "deactivating": "stopping"}

_TEXT = """\
{mark}; rh-service install writes it anew.
# Arguments: {arguments}
[Unit]
Description=rogue-hunter: find the process that makes the machine pause
Documentation=man:rh-pipe(1) man:rogue-hunter(7)
# A database that cannot be used is not tried for ever.
StartLimitIntervalSec=60
StartLimitBurst=5

[Service]
# READY=1 after the first reading, WATCHDOG=1 with every tick, STATUS= with the highest score.
Type=notify
NotifyAccess=main
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
{environment}# A clean stop stays stopped.
Restart=on-failure
RestartSec=2
WatchdogSec=10
# Ends within 2 s by itself.
TimeoutStopSec=10
KillMode=mixed
UMask=0077
# A sampler has to run exactly when nothing else can: no Nice, no CPUQuota. It keeps within its own budget.
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


def unit(program: Program) -> bytes:
    """The unit that runs `program`. Raises ServiceError for a path that no unit can hold."""
    lines = "".join(f"Environment={quoted(f'{name}={value}')}\n" for name, value in program.environment)
    command = " ".join(quoted(word, dollar=True) for word in program.argv)
    chosen = program.argv[program.argv.index(QUIET) + 1:] if QUIET in program.argv else ()
    return _TEXT.format(mark=MARK.decode(), command=command, environment=lines,
                        arguments=wire.dumps(list(chosen)).decode()).encode()


def quoted(word: str, dollar: bool = False) -> str:
    """A word as systemd.syntax(7) and systemd.service(5) have it: quotes, backslashes, specifiers, variables."""
    if any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 or 0xD800 <= ord(char) < 0xE000 for char in word):
        raise ServiceError(f"{word!r}: a unit cannot hold these characters", 1)
    text = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    if dollar:
        text = text.replace("$", "$$")
    plain = all(char.isalnum() or char in "/._-+=:@%$," for char in text) and text
    return text if plain else f'"{text}"'


INSTEAD = "start it without one: rh-pipe --quiet &, or in a crontab: @reboot rh-pipe --quiet (both by its full path)"
"""What to do where no user manager runs: in a container, after su."""


class NoManager(ServiceError):
    """No user manager runs or can be reached."""


class Systemd:
    """The user manager, through systemctl."""

    kind = "systemd"
    name = UNIT

    def __init__(self, program: Program, run: Run = run_command, environment: Mapping[str, str] = os.environ) -> None:
        self._program = program
        self._run = run
        base = environment.get("XDG_CONFIG_HOME", "")
        home = Path(base) if base.startswith("/") else Path(environment.get("HOME") or Path.home()) / ".config"
        self.file = home / "systemd" / "user" / UNIT

    def text(self) -> bytes:
        """The unit."""
        return unit(self._program)

    def arguments(self) -> list[str]:
        """What rh-pipe is given, behind --quiet."""
        found = re.search(rb"(?m)^# Arguments: (.*)$", read(self.file) or b"")
        try:
            words = wire.loads(found.group(1)) if found else []
        except ValueError:
            return []
        return [str(word) for word in words] if isinstance(words, list) else []

    def install(self) -> list[str]:
        """Write, enable, start; a unit that changed while it runs is restarted."""
        if self._ask("is-system-running", fine=range(256)).out.strip() == "offline":
            raise NoManager(f"there is no systemd user manager here; {INSTEAD}", 69)
        said = [f"wrote {self.file}"] if put(self.file, self.text(), MARK) else []
        self._ask("daemon-reload")
        self._ask("enable", UNIT)
        self._ask("reset-failed", UNIT, fine=range(256))
        if self.state().state == "running" and said:
            return [*said, *self.restart()]
        if self.state().state != "running":
            return [*said, *self.start()]
        return [*said, f"{UNIT} is installed and runs already"]

    def uninstall(self) -> list[str]:
        """Stop, disable, remove."""
        before = read(self.file)
        if before is not None and MARK not in before:
            raise ServiceError(f"{self.file}: was not written by rh-service; it is left alone", 1)
        if before is None:
            return [f"{UNIT} is not installed"]
        try:
            self._ask("disable", "--now", UNIT)
        except NoManager:       # then it runs nothing either, and at the next login the unit must not be found
            for link in self.file.parent.glob(f"*.wants/{UNIT}"):
                link.unlink(missing_ok=True)
            take_away(self.file, MARK)
            return [f"removed {self.file}"]
        take_away(self.file, MARK)
        self._ask("daemon-reload")
        self._ask("reset-failed", UNIT, fine=range(256))
        return [f"stopped {UNIT}", f"removed {self.file}"]

    def start(self) -> list[str]:
        """Start; systemctl waits for READY=1."""
        self._need()
        self._ask("start", UNIT)
        return [f"started {UNIT}"]

    def stop(self) -> list[str]:
        """Stop; systemctl waits for the end."""
        self._need()
        self._ask("stop", UNIT)
        return [f"stopped {UNIT}"]

    def restart(self) -> list[str]:
        """Stop and start."""
        self._need()
        self._ask("restart", UNIT)
        return [f"restarted {UNIT}"]

    def state(self) -> State:
        """What `systemctl show` says."""
        there = read(self.file)
        done = self._ask("show", UNIT, "--property=ActiveState,UnitFileState,MainPID,StatusText,ExecMainStatus,Result")
        said = dict(line.split("=", 1) for line in done.out.splitlines() if "=" in line)
        active, pid = said.get("ActiveState", ""), said.get("MainPID", "0")
        running = pid.isdecimal() and int(pid) > 0
        status = said.get("ExecMainStatus", "")
        result = said.get("Result", "")
        return State(there is not None, _STATES.get(active, "unknown"), None if there is None else there == self.text(),
                     said.get("UnitFileState") == "enabled", int(pid) if running else None,
                     int(status) if status.isdecimal() and not running and there is not None else None,
                     said.get("StatusText") or (result if result not in ("", "success") else None) or active or None)

    def _need(self) -> None:
        if read(self.file) is None:
            raise ServiceError(f"{UNIT} is not installed: rh-service install", 69)

    def _ask(self, *words: str, fine: range = range(1)) -> Done:
        """Run systemctl. Raises ServiceError when it fails in a way that is not fine, or cannot be reached."""
        done = self._run(["systemctl", "--user", "--no-pager", *words])
        if done.code == 127 or "connect to bus" in done.error.lower():
            raise NoManager(f"there is no systemd user manager here ({done.words}); {INSTEAD}", 69)
        if done.code not in fine:
            raise ServiceError(f"systemctl {' '.join(words)}: {done.words}", 69)
        return done
