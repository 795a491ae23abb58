"""The unit of the systemd user manager, and its installation through systemctl.

No directive here needs a namespace: in a user manager those imply a user namespace, in which processes of other users
would belong to the user nobody, and before systemd 254 they are silently ignored.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import rogue_hunter
from rogue_hunter.service.manager import (
    QUIET,
    Done,
    Program,
    Run,
    ServiceError,
    State,
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


def unit(program: Program) -> bytes:
    """The unit that runs `program`. Raises ServiceError for a path that a unit cannot contain."""
    lines = "".join(f"Environment={quoted(f'{name}={value}')}\n" for name, value in program.environment)
    command = " ".join(quoted(word, dollar=True) for word in program.argv)
    chosen = program.argv[program.argv.index(QUIET) + 1:] if QUIET in program.argv else ()
    return _TEXT.format(mark=MARK.decode(), command=command, environment=lines, manual=_manual(),
                        arguments=wire.dumps(list(chosen)).decode()).encode()


def _manual() -> str:
    """URIs of the manual pages: files of this checkout or installation, else man: names, for a page in man's path."""
    for place in (Path(rogue_hunter.__file__).parents[1] / "man", Path(sys.prefix) / "share" / "man" / "man1"):
        if (page := place / "rh-pipe.1").is_file():
            return page.as_uri().replace("%", "%%")
    return "man:rh-pipe(1)"


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
        """The arguments of rh-pipe in the installed file, after --quiet."""
        found = re.search(rb"(?m)^# Arguments: (.*)$", read(self.file) or b"")
        try:
            words = wire.loads(found.group(1)) if found else []
        except ValueError:
            return []
        return [str(word) for word in words] if isinstance(words, list) else []

    def install(self) -> list[str]:
        """Write, enable and start the unit; a running unit is restarted if it changed."""
        if self._ask("is-system-running", fine=range(256)).out.strip() == "offline":
            raise NoManager(f"there is no systemd user manager here; {INSTEAD}", 69)
        said = [f"wrote {self.file}"] if write_file(self.file, self.text(), MARK) else []
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
            raise ServiceError(f"{self.file}: was not written by rh-service and is not removed", 1)
        if before is None:
            return [f"{UNIT} is not installed"]
        try:
            self._ask("disable", "--now", UNIT)
        except NoManager:       # then nothing runs; the unit must be gone at the next login
            for link in self.file.parent.glob(f"*.wants/{UNIT}"):
                link.unlink(missing_ok=True)
            remove_file(self.file, MARK)
            return [f"removed {self.file}"]
        remove_file(self.file, MARK)
        self._ask("daemon-reload")
        self._ask("reset-failed", UNIT, fine=range(256))
        return [f"stopped {UNIT}", f"removed {self.file}"]

    def start(self) -> list[str]:
        """Start it; systemctl waits for READY=1."""
        self._need()
        self._ask("start", UNIT)
        return [f"started {UNIT}"]

    def stop(self) -> list[str]:
        """Stop it; systemctl waits for its exit."""
        self._need()
        self._ask("stop", UNIT)
        return [f"stopped {UNIT}"]

    def restart(self) -> list[str]:
        """Stop and start."""
        self._need()
        self._ask("restart", UNIT)
        return [f"restarted {UNIT}"]

    def state(self) -> State:
        """The state by `systemctl show`."""
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
        """Run systemctl. Raises ServiceError for an exit status not in `fine`, NoManager without a manager."""
        done = self._run(["systemctl", "--user", "--no-pager", *words])
        if done.code == 127 or "connect to bus" in done.error.lower():
            raise NoManager(f"there is no systemd user manager here ({done.words}); {INSTEAD}", 69)
        if done.code not in fine:
            raise ServiceError(f"systemctl {' '.join(words)}: {done.words}", 69)
        return done
