"""The lock files are complete, and set-up installs exactly what they pin, with every pip that it may meet."""

import base64
import hashlib
import importlib.metadata
import itertools
import json
import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.tools.launchers import BASE_PYTHON, PYTHON, REPO, Checkout, make_checkout, write_program

RUN, TESTS = REPO / "bin" / "requirements.lock", REPO / "tests" / "requirements.lock"

OLDEST_PIP = "22.3"
"""The oldest supported pip: the first with --python, which bin/_env.sh uses. It runs on Python 3.11 only."""
OLDEST_PIP_HASH = "1daab4b8d3b97d1d763caeb01a4640a2250a0ea899e257b1e44b9eded91e15ab"

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = (("linux", "Linux", "x86_64"), ("linux", "Linux", "aarch64"), ("darwin", "Darwin", "x86_64"),
             ("darwin", "Darwin", "arm64"))
ENVIRONMENTS: list[dict[str, str]] = [
    {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": platform,
     "platform_system": system, "platform_machine": machine, "os_name": "posix", "implementation_name": "cpython",
     "implementation_version": f"{python}.0", "platform_python_implementation": "CPython", "platform_release": "6",
     "platform_version": ""}
    for python, (platform, system, machine) in itertools.product(PYTHONS, PLATFORMS)
]  # fmt: skip
"""Every kind of machine that a lock file has to serve, as marker variables."""

UNUSED = {"chdb-core": ("pandas", "pyarrow")}
"""Distribution -> what it requires for a part of it that no test uses; see tests/requirements.in."""

parsed = cache(Requirement)
"""A line of Requires-Dist, parsed once: each comes thousands of times."""

Lock = Mapping[str, Requirement]
Metadata = Callable[[str], Sequence[str]]


