"""An empty Debian root, made once by debootstrap, and commands run in throwaway copies of it."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

USER = 1000
"""The uid and gid of the ordinary user in every root."""
PACKAGES = ("python3", "ca-certificates", "git")
"""What is in a root beside Debian's minimal system: enough to clone a checkout that needs Python."""
SCRIPTS = Path("/usr/share/debootstrap/scripts")


class MachineError(Exception):
    """A root cannot be made or used here; the text is debootstrap's, or names what is missing."""


@dataclass(frozen=True)
class Result:
    """What a command in a root returned. `output` is stdout and stderr, in the order of writing."""

    status: int
    output: str


def make_root(suite: str, place: Path, mirror: str = "") -> Path:
    """The root of a Debian release in place/SUITE; an existing one is used again. Raises MachineError."""
    root = place / suite
    if (root / "home" / "made").exists():
        return root
    # A release newer than this machine's debootstrap is installed as sid is.
    script = SCRIPTS / (suite if (SCRIPTS / suite).exists() else "sid")
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", suite, str(root), mirror, str(script)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise MachineError("debootstrap is not installed") from None
    if done.returncode:
        raise MachineError(f"debootstrap {suite}: {(done.stdout + done.stderr).strip().splitlines()[-1]}")
    home = root / "home" / "user"
    home.mkdir()
    os.chown(home, USER, USER)
    with (root / "etc" / "passwd").open("a") as passwd:
        passwd.write(f"user:x:{USER}:{USER}::/home/user:/bin/sh\n")
    with (root / "etc" / "group").open("a") as group:
        group.write(f"user:x:{USER}:\n")
    (root / "home" / "made").touch()
    return root


def pip_settings() -> dict[str, dict[str, str]]:
    """Section -> option -> value of this machine's pip configuration, environment variables included as [global]."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    found: dict[str, dict[str, str]] = {}
    for line in listed.stdout.splitlines():
        name, value = line.split("=", 1)
        section, option = name.rsplit(".", 1)
        found.setdefault("global" if section == ":env:" else section, {})[option] = str(ast.literal_eval(value))
    return found


def config_text(settings: Mapping[str, Mapping[str, str]]) -> str:
    """pip's configuration file with these settings; a value of several lines is indented."""
    lines: list[str] = []
    for section, options in settings.items():
        lines.append(f"[{section}]")
        lines += [f"{option} = " + value.replace("\n", "\n    ") for option, value in options.items()]
    return "\n".join([*lines, ""])


def named_paths(settings: Mapping[str, Mapping[str, str]]) -> list[Path]:
    """The files and directories of this machine that the settings name: paths, and for a file URL of an index, whose pages
    link to files beside it, the directory above.
    """
    words = [word for options in settings.values() for value in options.values() for word in value.split()]
    paths = [Path(unquote(urlsplit(word).path)).parent if word.startswith("file:") else Path(word) for word in words]
    return sorted({path for path in paths if path.is_absolute() and path.exists()})


def run_in(
    root: Path, scratch: Path, command: Sequence[str], *, user: int, environ: Mapping[str, str], shared: Mapping[Path, Path],
    timeout_s: float,
) -> Result:
    """Run a command in the root; what it writes goes to the directory `scratch`, and the root stays as it is.

    The command has a process table and a mount table of its own (`tests/fresh/inside.py` prepares both), so neither
    processes nor mounts outlive it. `shared` maps paths of this machine to where they appear in the root, read-only. Raises MachineError where the
    kernel refuses that, subprocess.TimeoutExpired.
    """
    if os.geteuid():
        raise MachineError("only root can make a root directory of its own")
    for name in ("upper", "work", "merged"):
        (scratch / name).mkdir(exist_ok=True)
    inside = Path(__file__).with_name("inside.py")
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "--pid", "--ipc", "--fork", "--kill-child", sys.executable, "-I",
         str(inside), str(root), str(scratch), str(user), json.dumps({str(path): str(at) for path, at in shared.items()}),
         *command],
        env=dict(environ), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", timeout=timeout_s, check=False,
    )  # fmt: skip
    return Result(done.returncode, done.stdout)
