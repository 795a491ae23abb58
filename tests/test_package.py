"""A command is whole or not there: module, entry point, launcher, page; and every way of installing gives the same."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.test_house import FILES, import_statements
from tests.tools.launchers import REPO, need_registry

PROJECT: dict[str, Any] = tomllib.loads((REPO / "pyproject.toml").read_text())
SCRIPTS: dict[str, str] = PROJECT["project"]["scripts"]
PAGES = sorted(path for path in (REPO / "man").glob("*.[1-9]"))
LOCKS = (REPO / "bin" / "requirements.lock", REPO / "tests" / "requirements.lock")
TOP_LEVEL = {"pyproject.toml", "bin", "rogue_hunter", "launchd", "tests", "man", "README.md"}


def tracked(*paths: str) -> list[str]:
    """The files of the checkout, as git knows them, or as they lie in an unpacked archive."""
    if (REPO / ".git").exists():
        # The tree may be someone else's: that is no reason not to list it.
        git = ["git", "-c", f"safe.directory={REPO}", "ls-files", "-z", "--", *paths]
        listed = subprocess.run(git, cwd=REPO, capture_output=True, text=True, check=True)
        return [name for name in listed.stdout.split("\0") if name and (REPO / name).exists()]
    files = (path for start in paths or (".",) for path in (REPO / start).rglob("*") if path.is_file())
    names = (path.relative_to(REPO) for path in files)
    made = {"__pycache__", "dist", "build"}
    return [str(name) for name in names if not any(part.startswith(".") or part in made for part in name.parts)]


def pins(lock: Path) -> dict[str, tuple[Version, list[str]]]:
    """Canonical name -> version and hashes of every line of a lock file; anything else in it is an error."""
    found: dict[str, tuple[Version, list[str]]] = {}
    for line in lock.read_text().replace("\\\n", " ").splitlines():
        words = line.split()
        name, version = words[0].split("==")
        hashes = [word for word in words if word.startswith("--hash=")]
        marker = " ".join(word for word in words[1:] if not word.startswith("--hash="))
        assert not marker or marker.startswith(";"), line
        found[canonicalize_name(name)] = Version(version), hashes
    return found


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_command_is_a_module_an_entry_point_a_launcher_and_a_page(script: str) -> None:
    """rh-NAME is rogue_hunter.cli.NAME:main, bin/rh-NAME and man/rh-NAME.1, which the wheel carries."""
    name = script.removeprefix("rh-")
    assert SCRIPTS[script] == f"rogue_hunter.cli.{name}:main"
    assert callable(import_module(f"rogue_hunter.cli.{name}").main)
    launcher = REPO / "bin" / script
    assert launcher.is_file() and os.access(launcher, os.X_OK)
    assert (REPO / "man" / f"{script}.1").is_file()


def test_bin_holds_nothing_else() -> None:
    own = {"_env.sh", "rh-check", "requirements.lock"}
    assert {Path(name).name for name in tracked("bin")} == own | set(SCRIPTS)


def test_every_manual_page_is_of_a_command_or_of_the_whole_and_is_shipped() -> None:
    """A page without a command, or one that the wheel leaves behind, is a mistake in pyproject.toml."""
    names = {path.name for path in PAGES}
    assert names == {f"{script}.1" for script in SCRIPTS} | {"rogue-hunter.5", "rogue-hunter.7"}
    shared: Mapping[str, str] = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    pages = {source: target for source, target in shared.items() if source.startswith("man/")}
    assert pages == {f"man/{name}": f"share/man/man{name[-1]}/{name}" for name in names}


def test_the_top_level_is_fixed() -> None:
    """Nothing but the agreed entries and dot files lies at the top."""
    top = {name.split("/", 1)[0] for name in tracked()}
    assert {name for name in top if not name.startswith(".")} <= TOP_LEVEL


@pytest.mark.parametrize("lock", LOCKS, ids=["run", "tests"])
def test_a_lock_file_pins_with_hashes_and_names_no_registry(lock: Path) -> None:
    """Every package has an exact version and its hashes; where packages come from is the machine's affair."""
    assert "://" not in lock.read_text()
    for name, (_, hashes) in pins(lock).items():
        assert hashes, name
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", each) for each in hashes), name


@pytest.mark.parametrize("lock", LOCKS, ids=["run", "tests"])
def test_a_lock_file_satisfies_the_ranges(lock: Path) -> None:
    """A range that was raised in pyproject.toml, and a lock file that was not remade, is noticed."""
    extras: Mapping[str, list[str]] = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"], *extras["metrics"], *extras["tui"]]
    if lock.parent.name == "tests":
        wanted += [*extras["mcp"], *extras["fleet"]]
        lines = (REPO / "tests" / "requirements.in").read_text().splitlines()
        wanted += [line for line in lines if line and not line.startswith("#")]
    held = pins(lock)
    for requirement in map(Requirement, wanted):
        version, _ = held[canonicalize_name(requirement.name)]
        assert version in requirement.specifier, requirement.name
    assert not {canonicalize_name(Requirement(each).name) for each in extras["gpu"]} & set(held)


def test_the_tests_run_with_the_versions_that_are_shipped() -> None:
    run, tests = map(pins, LOCKS)
    assert {name: version for name, (version, _) in run.items()} == {name: tests[name][0] for name in run}


@pytest.mark.slow
def test_only_declared_libraries_are_imported() -> None:
    """Every import of the package is its own, the standard library's, or a dependency that pyproject.toml names."""
    project = PROJECT["project"]
    named = [*project["dependencies"], *(each for extra in project["optional-dependencies"].values() for each in extra)]
    modules = {canonicalize_name(Requirement(each).name).replace("-", "_") for each in named}
    modules = (modules - {"nvidia_ml_py", "nats_py"}) | {"pynvml", "nats", "rogue_hunter"}
    for path in FILES:
        for node in import_statements(path):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            foreign = {name.split(".")[0] for name in names} - modules - sys.stdlib_module_names
            assert not foreign, f"{path.relative_to(REPO)} imports {foreign}"


