"""The agent of launchd: its property list with a reason beside every key, and its installation through launchctl.

launchd ignores what it does not know without a message: the tests check the property list (tests/tools/plist.py).

bootout is asynchronous: the job drains for a while, and a bootstrap in that time fails with error 5, Input/output
error, which also means "loaded already" or a session without a window server.
"""

from __future__ import annotations

import os
import plistlib
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from xml.parsers.expat import ExpatError

from rogue_hunter.paths import private_dir
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

LABEL = "local.rogue-hunter.pipe"
"""Also the file's name: launchctl wants NAME.plist to hold the label NAME."""

REASONS: dict[str, str] = {
    "Label": "The name of the file without .plist.",
    "ProgramArguments": "Absolute: no shell and no PATH of a login. One long-running program that does not fork.",
    "RunAtLoad": "From login on, not on demand: a pause cannot be foreseen.",
    "KeepAlive": "Restart after any exit status but 0 (a Python exception is exit 1, which Crashed would not count). "
                 "After a clean stop it stays stopped.",
    "ThrottleInterval": "Seconds between two starts. The default of 10 would try a broken configuration 8,640 times a "
                        "day.",
    "ProcessType": "Without it, or as Standard, launchd throttles CPU and I/O; Background is confined to slow cores "
                   "and starves under load. A sampler has to run exactly when nothing else can.",
    "LegacyTimers": "Since OS X 10.9 timers of jobs are delayed and coalesced to save power; three beats a second "
                    "must not be.",
    "ExitTimeOut": "Seconds from SIGTERM to SIGKILL. A clean stop takes two.",
    "Umask": "077: names and arguments of processes are private.",
    "WorkingDirectory": "Keeps no volume busy.",
    "StandardOutPath": "Records go to the database and the socket, none to standard output.",
    "StandardErrorPath": "Absolute: ~ and $HOME are not expanded. Its directory must exist. It is not rotated: "
                         "rh-pipe writes a line when something changes, not a line a tick.",
}
"""Key -> its reason. Not set, on purpose: Nice and LowPriorityIO (beats would be late), StartInterval (one process runs
all the time), EnvironmentVariables (paths are arguments), AbandonProcessGroup (a capture ends with its parent)."""


def agent(program: Sequence[str], log: str, label: str = LABEL) -> dict[str, Any]:
    """The job that runs `program` (rh-pipe and its arguments) and writes its errors to `log`.

    Raises ValueError for a relative path and for characters that XML cannot hold.
    """
    plist: dict[str, Any] = {
        "Label": label,
        "ProgramArguments": list(program),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 30,
        "ProcessType": "Interactive",
        "LegacyTimers": True,
        "ExitTimeOut": 10,
        "Umask": 0o077,
        "WorkingDirectory": "/",
        "StandardOutPath": "/dev/null",
        "StandardErrorPath": log,
    }
    for key, path in (("ProgramArguments", program[0]), ("StandardErrorPath", log)):
        if not PurePosixPath(path).is_absolute():   # launchd has no PATH, and expands neither ~ nor $HOME
            raise ValueError(f"{key}: a relative path: {path}")
    try:
        same = plistlib.loads(plistlib.dumps(plist)) == plist
    except ExpatError:
        same = False
    if not same:    # a carriage return is read back as a line feed
        raise ValueError("a property list cannot contain these characters")
    return plist


def render(plist: dict[str, Any]) -> bytes:
    """The property list as XML, each key under a comment that gives its reason."""
    lines = []
    for line in plistlib.dumps(plist, sort_keys=False).decode().removesuffix("\n").split("\n"):
        # One tab deep: a key of the job itself, not of a nested dict.
        if line.startswith("\t<key>") and (reason := REASONS.get(line[6:].removesuffix("</key>"))):
            lines.append(f"\t<!-- {reason.replace('--', '- -')} -->")
        lines.append(line)
    return ("\n".join(lines) + "\n").encode()


DRAIN_S = 15.0
"""Seconds that a job may take to exit: its ExitTimeOut is 10."""

STEP_S = 0.2

NOT_THERE = (3, 113)
"""launchctl's codes for a service that is not loaded: ESRCH, and "Could not find service"."""

ALREADY = (5, 17, 37)
"""launchctl's codes for a job that is loaded already: EIO (also: no session, or disabled), EEXIST, EALREADY."""

PROTECTED = ("Documents", "Desktop", "Downloads", "Library/Mobile Documents")
"""Folders of the user that macOS protects (TCC) from programs that were not approved; sh under launchd is not."""


