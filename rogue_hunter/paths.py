"""Where configuration, data, logs and sockets live: the XDG base directories, on every platform.

Everything made here is for its owner only: directories 0700, with any umask.
"""

from __future__ import annotations

import os
import pwd
import stat
from contextlib import suppress
from pathlib import Path

from rogue_hunter.text.errors import IO_ERROR, RogueHunterError

NAME = "rogue-hunter"


class PathError(RogueHunterError):
    """A directory that must be this user's alone has another owner, is open to others, is a link, or cannot be made."""

    code = IO_ERROR


def _base(variable: str, default: str) -> Path:
    value = os.environ.get(variable, "")
    # The XDG specification has relative paths ignored.
    if value.startswith("/"):
        return Path(value)
    home = os.environ.get("HOME", "")
    if not home.startswith("/"):
        # A history below the current directory, of which there are many, would not be found again.
        try:
            home = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            raise PathError(f"no home directory: set HOME or {variable}") from None
    return Path(home) / default


def config_dir() -> Path:
    """Configuration: $XDG_CONFIG_HOME/rogue-hunter, else ~/.config/rogue-hunter."""
    return _base("XDG_CONFIG_HOME", ".config") / NAME


def config_file() -> Path:
    """The configuration file."""
    return config_dir() / "config.toml"


def rules_file() -> Path:
    """The file of rules, if they are not in the configuration file."""
    return config_dir() / "reaper.toml"


def data_dir() -> Path:
    """The database: $XDG_DATA_HOME/rogue-hunter, else ~/.local/share/rogue-hunter."""
    return _base("XDG_DATA_HOME", ".local/share") / NAME


def database() -> Path:
    """The database file. Its stem is the name under which Datasette shows it."""
    return data_dir() / "rogue-hunter.db"


def state_dir() -> Path:
    """Logs and audit: $XDG_STATE_HOME/rogue-hunter, else ~/.local/state/rogue-hunter."""
    return _base("XDG_STATE_HOME", ".local/state") / NAME


def runtime_dir() -> Path:
    """Sockets: $XDG_RUNTIME_DIR/rogue-hunter; where there is none, a folder below the state directory."""
    value = os.environ.get("XDG_RUNTIME_DIR", "")
    return Path(value) / NAME if value.startswith("/") else state_dir() / "run"


SYSTEM_DATABASE = Path("/var/lib/rogue-hunter/rogue-hunter.db")
SYSTEM_SOCKET = Path("/run/rogue-hunter/rh-pipe.sock")
"""Where the service of the whole system (rh-service install --system) keeps them; root may read them."""


def own_or_system(own: Path, system: Path) -> Path:
    """The user's file, unless there is none and that of the system's service is accessible."""
    return system if not os.path.lexists(own) and os.access(system, os.R_OK | os.W_OK) else own


def private_dir(path: Path) -> Path:
    """Make `path` and what is missing above it with mode 0700, and see that it is ours alone.

    Raises PathError for a link, another owner, or a directory that others may write to. One of rogue-hunter's own that
    others may only look into is closed to them. Any other one (a person has named a log or a socket in it) stays as it
    is: it may be /run, /var/log or a home directory.
    """
    try:
        _make(path)
        info = os.lstat(path)
        if stat.S_ISLNK(info.st_mode) or not stat.S_ISDIR(info.st_mode):
            raise PathError(f"{path}: not a directory of its own")
        if info.st_uid != os.geteuid():
            raise PathError(f"{path}: belongs to user {info.st_uid}")
        if info.st_mode & 0o022:
            raise PathError(f"{path}: others may write to it (mode {stat.S_IMODE(info.st_mode):04o})")
        if info.st_mode & 0o077 and NAME in path.parts[-2:]:
            os.chmod(path, 0o700)
    except OSError as error:
        raise PathError(f"{path}: {error.strerror}") from None
    return path


def _make(path: Path) -> None:
    """mkdir -p with mode 0700 for each directory made: Path.mkdir gives that mode to the last one only."""
    try:
        path.mkdir(0o700)
    except FileExistsError:
        return
    except FileNotFoundError:
        _make(path.parent)
        with suppress(FileExistsError):
            path.mkdir(0o700)
    os.chmod(path, 0o700)
