"""Directories are where the XDG specification says, private, and never those of another user."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rogue_hunter import paths
from rogue_hunter.paths import PathError, own_or_system, private_dir

PLACES: list[tuple[Callable[[], Path], str, str]] = [
    (paths.config_dir, "XDG_CONFIG_HOME", ".config/rogue-hunter"),
    (paths.data_dir, "XDG_DATA_HOME", ".local/share/rogue-hunter"),
    (paths.state_dir, "XDG_STATE_HOME", ".local/state/rogue-hunter"),
    (paths.runtime_dir, "XDG_RUNTIME_DIR", ".local/state/rogue-hunter/run"),
]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for _, variable, _ in PLACES:
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


@pytest.fixture
def umask() -> Iterator[None]:
    """The most careless umask."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize(("place", "variable", "usual"), PLACES)
def test_places(
    place: Callable[[], Path], variable: str, usual: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable where it is absolute, else the usual place below the home directory."""
    assert place() == home / usual
    monkeypatch.setenv(variable, "relative/path")
    assert place() == home / usual
    monkeypatch.setenv(variable, "")
    assert place() == home / usual
    monkeypatch.setenv(variable, "/elsewhere")
    assert place() == Path("/elsewhere/rogue-hunter")


@pytest.mark.parametrize("relative", ["", "here"])
def test_a_home_that_is_no_absolute_path(relative: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The home directory of the user database: below the current directory a history would not be found again."""
    monkeypatch.setenv("HOME", relative)
    assert paths.data_dir() == Path(pwd.getpwuid(os.getuid()).pw_dir) / ".local/share/rogue-hunter"


def test_files(home: Path) -> None:
    """The configuration and the database are in their directories."""
    assert paths.config_file() == home / ".config/rogue-hunter/config.toml"
    assert paths.database() == home / ".local/share/rogue-hunter/rogue-hunter.db"


def test_no_home() -> None:
    """The error for an unknown user without HOME names what to set; XDG variables are enough."""
    env = {"PYTHONPATH": str(Path(paths.__file__).parent.parent), "PATH": os.environ["PATH"]}
    script = (
        "import pwd\ndef nobody(uid): raise KeyError(uid)\npwd.getpwuid = nobody\n"
        "from rogue_hunter import paths\n"
        "try: print(paths.config_file())\nexcept paths.PathError as error: print('said:', error)"
    )
    run = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    assert run.stdout == "said: no home directory: set HOME or XDG_CONFIG_HOME\n"
    run = subprocess.run(
        [sys.executable, "-c", script], env={**env, "XDG_CONFIG_HOME": "/x"}, capture_output=True, text=True, check=True
    )
    assert run.stdout == "/x/rogue-hunter/config.toml\n"


@pytest.mark.usefixtures("umask")
def test_all_that_is_made_is_private(home: Path) -> None:
    """Every directory that was missing is created with mode 0700, with any umask."""
    made = private_dir(home / "a/b/c")
    assert made == home / "a/b/c"
    assert [mode(home / p) for p in ("a", "a/b", "a/b/c")] == [0o700] * 3


def test_strict_umask_takes_nothing_away(home: Path) -> None:
    """A umask that forbids its owner to write does not make a directory that cannot be used."""
    before = os.umask(0o777)
    try:
        private_dir(home / "a/b")
    finally:
        os.umask(before)
    assert mode(home / "a") == mode(home / "a/b") == 0o700


def test_made_twice(home: Path) -> None:
    """What is there and private is left as it is."""
    private_dir(home / "a")
    (home / "a/file").write_text("x")
    private_dir(home / "a")
    assert (home / "a/file").read_text() == "x"


def test_one_that_others_may_look_into_is_closed(home: Path) -> None:
    """0755 becomes 0700; what is above it is not changed."""
    for place in (home / "a", home / "a/rogue-hunter", home / "a/rogue-hunter/run"):
        place.mkdir()
        os.chmod(place, 0o755)
    private_dir(home / "a/rogue-hunter/run")
    assert (mode(home / "a"), mode(home / "a/rogue-hunter")) == (0o755, 0o755)
    assert mode(private_dir(home / "a/rogue-hunter")) == mode(home / "a/rogue-hunter/run") == 0o700


def test_a_directory_that_a_person_named_stays_open(home: Path) -> None:
    """A socket in /run, a log in /var/log, an audit file at home: no other program is locked out."""
    (home / "run").mkdir()
    os.chmod(home / "run", 0o755)
    private_dir(home / "run")
    assert mode(home / "run") == 0o755


@pytest.mark.parametrize("bits", [0o770, 0o707, 0o777, 0o1777])
def test_one_that_others_may_write_to_is_refused(home: Path, bits: int) -> None:
    """What others may have put in there is not trusted."""
    (home / "a").mkdir()
    os.chmod(home / "a", bits)
    with pytest.raises(PathError, match="others may write"):
        private_dir(home / "a")
    assert mode(home / "a") == bits


def test_links_and_files_are_refused(home: Path) -> None:
    """A link, a link that leads nowhere, and a file are not followed or replaced."""
    (home / "real").mkdir(mode=0o700)
    (home / "link").symlink_to(home / "real")
    (home / "dangling").symlink_to(home / "nowhere")
    (home / "file").write_text("x")
    for name in ("link", "dangling", "file", "file/below", "dangling/below"):
        with pytest.raises(PathError):
            private_dir(home / name)
    assert not (home / "nowhere").exists() and (home / "file").read_text() == "x"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory away")
def test_another_owner_is_refused(home: Path) -> None:
    """A directory of another user is not used, even by root."""
    (home / "a").mkdir(mode=0o700)
    os.chown(home / "a", 1000, 1000)
    with pytest.raises(PathError, match="belongs to user 1000"):
        private_dir(home / "a")


def test_place_where_nothing_can_be_made() -> None:
    """An error of the system becomes one line that names the place."""
    with pytest.raises(PathError, match=r"^/proc/rogue-hunter/x: "):
        private_dir(Path("/proc/rogue-hunter/x"))


def test_the_history_of_the_system_is_read_where_the_user_has_none(tmp_path: Path) -> None:
    """Root without an rh-pipe of its own asks the service's."""
    own, system = tmp_path / "own", tmp_path / "system"
    assert own_or_system(own, system) == own
    system.touch()
    assert own_or_system(own, system) == system
    own.symlink_to(tmp_path / "nowhere")
    assert own_or_system(own, system) == own
