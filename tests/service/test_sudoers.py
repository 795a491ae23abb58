"""The one rule for sudo: exact, checked, and written only where root alone can write."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from rogue_hunter.capture.macos import Tools, save_argv
from rogue_hunter.service.manager import Done, ServiceError, run_command
from rogue_hunter.service.tailspin import Sudoers, owned_by_root, text


def visudo() -> str:
    """visudo, wherever it is."""
    found = shutil.which("visudo", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        pytest.skip("visudo is not installed: the sudoers file was not checked by it")
    return found


FILE = "/var/db/rogue-hunter/capture.tailspin"


@pytest.mark.parametrize("user", ["ann", "ann.b-c_1", "günther", "a b", "ALL=(ALL)", "%admin", "#0", "-x", ""])
def test_the_rule_is_one_exact_command(user: str) -> None:
    """What the forensics run, without a wildcard; a name that could mean something else is written as a number."""
    (comment, rule) = text(user, 501, FILE).decode().splitlines()
    who = user if user in ("ann", "ann.b-c_1") else "#501"
    assert rule == f"{who} ALL=(root) NOPASSWD: /usr/bin/tailspin save -l 30 {FILE}"
    assert rule.split("NOPASSWD: ")[1].split(" ") == save_argv(Tools(), FILE)[2:]
    assert comment.startswith("# ") and not set("*?[]!\\,:=") & set(rule.split("NOPASSWD: ")[1])


def test_visudo_takes_it(tmp_path: Path) -> None:
    """Both ways of naming the user."""
    program_ = visudo()
    for user in ("ann", "a b"):
        (tmp_path / "rule").write_bytes(text(user, 501, FILE))
        done = subprocess.run([program_, "-cf", str(tmp_path / "rule")], check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", ["/var/db/rogue-hunter/*", "/a b", "relative", "/x/../etc/shadow", "/x,y", "/a\nb",
                                  ""])
def test_paths_that_mean_more_are_refused(file: str) -> None:
    """A wildcard, a space, a way up, a second line."""
    with pytest.raises(ServiceError):
        text("ann", 501, file)


def sudoers(tmp_path: Path, run: Callable[[Sequence[str]], Done],
            check: Callable[[str], None] = lambda _: None) -> Sudoers:
    """The rule, put below tmp_path by programs run without sudo."""
    (tmp_path / "etc").mkdir(exist_ok=True)
    return Sudoers("ann", 501, str(tmp_path / "rogue-hunter" / "capture.tailspin"), run,
                   str(tmp_path / "etc" / "rogue-hunter"), [], "visudo", check)


def test_the_rule_is_checked_before_it_is_in_place(tmp_path: Path) -> None:
    """Twice: as it was written, and as root reads it; under a name that sudo passes over until it is renamed."""
    if os.geteuid() != 0:
        pytest.skip("installing as root needs root")
    calls: list[Sequence[str]] = []

    def run(argv: Sequence[str]) -> Done:
        calls.append(argv)
        if argv[0] == "visudo":
            assert Path(argv[-1]).read_bytes().endswith(b"tailspin save -l 30 " + str(
                tmp_path / "rogue-hunter" / "capture.tailspin").encode() + b"\n")
            return Done(0, "parsed OK", "")
        return run_command(argv)

    made = sudoers(tmp_path, run)
    for _ in range(2):
        (said,) = made.install()
        assert "ann ALL=(root) NOPASSWD:" in said
    assert [p.name for p in (tmp_path / "etc").iterdir()] == ["rogue-hunter"]
    info = (tmp_path / "etc" / "rogue-hunter").stat()
    assert (info.st_mode & 0o7777, info.st_uid, info.st_gid) == (0o440, 0, 0)
    assert (tmp_path / "rogue-hunter").stat().st_mode & 0o777 == 0o755
    order = [argv[0].rsplit("/", 1)[-1] for argv in calls[:5]]
    assert order == ["visudo", "install", "install", "visudo", "mv"]
    assert calls[3][-1].endswith("rogue-hunter.new")
    (tmp_path / "rogue-hunter" / "capture.tailspin").write_text("x")
    made.uninstall()
    assert list((tmp_path / "etc").iterdir()) == [] and not (tmp_path / "rogue-hunter").exists()
    assert made.uninstall() == []


@pytest.mark.parametrize("bad", [0, 1])
def test_a_rule_that_visudo_refuses_is_not_installed(tmp_path: Path, bad: int) -> None:
    """At either look; what was there stays, and nothing is left beside it."""
    if os.geteuid() != 0:
        pytest.skip("installing as root needs root")
    looks = 0

    def run(argv: Sequence[str]) -> Done:
        nonlocal looks
        if argv[0] == "visudo":
            looks += 1
            return Done(1 if looks == bad + 1 else 0, "", ">>> syntax error")
        return run_command(argv)

    made = sudoers(tmp_path, run)
    (tmp_path / "etc" / "rogue-hunter").write_text("before")
    with pytest.raises(ServiceError, match="syntax error"):
        made.install()
    assert [(p.name, p.read_text()) for p in (tmp_path / "etc").iterdir()] == [("rogue-hunter", "before")]


def test_root_writes_only_where_root_alone_can(tmp_path: Path) -> None:
    """A directory of its own below directories of root's: /tmp is writable for all users, and the mode of / must not be changed."""
    owned_by_root("/var/db/rogue-hunter")
    for directory in ("/", "/var/db", "/tmp/rogue-hunter", f"{tmp_path}/rogue-hunter"):
        with pytest.raises(ServiceError):
            owned_by_root(directory)

    def run(argv: Sequence[str]) -> Done:
        raise AssertionError(argv)

    with pytest.raises(ServiceError):
        sudoers(tmp_path, run, owned_by_root).install()
