"""tailspin, the trace of the last seconds that macOS can record: switching it on, and the sudoers rule to save it.

The rule lets rh-pipe run the one command that macOS restricts to root: exact words, no wildcard. sudoers(5) joins
arguments before it matches them, so `*` would allow further options and other paths. The file is saved to a directory
of root's, so that no user can replace it by a link.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from rogue_hunter import files
from rogue_hunter.capture.macos import Tools, save_argv
from rogue_hunter.service.manager import Run, ServiceError, read, run_command

FILE = "/etc/sudoers.d/rogue-hunter"
"""No dot in its name: sudo ignores such files."""

PLAIN = re.compile(r"/[A-Za-z0-9/_.-]+")
"""Paths that need no quoting in a sudoers file."""

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")


def command(tailspin_file: str) -> list[str]:
    """The command that captures run, without `sudo -n`."""
    return save_argv(Tools(), tailspin_file)[2:]


def text(user: str, uid: int, tailspin_file: str) -> bytes:
    """The sudoers file. A user whose name needs quoting is named by number. Raises ServiceError."""
    words = command(tailspin_file)
    if not all(PLAIN.fullmatch(word) for word in (words[0], tailspin_file)) or ".." in tailspin_file:
        raise ServiceError(f"{tailspin_file}: cannot be named in a sudoers file", 1)
    who = user if NAME.fullmatch(user) else f"#{uid}"
    return (f"# Written by rh-service: rh-pipe saves the kernel's trace of a pause into this file, and no other.\n"
            f"{who} ALL=(root) NOPASSWD: {' '.join(words)}\n").encode()


def owned_by_root(directory: str) -> None:
    """Raise ServiceError unless the directory is for the trace alone and only root can change the directories above:
    root will write to it, and set its mode."""
    path = PurePosixPath(directory)
    if path.name != "rogue-hunter":
        raise ServiceError(f"{directory}: the directory of the trace must be called rogue-hunter", 1)
    for each in path.parents:
        try:
            info = os.stat(each)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ServiceError(f"{each}: {error.strerror}", 74) from None
        if info.st_uid != 0 or info.st_mode & 0o022:
            raise ServiceError(f"{directory}: users other than root can change {each}; root must not write there", 1)


def root_prefix() -> list[str]:
    """What to put before a command that needs root."""
    return [] if os.geteuid() == 0 else ["/usr/bin/sudo"]


class Sudoers:
    """Installs and removes the rule. Only programs of the system run as root, never this one."""

    def __init__(self, user: str, uid: int, tailspin_file: str, run: Run = run_command, file: str = FILE,
                 as_root: Sequence[str] | None = None, visudo: str = "/usr/sbin/visudo",
                 check: Callable[[str], None] = owned_by_root) -> None:
        self.text = text(user, uid, tailspin_file)
        self._directory = str(PurePosixPath(tailspin_file).parent)
        self._run = run
        self._file = file
        self._root = list(as_root) if as_root is not None else root_prefix()
        self._visudo = visudo
        self._check_directory = check
        self._trace = tailspin_file

    def installed(self) -> bool:
        """True if the file exists; only root can read its content."""
        return os.path.lexists(self._file)

    def install(self) -> list[str]:
        """Write a draft, check it, rename it. The name of the draft has a dot, so that sudo does not read it. Raises
        ServiceError; then the previous rules are unchanged."""
        self._check_directory(self._directory)
        beside = self._file + ".new"
        with tempfile.TemporaryDirectory() as place:
            draft = Path(place) / "rogue-hunter"
            draft.write_bytes(self.text)
            self._check(draft, [])
            self._do("/usr/bin/install", "-d", "-o", "0", "-g", "0", "-m", "0755", self._directory)
            self._do("/usr/bin/install", "-o", "0", "-g", "0", "-m", "0440", str(draft), beside)
        try:
            # Check it again now that root owns it: until here this user could change the draft.
            self._check(Path(beside), self._root)
            self._do("/bin/mv", "-f", beside, self._file)
        except ServiceError:
            self._run([*self._root, "/bin/rm", "-f", beside])
            raise
        return [f"wrote {self._file}: {self.text.decode().splitlines()[1]}"]

    def uninstall(self) -> list[str]:
        """Remove the rule and the trace; its directory too, if nothing else is in it."""
        if not self.installed():
            return []
        self._do("/bin/rm", "-f", self._file, self._trace)
        self._run([*self._root, "/bin/rmdir", self._directory])
        return [f"removed {self._file} and {self._trace}"]

    def _check(self, file: Path, root: list[str]) -> None:
        done = self._run([*root, self._visudo, "-cf", str(file)])
        if done.code != 0:
            raise ServiceError(f"visudo refuses the rule: {done.words}", 69)

    def _do(self, *words: str) -> None:
        done = self._run([*self._root, *words])
        if done.code != 0:
            raise ServiceError(f"{' '.join(words)}: {done.words}", 69)


TAILSPIN = "/usr/bin/tailspin"


def enabled_by(text: str) -> bool | None:
    """What `tailspin info` says: `tailspin has been disabled (default behavior)` is False; None if it says neither."""
    words = text.lower()
    return False if "disabled" in words else True if "enabled" in words else None


class Tailspin:
    """The setting of this machine. `before` is a file that remembers that it was off, for uninstall."""

    def __init__(self, before: Path, root: Sequence[str], run: Run = run_command) -> None:
        self._before, self._root, self._run = before, list(root), run

    def enabled(self) -> bool | None:
        """Whether the trace is recorded; None if that cannot be known."""
        done = self._run([TAILSPIN, "info"])
        return enabled_by(done.out + done.error)

    def install(self) -> list[str]:
        """Switch it on; the setting persists over reboots. Raises ServiceError."""
        if self.enabled():
            return ["tailspin is enabled already"]
        self._set("enable")
        try:
            files.replace(self._before, b"disabled\n", mode=0o600)
        except OSError as error:
            raise ServiceError(f"{self._before}: {error.strerror}", 74) from None
        return ["enabled tailspin: macOS records a trace of the last seconds in memory"]

    def uninstall(self) -> list[str]:
        """Back to what it was before install. Raises ServiceError."""
        if read(self._before) is None:
            return []
        self._set("disable")
        self._before.unlink(missing_ok=True)
        return ["disabled tailspin, as it was before"]

    def _set(self, verb: str) -> None:
        done = self._run([*self._root, TAILSPIN, verb])
        if done.code != 0:
            raise ServiceError(f"tailspin {verb}: {done.words}", 69)
