"""A throwaway checkout, a PATH of chosen programs and stand-ins for uv and Python, to try bin/ without a registry."""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent.parent
BASE_PYTHON = getattr(sys, "_base_executable", sys.executable)
"""The interpreter that the tests' own environment was made with."""

# What bin/_env.sh may call. Nothing else is on the stand-in PATH: neither the machine's uv nor its Pythons.
PROGRAMS = ("cat", "cksum", "cmp", "cp", "mkdir", "mv", "printf", "readlink", "rm", "sh")

MAIN = """\
import json, os, sys
if "--report" in sys.argv:
    json.dump({"argv": sys.argv[1:], "prefix": sys.prefix, "base": sys._base_executable, "path": sys.path,
               "environ": dict(os.environ), "version": list(sys.version_info[:2])}, sys.stdout)
elif "--cat" in sys.argv:
    sys.stdout.write(sys.stdin.read())
elif "--exit" in sys.argv:
    sys.exit(int(sys.argv[-1]))
"""

# Makes environments without packages. It speaks on stdout, eats stdin and can be held at a named pipe:
# what a launcher must bear.
UV = """\
#!/bin/sh
[ "$1" = --version ] && {{ echo 'uv 0.0.0 (stand-in)'; exit; }}
echo "uv $*" >>"$STUB_LOG"
cat >/dev/null
echo "noise of uv"
case $1 in
venv) for place; do :; done; exec '{python}' -I -m venv --without-pip "$place" ;;
pip) [ -z "${{STUB_GATE:-}}" ] || read -r _ <"$STUB_GATE"; exit "${{STUB_STATUS:-0}}" ;;
esac
"""

# A Python that calls itself by its own path, so that what is asked of it can be answered here.
PYTHON = """\
#!/bin/sh
case "$*" in
*python_implementation*) echo "$0" ;;
{cases}
*) exec '{python}' "$@" ;;
esac
"""


def write_program(path: Path, text: str) -> Path:
    """An executable file with this text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@dataclass(frozen=True)
class Checkout:
    """A copy of bin/ beside a package of one module that says how it was started."""

    root: Path
    programs: Path
    log: Path

    @property
    def sample(self) -> Path:
        """The launcher that the tests start."""
        return self.root / "bin" / "rh-sample"

    def environ(self, **more: str) -> dict[str, str]:
        """The whole environment of a launcher: a PATH of stand-ins, a home of its own."""
        home = self.root.parent / "home"
        home.mkdir(exist_ok=True)
        return {"PATH": str(self.programs), "HOME": str(home), "STUB_LOG": str(self.log), "LC_ALL": "C.UTF-8", **more}

    def run(
        self, *command: str | Path, stdin: str = "", cwd: Path | None = None, environ: Mapping[str, str] | None = None,
        user: int | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end; user: as this uid and gid, without other groups."""
        drop = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        return subprocess.run(
            [str(word) for word in command], input=stdin, text=True, capture_output=True, timeout=240,
            cwd=cwd or self.root.parent, env=dict(environ or self.environ()), check=False, **drop,  # type: ignore[arg-type]
        )

    def calls(self, word: str = "uv venv") -> int:
        """How often a stand-in was called so."""
        return sum(line.startswith(word) for line in self.log.read_text().splitlines())


def make_checkout(place: Path, name: str = "checkout") -> Checkout:
    """A checkout in `place`, and a PATH holding the stand-ins for uv and python3."""
    root = place / name
    shutil.copytree(REPO / "bin", root / "bin")
    (root / "tests").mkdir()
    shutil.copy(REPO / "tests" / "requirements.lock", root / "tests")
    (root / "rogue_hunter").mkdir()
    (root / "rogue_hunter" / "__init__.py").write_text("")
    (root / "rogue_hunter" / "__main__.py").write_text(MAIN)
    programs = place / "programs"
    programs.mkdir(exist_ok=True)
    for program in PROGRAMS:
        found = shutil.which(program, path="/bin:/usr/bin")
        if found:
            (programs / program).symlink_to(found)
    write_program(programs / "uv", UV.format(python=BASE_PYTHON))
    write_program(programs / "python3", f"#!/bin/sh\nexec '{BASE_PYTHON}' \"$@\"\n")
    log = place / "log"
    log.touch()
    log.chmod(0o666)
    return Checkout(root, programs, log)


@functools.cache
def registry_refuses() -> str:
    """Why no package can be had from a registry, as pip says it; empty if one answers."""
    with tempfile.TemporaryDirectory() as place:
        asked = subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-cache-dir", "--retries", "1",
             "-d", place, "tabulate"],
            capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    return "" if asked.returncode == 0 else (asked.stderr.strip().splitlines() or ["no reason given"])[-1]


def need_registry() -> None:
    """Skips the test, with the reason, when no registry answers."""
    if reason := registry_refuses():
        pytest.skip(f"no package registry: {reason}")


def need_other_user() -> int:
    """A user who is neither root nor the owner of a checkout; skips where this process may not become one."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    return 65534