def locked(text: str) -> dict[str, Requirement]:
    """Canonical name -> requirement (one exact version, perhaps a marker) of each entry of a lock file."""
    entries = [line.split("--hash=")[0].strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return {canonicalize_name(entry.name): entry for entry in map(Requirement, entries)}


def version_of(pin: Requirement) -> str:
    (one,) = pin.specifier
    assert one.operator == "==", pin
    return one.version


def roots(lock: Path) -> list[str]:
    """The requirements that a lock file is made from: those of the project, and for the tests their own."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted: list[str] = [*project["dependencies"], *extras["metrics"], *extras["tui"]]
    if lock == TESTS:
        wanted += [*extras["mcp"], *extras["fleet"]]
        lines = (REPO / "tests" / "requirements.in").read_text().splitlines()
        wanted += [line for line in lines if line and not line.startswith("#")]
    return wanted


@cache
def counts(line: str, extra: str, number: int) -> bool:
    """Is the requirement one with this extra, on the machine ENVIRONMENTS[number]?"""
    marker = parsed(line).marker
    return marker is None or marker.evaluate({**ENVIRONMENTS[number], "extra": extra})


@cache
def of_machine(line: str) -> bool:
    """May it depend on the machine? Most depend on an extra only, or on nothing."""
    return any(variable in line for variable in ENVIRONMENTS[0])


def unmet(lock: Lock, wanted: Sequence[str], requires: Metadata) -> list[str]:
    """Each requirement that no entry of the lock satisfies on some platform, as "parent: requirement (where)".

    Starts at `wanted` and at every entry that applies, and follows `requires` (a name's Requires-Dist lines) with the
    extras that are asked for, once in each of ENVIRONMENTS.
    """
    found: set[str] = set()
    for number, environment in enumerate(ENVIRONMENTS):
        applying = {name for name, pin in lock.items() if pin.marker is None or pin.marker.evaluate(environment)}
        where = f"{environment['sys_platform']} {environment['platform_machine']}, Python {environment['python_version']}"
        todo = [("project", each, "") for each in wanted] + [("lock", name, "") for name in applying]
        done: set[tuple[str, str]] = set()
        while todo:
            parent, line, extra = todo.pop()
            if not counts(line, extra, number if of_machine(line) else 0):
                continue
            requirement = parsed(line)
            name = canonicalize_name(requirement.name)
            if name not in applying or not requirement.specifier.contains(version_of(lock[name]), prereleases=True):
                found.add(f"{parent}: {requirement} ({where})")
                continue
            for asked in {"", *requirement.extras}:
                if (name, asked) not in done:
                    done.add((name, asked))
                    todo += [(name, each, asked) for each in requires(name)]
    return sorted(found)


def installed(lock: Lock) -> Metadata:
    """The Requires-Dist lines of the distributions of this environment, which must be those that the lock pins."""

    def requires(name: str) -> Sequence[str]:
        distribution = importlib.metadata.distribution(name)
        assert distribution.version == version_of(lock[name]), f"{name}: run the tests with bin/rh-check"
        return [line for line in distribution.requires or [] if parsed(line).name not in UNUSED.get(name, ())]

    return requires


@pytest.mark.slow
@pytest.mark.parametrize("path", [RUN, TESTS], ids=["run", "tests"])
def test_every_requirement_of_a_locked_distribution_is_in_the_lock(path: Path) -> None:
    """With its extras, on Linux and macOS, Python 3.11 to 3.14: an install from the lock needs no resolver."""
    lock = locked(path.read_text())
    assert len(lock) > 5
    assert unmet(lock, roots(path), installed(lock)) == []


@pytest.mark.slow
def test_an_incomplete_lock_is_found() -> None:
    """Without coverage (asked for as an extra too), and with a version that is too old, the lock is not closed."""
    lock = locked(TESTS.read_text())
    requires = installed(lock)
    wrong = {**lock, "pluggy": Requirement("pluggy==0.1")}
    del wrong["coverage"]
    problems = unmet(wrong, roots(TESTS), lambda name: [] if name == "pluggy" else requires(name))
    for start in ("pytest-cov: coverage[toml]", "project: coverage", "pytest: pluggy"):
        assert any(line.startswith(start) for line in problems), problems


def test_a_requirement_of_one_platform_or_extra_counts_there_only() -> None:
    """Markers are evaluated for each platform, and an extra counts where it is asked for."""
    metadata = {"one": ["two[fast]", "mac-only; sys_platform == 'darwin'", "old; python_version < '3.12'"],
                "two": ["three; extra == 'fast'", "four; extra == 'slow'", "win; os_name == 'nt'"]}
    lock = locked("one==1\ntwo==1\nthree==1 ; sys_platform == 'linux'\n")
    problems = unmet(lock, ["one"], lambda name: metadata.get(name, []))
    assert {line.split(" (")[0] for line in problems} == {
        "one: mac-only; sys_platform == \"darwin\"", "one: old; python_version < \"3.12\"",
        "two: three; extra == \"fast\""}
    assert not [line for line in problems if "three" in line and "linux" in line]
    assert not [line for line in problems if "old" in line and "3.12 " in line]


# A local index: each package in the pinned version and in a newer one, and plugin asks for an extra of cover, as
# pytest-cov asks for coverage[toml].
OFFERED = {"cover": ["tool; extra == 'toml'"], "plugin": ["cover[toml]>=1.0"], "tool": []}
PINNED, NEWER = "1.0", "2.0"


def make_wheel(directory: Path, name: str, version: str, requires: Sequence[str]) -> Path:
    """A wheel of one module, written without a build tool."""
    info = f"{name}-{version}.dist-info"
    lines = [f"Requires-Dist: {each}" for each in requires]
    lines += ["Provides-Extra: toml"] if any("extra ==" in each for each in requires) else []
    files = {
        f"{name}.py": f"version = '{version}'\n",
        f"{info}/METADATA": "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines, ""]),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},"
              f"{len(text)}" for path, text in files.items()]  # fmt: skip
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""])
    path = directory / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in files.items():
            archive.writestr(member, text)
    return path


@dataclass(frozen=True)
class Index:
    """A directory that pip and uv read as a package index, and the lock of its older versions."""

    url: str
    lock: str


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """Every package in two versions; the lock pins the older one."""
    lines: list[str] = []
    for name, requires in OFFERED.items():
        place = tmp_path / "index" / name
        place.mkdir(parents=True)
        wheels = [make_wheel(place, name, version, requires) for version in (PINNED, NEWER)]
        links = [f'<a href="{wheel.name}">{wheel.name}</a>' for wheel in wheels]
        (place / "index.html").write_text(f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>")
        lines.append(f"{name}=={PINNED} --hash=sha256:{hashlib.sha256(wheels[0].read_bytes()).hexdigest()}\n")
    return Index((tmp_path / "index").as_uri(), "".join(lines))


def pinned_pip(place: Path) -> Path:
    """The wheel of the oldest supported pip. Skips where this Python is too new for it or no registry answers."""
    if sys.version_info >= (3, 12):
        pytest.skip(f"pip {OLDEST_PIP} needs Python 3.11; on newer ones the bundled pip is the oldest")
    (place / "pip.lock").write_text(f"pip=={OLDEST_PIP} --hash=sha256:{OLDEST_PIP_HASH}\n")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--require-hashes", "-r", place / "pip.lock", "-d",
         place],
        capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"pip {OLDEST_PIP} cannot be downloaded: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    (wheel,) = place.glob("pip-*.whl")
    return wheel


def bundled_pip(_: Path) -> Path:
    """The wheel of the pip that this Python brings with it: what most users have."""
    asked = subprocess.run(
        [BASE_PYTHON, "-I", "-c", "import ensurepip as e, pathlib as p; print(p.Path(e.__file__).parent, e.version())"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if asked.returncode:
        pytest.skip(f"{BASE_PYTHON} has no ensurepip")
    place, version = asked.stdout.split()
    for directory in (Path(place) / "_bundled", Path("/usr/share/python-wheels")):
        if wheels := list(directory.glob(f"pip-{version}-*.whl")):
            return wheels[0]
    pytest.skip(f"ensurepip of {BASE_PYTHON} keeps its wheel elsewhere")


def newest_pip(_: Path) -> Path:
    """The directory that holds the pip of the tests' lock."""
    return Path(str(importlib.metadata.distribution("pip").locate_file("")))


def checkout_with(pip: Path, index: Index, place: Path) -> Checkout:
    """A checkout that pins the packages of the local index, and whose Python has this pip and no uv beside it."""
    checkout = make_checkout(place)
    if pip.is_file():   # unpacked, so that it is compiled once and not at each start
        zipfile.ZipFile(pip).extractall(place / "pip")
        pip = place / "pip"
    (checkout.root / "bin" / "requirements.lock").write_text(index.lock)
    (checkout.programs / "uv").unlink()
    instead = f"*'-m pip '*) shift 2; exec '{BASE_PYTHON}' '{pip}/pip' \"$@\" ;;"
    write_program(checkout.programs / "python3", PYTHON.format(python=BASE_PYTHON, cases=instead))
    return checkout


def environ(checkout: Checkout, index: Index) -> dict[str, str]:
    """Variables of a set-up that reads the local index only and ignores this machine's pip and uv configuration."""
    return checkout.environ(PIP_CONFIG_FILE="/dev/null", PIP_INDEX_URL=index.url, PIP_NO_CACHE_DIR="1",
                            UV_INDEX_URL=index.url, UV_NO_CONFIG="1", UV_NO_CACHE="1", UV_PYTHON_DOWNLOADS="never")


def versions(checkout: Checkout) -> dict[str, str]:
    """Name -> version of each distribution in the environment, without pip and setuptools."""
    code = ("import importlib.metadata as m, json\n"
            "print(json.dumps({d.name: d.version for d in m.distributions() if d.name not in ('pip', 'setuptools')}))")
    found = checkout.run(checkout.root / ".venv" / "bin" / "python", "-I", "-c", code)
    names: dict[str, str] = json.loads(found.stdout)
    return names


OLD_PIPS = [pytest.param(pinned_pip, marks=pytest.mark.network, id="oldest"), pytest.param(bundled_pip, id="bundled")]


@pytest.mark.slow
@pytest.mark.parametrize("pip", [*(OLD_PIPS if "RH_LONG" in os.environ else OLD_PIPS[sys.version_info >= (3, 12):][:1]),
                                 pytest.param(newest_pip, id="newest")])
def test_every_pip_installs_the_pinned_versions_beside_newer_ones(
    pip: Callable[[Path], Path], index: Index, tmp_path: Path
) -> None:
    """bin/_env.sh with the oldest pip that runs here and the newest, with RH_LONG the bundled one too, from an index with
    newer versions."""
    checkout = checkout_with(pip(tmp_path), index, tmp_path)
    done = checkout.run(checkout.sample, "--exit", "0", environ=environ(checkout, index))
    assert done.returncode == 0, done.stderr
    assert versions(checkout) == dict.fromkeys(OFFERED, PINNED)


@pytest.mark.slow
@pytest.mark.skipif("RH_LONG" not in os.environ, reason="a check of the check before it: RH_LONG")
@pytest.mark.parametrize("pip", OLD_PIPS[:1])
def test_without_no_deps_a_newer_version_breaks_the_setup(
    pip: Callable[[Path], Path], index: Index, tmp_path: Path
) -> None:
    """Why bin/_env.sh uses --no-deps: pip resolves cover[toml] beside the pinned cover, and finds no hash for it."""
    wheel = pip(tmp_path)
    if int(wheel.name.split("-")[1].split(".")[0]) >= 25:
        pytest.skip(f"{wheel.name} takes the pinned version for cover[toml] too")
    checkout = checkout_with(wheel, index, tmp_path)
    script = checkout.root / "bin" / "_env.sh"
    assert "--no-deps" in script.read_text()
    script.write_text(script.read_text().replace("--no-deps ", ""))
    done = checkout.run(checkout.sample, "--exit", "0", environ=environ(checkout, index))
    assert done.returncode == 69, versions(checkout)
    assert "all requirements must have their versions pinned" in done.stderr


@pytest.mark.slow
def test_uv_installs_the_pinned_versions_beside_newer_ones(index: Index, tmp_path: Path) -> None:
    """The installer that bin/_env.sh prefers when it is installed."""
    checkout = checkout_with(newest_pip(tmp_path), index, tmp_path)
    write_program(checkout.programs / "uv", f"#!/bin/sh\nexec '{sys.executable}' -m uv \"$@\"\n")
    write_program(checkout.programs / "python3", f"#!/bin/sh\nexec '{BASE_PYTHON}' \"$@\"\n")
    done = checkout.run(checkout.sample, "--exit", "0", environ=environ(checkout, index))
    assert done.returncode == 0, done.stderr
    assert versions(checkout) == dict.fromkeys(OFFERED, PINNED)


def test_a_newer_version_that_the_lock_does_not_pin_is_found(index: Index) -> None:
    """The lock without the package that is needed through another one only: the check for closedness names it."""
    lock = locked(index.lock)
    assert unmet(lock, ["plugin"], lambda name: OFFERED[name]) == []
    del lock["tool"]
    assert {line.split(" (")[0] for line in unmet(lock, ["plugin"], lambda name: OFFERED[name])} == {
        'cover: tool; extra == "toml"'}
