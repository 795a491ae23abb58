"""rh-config as it is called: editing, undoing, printing places; control characters in a file's name reach no terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    made.mkdir()
    return made


@pytest.fixture
def config(rh: Run, home: Path) -> Run:
    """rh-config with a home of its own."""
    def run(*args: str, editor: str = "", stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return rh("config", *args, stdin=stdin, HOME=str(home), **({"VISUAL": editor} if editor else {}))

    return run


def editor(home: Path, script: str) -> str:
    """A program that does this to the file that it is given."""
    file = home / "editor"
    file.write_text(f'#!/bin/sh\nfile=$1\n{script}\n')
    file.chmod(0o755)
    return str(file)


def test_an_edit_that_can_be_used_is_put_in_place(config: Run, home: Path) -> None:
    target = home / ".config/rogue-hunter/config.toml"
    done = config("edit", editor=editor(home, 'printf "[system]\\nhz = 2.0\\n" > "$file"'))
    assert done.returncode == 0 and done.stdout.endswith(b": ok\n" + os.fsencode(target) + b"\n"), done
    assert target.read_text() == "[system]\nhz = 2.0\n" and target.stat().st_mode & 0o777 == 0o600
    again = config("edit", editor=editor(home, 'sed "s/hz = 2.0/hz = 4.0/" "$file" > "$file.x" && mv "$file.x" "$file"'))
    assert again.returncode == 0 and "hz = 4.0" in target.read_text()
    assert "hz = 2.0" in target.with_name("config.toml.bak").read_text()


@pytest.mark.parametrize(("script", "code", "words"), [
    (":", 0, b"nothing changed"), ('printf "[system]\\nhz = fast\\n" > "$file"', 78, b"the edited text"),
    ('printf "[nowhere]\\nx = 1\\n" > "$file"', 78, b"nowhere"), ("exit 3", 1, b""),
    ('printf "[[rules]]\\nname = \\"x\\"\\n" > "$file"', 78, b"the edited text"),
])
def test_an_edit_that_cannot_be_used_changes_nothing(config: Run, home: Path, script: str, code: int, words: bytes) -> None:
    assert config("init").returncode == 0
    target = home / ".config/rogue-hunter/config.toml"
    before = target.read_bytes()
    done = config("edit", editor=editor(home, script))
    assert done.returncode == code and words in done.stderr and b"Traceback" not in done.stderr, done
    assert target.read_bytes() == before


def test_what_is_no_text_file_is_not_edited(config: Run, home: Path) -> None:
    """A fifo is not waited for, neither by edit nor for the copy that init --force keeps."""
    target = home / ".config/rogue-hunter/config.toml"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"# \xff\n")
    assert b": not UTF-8\n" in config("edit", editor=editor(home, ":")).stderr
    target.unlink()
    os.mkfifo(target)
    for words in (["edit"], ["init", "--force"]):
        done = config(*words, editor=editor(home, ":"))
        assert done.returncode == 78 and done.stderr.endswith(b": not a regular file\n"), done


def test_going_back_to_the_defaults(config: Run, home: Path) -> None:
    target = home / ".config/rogue-hunter/config.toml"
    assert b"there is no configuration file" in config("reset").stderr
    assert config("init").returncode == 0
    before = target.read_bytes()
    refused = config("reset", stdin=b"n\n")
    assert refused.returncode != 0 and target.read_bytes() == before
    assert config("reset", stdin=b"y\n").returncode == 0 and not target.exists()
    assert target.with_name("config.toml.bak").read_bytes() == before
    assert config("init").returncode == 0 and config("init").returncode == 1
    assert config("reset", "--yes").returncode == 0 and not target.exists()


def test_validate_reads_what_is_there(config: Run, home: Path) -> None:
    assert b"does not exist; the defaults are used" in config("validate").stdout
    assert config("init").returncode == 0
    assert b": ok\n" in config("validate").stdout
    wrong = home / "wrong.toml"
    wrong.write_text("[system]\nhz = true\n")
    done = config("validate", str(wrong))
    assert done.returncode == 78 and done.stderr.count(b"\n") == 1


def test_a_file_s_name_is_data(config: Run, home: Path, clean_env: Mapping[str, str]) -> None:
    """Made harmless for people, byte for byte for programs."""
    strange = home / os.fsdecode(b"\xff\x1b[2J\xc2\x9b31m.toml")
    strange.write_bytes(b"")
    done = config("validate", str(strange))
    assert done.returncode == 0 and not set(done.stdout) & {0x1B, 0x9B} and b"\\x1b[2J" in done.stdout
    place = home / os.fsdecode(b"h\xff\x1b[2J")
    place.mkdir()
    env = {**clean_env, "HOME": str(place)}
    argv = [sys.executable, "-P", "-m", "rogue_hunter", "config", "path"]
    piped = subprocess.run(argv, env=env, capture_output=True, check=True)
    assert piped.stdout.split(b"\n")[0] == b"config\t" + os.fsencode(place) + b"/.config/rogue-hunter/config.toml"
    reader, writer = pty.openpty()
    shown = subprocess.run(argv, env=env, stdout=writer, check=True)
    os.close(writer)
    text = os.read(reader, 65536)
    os.close(reader)
    assert shown.returncode == 0 and b"\x1b" not in text and b"\\x1b[2J" in text