def test_no_registry_is_named_anywhere() -> None:
    """Neither code nor documents say where packages come from."""
    hosts = [b"py" + b"pi.org", b"python" + b"hosted.org", b"npm" + b"js.org"]
    for name in tracked():
        text = (REPO / name).read_bytes()
        assert not [host for host in hosts if host in text], name


@pytest.fixture(scope="session")
def wheel(once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """The wheel, built from the checkout as it is, without asking a registry for the build's tools."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d"]
    (path,) = once("wheel", lambda place: run([*build, str(place)], cwd=REPO)).glob("rogue_hunter-*.whl")
    return path


def test_the_wheel_holds_the_package_the_commands_and_the_pages(wheel: Path) -> None:
    """Every file of the package, data too; every command; every page in its section; and nothing of the tests."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        (entries,) = (name for name in names if name.endswith(".dist-info/entry_points.txt"))
        described, commands = archive.read(metadata).decode(), archive.read(entries).decode()
    info = metadata.removesuffix(".dist-info/METADATA")
    assert set(tracked("rogue_hunter")) <= names
    assert {name.split("/", 1)[0] for name in names} == {"rogue_hunter", f"{info}.dist-info", f"{info}.data"}
    assert dict(line.split(" = ") for line in commands.splitlines() if " = " in line) == SCRIPTS
    shipped = {name.removeprefix(f"{info}.data/data/") for name in names if "/share/man/" in name}
    assert shipped == {f"share/man/man{page.name[-1]}/{page.name}" for page in PAGES}
    version = import_module("rogue_hunter").__version__
    assert f"\nVersion: {version}\n" in described
    assert "\nRequires-Python: >=3.11\n" in described
    assert "\nLicense-Expression: MIT\n" in described
    assert f"{info}.dist-info/licenses/rogue_hunter/LICENSE" in names


def test_the_readme_ends_with_the_licence_that_the_package_carries() -> None:
    licence = (REPO / "rogue_hunter" / "LICENSE").read_text()
    assert licence.startswith("MIT License\n\nCopyright (c)")
    assert (REPO / "README.md").read_text().endswith(licence.partition("\n\n")[2])


def install_by_pip(wheel: Path, place: Path) -> tuple[Path, Path]:
    """Into a virtual environment."""
    prefix = place / "env"
    run([sys.executable, "-m", "venv", "--without-pip", str(prefix)])
    run([sys.executable, "-m", "pip", "--python", str(prefix / "bin" / "python"), "install", "-q", "--no-compile", str(wheel)])
    return prefix / "bin", prefix / "share" / "man"


def install_by_pipx(wheel: Path, place: Path) -> tuple[Path, Path]:
    """With its commands and pages linked into the user's directories. Skips where pipx has no ensurepip to start from."""
    if find_spec("ensurepip") is None:
        pytest.skip("pipx needs ensurepip (Debian: python3-venv)")
    environ = {"PIPX_HOME": place / "home", "PIPX_BIN_DIR": place / "bin", "PIPX_MAN_DIR": place / "man"}
    run([sys.executable, "-m", "pipx", "install", "--backend", "pip", "--pip-args=--no-compile", "--python", sys.executable, str(wheel)], environ)
    return place / "bin", place / "man"


def install_by_uv(wheel: Path, place: Path) -> tuple[Path, Path]:
    """As a tool: its commands are linked, its pages stay in the tool's environment."""
    environ = {"UV_TOOL_DIR": place / "tools", "UV_TOOL_BIN_DIR": place / "bin"}
    # uv brings certificates of its own; a machine behind a proxy has others, which the other two use.
    uv = ["env", "UV_SYSTEM_CERTS=1", sys.executable, "-m", "uv"]
    run([*uv, "tool", "install", "-q", "--python", sys.executable, str(wheel)], environ)
    return place / "bin", place / "tools" / "rogue-hunter" / "share" / "man"


def run(command: list[str], environ: Mapping[str, Path] | None = None, cwd: Path | None = None) -> None:
    more = {name: str(path) for name, path in (environ or {}).items()}
    done = subprocess.run(
        command, env={**os.environ, **more}, capture_output=True, text=True, timeout=280, check=False,
        stdin=subprocess.DEVNULL, cwd=cwd,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("install", [install_by_pip, install_by_pipx, install_by_uv])
def test_every_way_of_installing_gives_the_same(wheel: Path, tmp_path: Path, install: Any) -> None:
    """pip, pipx and uv: the same commands and pages. After pip each command starts, after the others the first and the last
    (RH_LONG: each)."""
    need_registry()
    commands, pages = install(wheel, tmp_path)
    assert {path.name for path in commands.glob("rh-*")} == set(SCRIPTS)
    assert {path.name for path in pages.rglob("*.[1-9]")} == {path.name for path in PAGES}
    tried = list(SCRIPTS) if install is install_by_pip or "RH_LONG" in os.environ else [min(SCRIPTS), max(SCRIPTS)]
    for name in tried:
        shown = subprocess.run(
            [commands / name, "--version"], capture_output=True, text=True, timeout=60, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert shown.returncode == 0, shown.stderr
        assert import_module("rogue_hunter").__version__ in shown.stdout
    man = shutil.which("man")
    if man is not None:
        page = subprocess.run([man, "-M", pages, "-w", "rh-sample"], capture_output=True, text=True, check=False)
        assert page.stdout.strip().endswith("man1/rh-sample.1"), page.stderr