class Launchd:
    """The agent in the user's graphical session."""

    kind = "launchd"

    def __init__(self, program: Program, log: Path, run: Run = run_command, uid: int | None = None,
                 home: Path | None = None, sleep: Callable[[float], object] = time.sleep,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._program = program
        self.name = LABEL if program.name == "rh-pipe" else f"local.rogue-hunter.{program.short}"
        self._log = log
        self._run = run
        self._sleep = sleep
        self._clock = clock
        self._domain = f"gui/{os.getuid() if uid is None else uid}"
        self._target = f"{self._domain}/{self.name}"
        self.file = (home or Path.home()) / "Library" / "LaunchAgents" / f"{self.name}.plist"

    def text(self) -> bytes:
        """The property list. Raises ServiceError."""
        try:
            return render(agent(self._program.argv, str(self._log), self.name))
        except ValueError as error:
            raise ServiceError(str(error), 1) from None

    def arguments(self) -> list[str]:
        """The arguments in the installed file that were chosen at the installation."""
        try:
            words = plistlib.loads(read(self.file) or b"").get("ProgramArguments", [])
        except (plistlib.InvalidFileException, ExpatError, ValueError, AttributeError):
            return []
        return [str(word) for word in chosen(words, self._program.name)] if words else []

    def install(self) -> list[str]:
        """Write the file and load it: RunAtLoad starts it. A changed file is loaded again."""
        private_dir(self._log.parent)
        changed = write_file(self.file, self.text(), self.name.encode())
        said = [f"wrote {self.file}"] if changed else []
        # A label that was once disabled stays disabled, and bootstrap then fails.
        self._ask("enable", self._target)
        if self._loaded():
            if not changed:
                return [f"{self.name} is installed and loaded already"]
            self._bootout()
        self._bootstrap()
        return [*said, f"loaded {self.name} into {self._domain}", *self._protected()]

    def uninstall(self) -> list[str]:
        """Unload the job, wait until it has exited, remove the file."""
        ours(self.file, self.name.encode())
        said = []
        if self._loaded():
            self._bootout()
            said.append(f"unloaded {self.name}")
        if remove_file(self.file, self.name.encode()):
            said.append(f"removed {self.file}")
        return said or [f"{self.name} is not installed"]

    def start(self) -> list[str]:
        """Start the loaded job, or load it."""
        self._need()
        if self._loaded():
            self._ask("kickstart", self._target)
        else:
            self._ask("enable", self._target)
            self._bootstrap()
        return [f"started {self.name}"]

    def stop(self) -> list[str]:
        """Stop it with SIGTERM and wait for its exit; launchd does not restart it after a clean stop."""
        self._need()
        if self.state().pid is not None:
            self._ask("kill", "SIGTERM", self._target)
            self._until(lambda: self.state().pid is None, "does not exit")
        return [f"stopped {self.name}"]

    def restart(self) -> list[str]:
        """Stop it and start it again."""
        self._need()
        if not self._loaded():
            return self.start()
        self._ask("kickstart", "-k", self._target)
        return [f"restarted {self.name}"]

    def state(self) -> State:
        """The state by `launchctl print`. Its output is for people, but these lines have not changed since 10.10."""
        there = read(self.file)
        current = None if there is None else there == self.text()
        done = self._ask("print", self._target, fine=(0, *NOT_THERE))
        if done.code != 0:
            return State(there is not None, "stopped", current, False if there is None else None, says="not loaded")
        word = _said(done.out, "state")
        pid, code = _said(done.out, "pid"), _said(done.out, "last exit code").split(":")[0]
        # A job that was killed has the line of the signal in the place of the one of its exit code.
        signal, runs = _said(done.out, "last terminating signal"), _said(done.out, "runs")
        failed = bool(signal) or (code.isdecimal() and int(code) != 0) or word == "spawn scheduled"
        state = "running" if pid.isdecimal() else "failed" if failed else "stopped"
        return State(there is not None, state, current, True, int(pid) if pid.isdecimal() else None,
                     int(code) if code.isdecimal() and not pid.isdecimal() else None,
                     f"{word}: launchd waits before it starts it again" if word == "spawn scheduled" else word or None,
                     signal or None, _said(done.out, "last exit reason") or None,
                     int(runs) if runs.isdecimal() and len(runs) < 18 else None)

    def _protected(self) -> list[str]:
        """A warning about a program in a folder that macOS lets only approved applications read."""
        home = self.file.parents[2]
        inside = [name for name in PROTECTED if any(Path(word).is_relative_to(home / name) for word in
                                                    self._program.argv if word.startswith("/"))]
        return [f"warning: it lies in ~/{inside[0]}, which macOS protects (TCC): launchd gets `Operation not "
                "permitted` there. Move it to another folder and install it again"] if inside else []

    # -- launchctl ---------------------------------------------------------------------------------------------------

    def _loaded(self) -> bool:
        return self._ask("print", self._target, fine=(0, *NOT_THERE)).code == 0

    def _bootout(self) -> None:
        """Unload the job and wait: launchctl returns before the job has exited."""
        self._ask("bootout", self._target, fine=(0, 36, *NOT_THERE))
        self._until(lambda: not self._loaded(), "does not exit")

    def _bootstrap(self) -> None:
        """Load the job. The errors may be temporary, until the previous job has drained: retry once."""
        done = self._ask("bootstrap", self._domain, str(self.file), fine=(0, *ALREADY))
        if done.code in ALREADY and not self._loaded():
            self._sleep(2.0)
            done = self._ask("bootstrap", self._domain, str(self.file), fine=(0, *ALREADY))
        if done.code in ALREADY and not self._loaded():
            raise ServiceError(f"launchctl bootstrap {self._domain}: {done.words} (no graphical session of this user, "
                               "or run by sudo; since macOS 13 also: switched off in System Settings, General, Login "
                               "Items, where it may be listed as `sh` or as of an unidentified developer)", 69)

    def _until(self, reached: Callable[[], bool], otherwise: str) -> None:
        deadline = self._clock() + DRAIN_S
        while not reached():
            if self._clock() >= deadline:
                raise ServiceError(f"{self.name} {otherwise}", 69)
            self._sleep(STEP_S)

    def _need(self) -> None:
        if read(self.file) is None:
            raise ServiceError(f"{self.name} is not installed: rh-service install", 69)

    def _ask(self, *words: str, fine: tuple[int, ...] = (0,)) -> Done:
        done = self._run(["/bin/launchctl", *words])
        if done.code == 127:
            raise ServiceError(f"there is no launchd here: {done.words}", 69)
        if done.code not in fine:
            raise ServiceError(f"launchctl {' '.join(words)}: {done.words}", 69)
        return done


def _said(text: str, name: str) -> str:
    """The value of the first line `name = value` of the service itself."""
    found = re.search(rf"(?m)^\t{re.escape(name)} = (.*)$", text)
    return found.group(1).strip() if found else ""
