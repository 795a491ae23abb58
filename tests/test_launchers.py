"""bin/: the environment is made once, by any of the launchers; the command gets its input and arguments and nothing else."""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.launchers import (
    BASE_PYTHON,
    PYTHON,
    REPO,
    Checkout,
    make_checkout,
    need_other_user,
    need_registry,
    write_program,
)

LAUNCHERS = sorted(path for path in (REPO / "bin").glob("rh-*") if path.name != "rh-check")


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A checkout without an environment."""
    return make_checkout(tmp_path)


@pytest.fixture
def open_checkout() -> Iterator[Checkout]:
    """A checkout that other users may enter (pytest's own directories are its user's alone)."""
    place = Path(tempfile.mkdtemp(prefix="rh-launchers-"))
    place.chmod(0o755)
    yield make_checkout(place)
    shutil.rmtree(place)


def report(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    """What the started package says of itself."""
    assert done.returncode == 0, done.stderr
    seen: dict[str, object] = json.loads(done.stdout)
    return seen


def launch(checkout: Checkout, *words: str, **more: str) -> subprocess.Popen[str]:
    """A launcher left running, leader of a process group of its own."""
    return subprocess.Popen(
        [str(checkout.sample), *words], env=checkout.environ(**more), text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A named pipe at which the stand-in for uv waits in the middle of a set-up."""
    os.mkfifo(tmp_path / "gate")
    return tmp_path / "gate"


def reach(gate: Path) -> int:
    """Blocks until a set-up waits at the gate; a line written to the descriptor lets it continue."""
    return os.open(gate, os.O_WRONLY)


def let_go(descriptor: int) -> None:
    os.write(descriptor, b"\n")
    os.close(descriptor)


def test_the_launchers_are_all_alike_and_executable() -> None:
    """A new command's launcher is a copy: nothing in one of them can differ by mistake."""
    assert len(LAUNCHERS) >= 7
    texts = {path.read_bytes() for path in LAUNCHERS}
    assert len(texts) == 1
    assert all(os.access(path, os.X_OK) and not path.is_symlink() for path in LAUNCHERS)


def test_first_use_makes_the_environment_and_the_next_does_not(checkout: Checkout) -> None:
    """The first use says what it does, on stderr alone; from then on there is silence."""
    first = checkout.run(checkout.sample, "--report")
    assert report(first)["prefix"] == str(checkout.root / ".venv")
    assert "first use" in first.stderr and "noise of uv" in first.stderr
    assert checkout.calls("uv venv") == checkout.calls("uv pip install") == 1
    assert "--require-hashes" in checkout.log.read_text()
    second = checkout.run(checkout.sample, "--report")
    assert report(second)["argv"] == ["sample", "--report"]
    assert second.stderr == ""
    assert checkout.calls() == 1


@pytest.mark.parametrize(
    "shell", [name for name in ("sh", "dash", "bash", "ksh", "mksh", "yash", "busybox") if shutil.which(name)]
)
def test_every_posix_shell_will_do(checkout: Checkout, shell: str) -> None:
    """The launchers ask for no more than a POSIX shell; each that is installed is tried."""
    found = str(shutil.which(shell))
    command = [found, "sh"] if shell == "busybox" else [found]
    assert report(checkout.run(*command, checkout.sample, "--report"))["argv"] == ["sample", "--report"]
    assert checkout.run(*command, checkout.sample, "--exit", "7").returncode == 7


@pytest.mark.slow
def test_each_launcher_starts_the_command_it_is_named_after(checkout: Checkout) -> None:
    for launcher in LAUNCHERS:
        done = checkout.run(checkout.root / "bin" / launcher.name, "--report")
        assert report(done)["argv"] == [launcher.name.removeprefix("rh-"), "--report"]


def test_three_at_once_make_it_once(checkout: Checkout, gate: Path) -> None:
    """A pipeline on a fresh checkout: one launcher works, the others wait for it, all three run."""
    started = [launch(checkout, "--report", STUB_GATE=str(gate)) for _ in range(3)]
    try:
        held = reach(gate)
        waiting = [done for done in started if "waiting for another set-up" in first_line(done)]
        assert len(waiting) == 2
        let_go(held)
        for process in started:
            out, _ = process.communicate(timeout=60)
            assert process.returncode == 0
            assert json.loads(out)["prefix"] == str(checkout.root / ".venv")
    finally:
        end(*started)
    assert checkout.calls("uv venv") == checkout.calls("uv pip install") == 1


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return process.stderr.readline()


def end(*processes: subprocess.Popen[str]) -> None:
    """Ends what a failed test left behind."""
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_a_killed_set_up_is_done_again_without_delay(checkout: Checkout, gate: Path) -> None:
    """kill -9 of a whole pipeline in mid set-up: what is half made is not used, and nothing stays locked."""
    first = launch(checkout, "--report", STUB_GATE=str(gate))
    held = reach(gate)      # closed only when it has ended: the installer would continue
    end(first)
    os.close(held)
    assert (checkout.root / ".venv" / "bin" / "python").exists()
    second = checkout.run(checkout.sample, "--report")
    assert report(second)["prefix"] == str(checkout.root / ".venv")
    assert "waiting" not in second.stderr
    assert checkout.calls("uv venv") == 2


def test_an_installer_that_outlives_its_launcher_is_waited_for(checkout: Checkout, gate: Path) -> None:
    """kill -9 of the launcher alone: its installer still writes, so no other launcher does until it ends."""
    first = launch(checkout, "--report", STUB_GATE=str(gate))
    held = reach(gate)
    os.kill(first.pid, signal.SIGKILL)
    first.wait(timeout=60)
    second = launch(checkout, "--report")
    try:
        assert "waiting for another set-up" in first_line(second)
        assert checkout.calls("uv venv") == 1
        let_go(held)
        out, _ = second.communicate(timeout=60)
        assert json.loads(out)["prefix"] == str(checkout.root / ".venv")
    finally:
        end(first, second)
    assert checkout.calls("uv venv") <= 2


@pytest.mark.slow
def test_a_failed_set_up_is_unavailable_and_tried_again(checkout: Checkout) -> None:
    """Exit 69 and a line on stderr; the next start tries again."""
    # Neither uv nor pip gets the packages: the stand-in fails, and the Python has no pip.
    write_program(checkout.programs / "python3", PYTHON.format(python=BASE_PYTHON, cases="*'-m pip'*) exit 1 ;;\n"
                  "*'-m venv'*) exit 1 ;;\n*'-m virtualenv'*) exit 1 ;;"))
    failed = checkout.run(checkout.sample, "--report", environ=checkout.environ(STUB_STATUS="3"))
    assert failed.returncode == 69
    assert failed.stdout == ""
    assert failed.stderr.endswith("rogue-hunter: set-up failed\n")
    assert "apt install python3-venv" in failed.stderr
    write_program(checkout.programs / "python3", f"#!/bin/sh\nexec '{BASE_PYTHON}' \"$@\"\n")
    assert report(checkout.run(checkout.sample, "--report"))["argv"] == ["sample", "--report"]


def test_a_uv_that_fails_leaves_the_work_to_pip(checkout: Checkout) -> None:
    """A version manager's shim called uv can lead nowhere; the interpreter's own pip then fills the environment."""
    write_program(checkout.programs / "uv", "#!/bin/sh\nexit 127\n")
    write_program(checkout.programs / "python3", PYTHON.format(python=BASE_PYTHON, cases="""\
*'-m pip --python'*) echo "pip $* USER=$PIP_USER TARGET=${PIP_TARGET-none}" >>"$STUB_LOG" ;;"""))
    done = checkout.run(checkout.sample, "--report", environ=checkout.environ(PIP_TARGET="elsewhere", PIP_USER="1"))
    assert report(done)["prefix"] == str(checkout.root / ".venv")
    installs = [line for line in checkout.log.read_text().splitlines() if " install " in line]
    assert len(installs) == 1
    assert "--require-hashes" in installs[0] and "--compile" in installs[0]
    assert installs[0].endswith("USER=0 TARGET=none")


@pytest.mark.parametrize("uv, pip, installers", [("0", "0", ["pip", "uv"]), ("1", "0", ["pip", "uv", "pip"]), ("0", "1", ["pip", "pip"])])
def test_pip_installs_uv_and_uv_the_packages_of_the_tests(checkout: Checkout, uv: str, pip: str, installers: list[str]) -> None:
    """Of the tests' lock file pip installs uv alone, with its hashes, and that uv the rest. What it cannot install is left to
    pip, and set-up fails when pip cannot either."""
    (checkout.programs / "uv").unlink()
    own = write_program(checkout.root.parent / "own-uv", '#!/bin/sh\necho "uv $*" >>"$STUB_LOG"\nexit "$STUB_UV"\n')
    write_program(checkout.programs / "python3", PYTHON.format(python=BASE_PYTHON, cases="""\
*'-m pip --python'*--version) ;;
*'-m pip --python'*) for lock; do :; done
    echo "pip $*" >>"$STUB_LOG"
    case $lock in */lock-uv) cp "$lock" "$STUB_LOG.uv"; cp "$STUB_OWN" "${lock%/.rogue-hunter/*}/bin/uv" ;; esac
    exit "$STUB_PIP" ;;"""))
    done = checkout.run(checkout.root / "bin" / "rh-check", "--help-me-not", environ=checkout.environ(
        STUB_OWN=str(own), STUB_UV=uv, STUB_PIP=pip))
    assert (done.returncode == 69) is (pip != "0") is done.stderr.endswith("rogue-hunter: set-up failed\n"), done.stderr
    installs = checkout.log.read_text().splitlines()
    assert [line.split()[0] for line in installs] == installers
    assert all("--no-deps --require-hashes -r " in line and "--no-compile" in line for line in installs)
    assert [line.rpartition("/")[2] for line in installs] == ["lock-uv", *["requirements.lock"] * (len(installs) - 1)]
    entries = re.split(r"^(?=\w)", (checkout.root / "tests" / "requirements.lock").read_text(), flags=re.MULTILINE)
    assert Path(f"{checkout.log}.uv").read_text() in entries and Path(f"{checkout.log}.uv").read_text().startswith("uv==")


def test_a_python_without_pip_and_ensurepip_is_explained(checkout: Checkout) -> None:
    """Debian's python3 without python3-venv and python3-pip: one clear line names the package."""
    (checkout.programs / "uv").unlink()
    bare = """\
*'-m venv'*) for place; do :; done; mkdir -p "$place/bin"; printf '#!/bin/sh\\nexit 1\\n' >"$place/bin/python"
             "$0" -c 'import os, sys; os.chmod(sys.argv[1], 0o755)' "$place/bin/python" ;;
*'-m pip'*|*'-m virtualenv'*) exit 1 ;;"""
    write_program(checkout.programs / "python3", PYTHON.format(python=BASE_PYTHON, cases=bare))
    done = checkout.run(checkout.sample)
    assert done.returncode == 69
    assert "has neither pip nor ensurepip" in done.stderr
    assert "apt install python3-venv" in done.stderr


def test_an_rh_python_that_is_no_python_is_named(checkout: Checkout) -> None:
    """A program that succeeds and prints nothing (/bin/true) as well as one that fails."""
    for program in ("/bin/true", "/bin/false", "/no/such/file"):
        done = checkout.run(checkout.sample, environ=checkout.environ(RH_PYTHON=program))
        assert done.returncode == 69
        assert done.stderr.startswith(f"rogue-hunter: RH_PYTHON: {program} cannot be run"), done.stderr


def test_a_failure_of_ensurepip_is_not_taken_for_its_absence(checkout: Checkout) -> None:
    """A full disk or memory: what ensurepip printed is shown, and no package is recommended that is installed already."""
    (checkout.programs / "uv").unlink()
    broken = """\
*'-m venv'*) for place; do :; done; mkdir -p "$place/bin"
             printf '#!/bin/sh\ncase "$*" in *"-m ensurepip"*) echo no memory >&2; exit 1 ;; esac\n' >"$place/bin/python"
             "$0" -c 'import os, sys; os.chmod(sys.argv[1], 0o755)' "$place/bin/python" ;;
*'-m pip'*|*'-m virtualenv'*) exit 1 ;;"""
    write_program(checkout.programs / "python3", PYTHON.format(python=BASE_PYTHON, cases=broken))
    done = checkout.run(checkout.sample)
    assert done.returncode == 69
    assert "no memory" in done.stderr and "apt install" not in done.stderr


@pytest.mark.parametrize("link", ["absolute", "relative", "chain"])
def test_a_symbolic_link_from_elsewhere_finds_the_checkout(checkout: Checkout, tmp_path: Path, link: str) -> None:
    """`ln -s CHECKOUT/bin/rh-sample ~/bin/any-name` is an installation."""
    elsewhere = tmp_path / "some where" / "bin"
    elsewhere.mkdir(parents=True)
    mine = elsewhere / "mine"
    if link == "absolute":
        mine.symlink_to(checkout.sample)
    else:
        mine.symlink_to(Path("..") / ".." / checkout.root.name / "bin" / "rh-sample")
    if link == "chain":
        (elsewhere / "again").symlink_to("mine")
        mine = elsewhere / "again"
    seen = report(checkout.run(mine, "--report"))
    assert seen["argv"] == ["sample", "--report"]
    assert seen["prefix"] == str(checkout.root / ".venv")


def test_any_directory_and_any_way_of_calling(tmp_path: Path) -> None:
    """By name in bin/, by a relative path with CDPATH set, from a checkout whose path needs quoting."""
    place = tmp_path / "it's a $place"
    place.mkdir()
    checkout = make_checkout(place, name="check out")
    decoy = tmp_path / "decoy" / "bin"
    decoy.mkdir(parents=True)
    calls = [
        (["sh", "rh-sample"], checkout.root / "bin"),
        (["./rh-sample"], checkout.root / "bin"),
        (["bin/rh-sample"], checkout.root),
        (["rh-sample"], tmp_path),
    ]
    environ = checkout.environ(CDPATH=str(decoy.parent))
    environ["PATH"] += f":{checkout.root / 'bin'}"
    for words, cwd in calls:
        seen = report(checkout.run("/usr/bin/env", *words, "--report", cwd=cwd, environ=environ))
        assert seen["prefix"] == str(checkout.root / ".venv")
    assert checkout.calls() == 1


@pytest.mark.slow
def test_rh_python_names_the_interpreter(checkout: Checkout, tmp_path: Path) -> None:
    """RH_PYTHON is used and remembered: another one remakes the environment, none takes what is there."""
    mine = write_program(tmp_path / "my python" / "run", PYTHON.format(python=BASE_PYTHON, cases=":) ;;"))
    (checkout.programs / "uv").unlink()
    write_program(checkout.programs / "python3", "#!/bin/sh\nexit 1\n")
    write_program(mine, PYTHON.format(python=BASE_PYTHON, cases="*'-m pip'*) echo pip >>\"$STUB_LOG\" ;;"))
    chosen = checkout.environ(RH_PYTHON=str(mine))
    first = checkout.run(checkout.sample, "--report", environ=chosen)
    assert report(first)["prefix"] == str(checkout.root / ".venv")
    assert f"with {mine}" in first.stderr
    calls = checkout.calls("pip")
    assert checkout.run(checkout.sample, "--report", environ=chosen).stderr == ""
    assert checkout.run(checkout.sample, "--report").stderr == ""
    assert checkout.calls("pip") == calls
    other = shutil.copy(mine, mine.parent / "other")
    again = checkout.run(checkout.sample, "--report", environ=checkout.environ(RH_PYTHON=str(other)))
    assert report(again)["prefix"] == str(checkout.root / ".venv")
    assert f"with {other}" in again.stderr


@pytest.mark.parametrize("value", ["/nowhere/python3", "false"])
def test_an_rh_python_that_will_not_do_is_an_error(checkout: Checkout, value: str) -> None:
    """What was asked for by name is not replaced by something else."""
    write_program(checkout.programs / "false", "#!/bin/sh\nexit 1\n")
    done = checkout.run(checkout.sample, "--report", environ=checkout.environ(RH_PYTHON=value))
    assert done.returncode == 69
    assert f"RH_PYTHON: {value} cannot be run" in done.stderr
    assert not (checkout.root / ".venv").exists()


def test_unsuitable_pythons_are_skipped(checkout: Checkout, tmp_path: Path) -> None:
    """First on PATH: one that is too old, one without permission, a directory, a broken shim. The good one is last."""
    old, shut, folder, shim = (tmp_path / name for name in ("old", "shut", "folder", "shim"))
    write_program(old / "python3", "#!/bin/sh\necho old >>\"$STUB_LOG\"\nexit 1\n")
    write_program(shut / "python3", "#!/bin/sh\n").chmod(0o644)
    (folder / "python3").mkdir(parents=True)
    write_program(shim / "python3", "#!/nowhere/interpreter\n")
    environ = checkout.environ()
    environ["PATH"] = ":".join(str(each) for each in (old, shut, folder, shim, checkout.programs))
    done = checkout.run(checkout.sample, "--report", environ=environ)
    assert report(done)["version"] == list(sys.version_info[:2])
    assert checkout.calls("old") == 1


def test_a_versioned_name_serves_when_python3_is_old(checkout: Checkout) -> None:
    (checkout.programs / "python3").rename(checkout.programs / "python3.12")
    write_program(checkout.programs / "python3", "#!/bin/sh\nexit 1\n")
    assert report(checkout.run(checkout.sample, "--report"))["argv"] == ["sample", "--report"]


def test_no_python_at_all_is_explained(checkout: Checkout) -> None:
    (checkout.programs / "python3").unlink()
    done = checkout.run(checkout.sample)
    assert done.returncode == 69
    assert "no CPython 3.11 or newer on PATH" in done.stderr and "RH_PYTHON" in done.stderr


def test_old_pythons_understand_the_question() -> None:
    """The probe must be answered with a refusal, not with a crash that a newer spelling would cause."""
    shown = subprocess.run(
        [BASE_PYTHON, "-I", "-S", "-c", probe_text().replace("(3, 11)", "(99, 0)")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (shown.returncode, shown.stdout, shown.stderr) == (1, "", "")
    ast.parse(probe_text(), feature_version=(3, 4))


def probe_text() -> str:
    """The Python text in bin/_env.sh that judges an interpreter."""
    text = (REPO / "bin" / "_env.sh").read_text()
    return text.split("""\"$1" -I -S -c '""", 1)[1].split("' 2>/dev/null", 1)[0]


def test_the_chosen_interpreter_carries_its_version_in_its_name() -> None:
    """An upgrade of python3 must leave a dangling link, which is seen, and not an environment of another version."""
    shown = subprocess.run([BASE_PYTHON, "-I", "-S", "-c", probe_text()], capture_output=True, text=True, check=True)
    path = Path(shown.stdout.strip())
    assert os.access(path, os.X_OK)
    assert path.name == f"python{sys.version_info[0]}.{sys.version_info[1]}" or path == Path(BASE_PYTHON)


def test_a_vanished_interpreter_is_recovered_from(checkout: Checkout) -> None:
    """The environment's link to its interpreter dangles after an upgrade or an uninstallation."""
    report(checkout.run(checkout.sample, "--report"))
    python = checkout.root / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3.11")
    done = checkout.run(checkout.sample, "--report")
    assert report(done)["prefix"] == str(checkout.root / ".venv")
    assert checkout.calls() == 2


def test_a_changed_lock_file_remakes_and_a_touched_one_does_not(checkout: Checkout) -> None:
    report(checkout.run(checkout.sample, "--report"))
    lock = checkout.root / "bin" / "requirements.lock"
    lock.touch()
    assert checkout.run(checkout.sample, "--report").stderr == ""
    (checkout.root / ".venv" / "left over").touch()
    lock.write_text(lock.read_text() + "\n")
    assert "first use" in checkout.run(checkout.sample, "--report").stderr
    assert not (checkout.root / ".venv" / "left over").exists()
    assert checkout.calls() == 2


def test_a_moved_checkout_remakes_its_environment(checkout: Checkout) -> None:
    """The environment points back to the checkout: a copy must not run the original's code."""
    report(checkout.run(checkout.sample, "--report"))
    moved = checkout.root.with_name("moved")
    checkout.root.rename(moved)
    seen = report(checkout.run(moved / "bin" / "rh-sample", "--report"))
    assert seen["prefix"] == str(moved / ".venv")
    assert str(moved) in seen["path"]  # type: ignore[operator]
    assert str(checkout.root) not in seen["path"]  # type: ignore[operator]


def test_rh_venv_names_the_place(checkout: Checkout, tmp_path: Path) -> None:
    """RH_VENV, absolute or from the current directory; the checkout stays as it was."""
    absolute = checkout.run(checkout.sample, "--report", environ=checkout.environ(RH_VENV=str(tmp_path / "a b" / "v")))
    assert report(absolute)["prefix"] == str(tmp_path / "a b" / "v")
    relative = checkout.run(checkout.sample, "--report", cwd=tmp_path, environ=checkout.environ(RH_VENV="here"))
    assert report(relative)["prefix"] == str(tmp_path / "here")
    assert not (checkout.root / ".venv").exists()


@pytest.mark.parametrize("content", ["letter", ".profile", "pyvenv.cfg"])
def test_rh_venv_never_empties_a_foreign_directory(checkout: Checkout, tmp_path: Path, content: str) -> None:
    """RH_VENV=$HOME by mistake, or someone's own environment: refused, and every file is still there."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / content).write_text("mine")
    done = checkout.run(checkout.sample, "--report", environ=checkout.environ(RH_VENV=str(precious)))
    assert done.returncode == 69
    assert "was not made by rogue-hunter" in done.stderr
    assert [each.name for each in precious.iterdir()] == [content]
    assert (precious / content).read_text() == "mine"


def test_an_unwritable_checkout_puts_it_into_the_users_data(open_checkout: Checkout) -> None:
    """A checkout that belongs to someone else: each user gets an environment of their own, private to them."""
    user = need_other_user()
    home = open_checkout.root.parent / "home"
    environ = open_checkout.environ(PYTHONDONTWRITEBYTECODE="1")
    os.chown(home, user, user)
    python = shutil.which("python3", path="/usr/bin:/bin")
    if python is None or not usable_by(user, python):
        pytest.skip("no Python 3.11 that another user may run")
    write_program(open_checkout.programs / "python3", f"#!/bin/sh\nexec {python} \"$@\"\n")
    use_python(open_checkout, python)
    # root's own environment leads to an interpreter that other users may not run
    locked = open_checkout.root / ".venv" / "bin"
    locked.mkdir(parents=True)
    write_program(locked / "python", "#!/bin/sh\n").chmod(0o700)

    first = report(open_checkout.run(open_checkout.sample, "--report", environ=environ, user=user))
    prefix = Path(str(first["prefix"]))
    assert prefix.parent == home / ".local" / "share" / "rogue-hunter"
    assert prefix.name.startswith("venv-")
    assert prefix.parent.stat().st_mode & 0o777 == 0o700
    again = open_checkout.run(open_checkout.sample, "--report", environ=environ, user=user)
    assert report(again)["prefix"] == str(prefix)
    assert again.stderr == ""
    assert open_checkout.calls() == 1
    # byte code is kept there too: it cannot be kept beside the sources
    assert list((prefix / "pycache").rglob("__init__.*.pyc"))
    elsewhere = open_checkout.root.parent / "data"
    elsewhere.mkdir()
    os.chown(elsewhere, user, user)
    data = {**environ, "XDG_DATA_HOME": str(elsewhere)}
    third = report(open_checkout.run(open_checkout.sample, "--report", environ=data, user=user))
    assert Path(str(third["prefix"])).parent == elsewhere / "rogue-hunter"


def use_python(checkout: Checkout, python: str) -> None:
    """Has the stand-in for uv make environments with this interpreter."""
    uv = checkout.programs / "uv"
    write_program(uv, uv.read_text().replace(BASE_PYTHON, python))


def usable_by(user: int, python: str) -> bool:
    """May this user run it, and is it new enough?"""
    asked = [python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
    return subprocess.run(asked, user=user, group=user, extra_groups=[], check=False).returncode == 0


def test_an_environment_that_is_ready_is_shared(open_checkout: Checkout) -> None:
    """Another user of the same machine runs what the owner has set up, and makes nothing."""
    user = need_other_user()
    python = shutil.which("python3", path="/usr/bin:/bin")
    if python is None or not usable_by(user, python):
        pytest.skip("no Python 3.11 that another user may run")
    use_python(open_checkout, python)
    report(open_checkout.run(open_checkout.sample, "--report"))
    done = open_checkout.run(open_checkout.sample, "--report", user=user)
    assert report(done)["prefix"] == str(open_checkout.root / ".venv")
    assert open_checkout.calls() == 1


def test_the_commands_stdin_is_not_eaten_by_set_up(checkout: Checkout) -> None:
    """Records piped into a first use all arrive."""
    records = "".join(f'{{"type":"process","pid":{number}}}\n' for number in range(5000))
    done = checkout.run(checkout.sample, "--cat", stdin=records)
    assert done.stdout == records
    assert checkout.calls() == 1


def test_arguments_and_the_exit_status_pass_unchanged(checkout: Checkout) -> None:
    words = ["", "a b", "*", "$HOME", "'", "\n", "-n", "--report"]
    assert report(checkout.run(checkout.sample, *words))["argv"] == ["sample", *words]
    assert checkout.run(checkout.sample, "--exit", "65").returncode == 65


def test_the_python_environment_of_the_caller_does_not_reach_the_command(checkout: Checkout, tmp_path: Path) -> None:
    """No byte code unwritten, no output unbuffered, no other libraries, nothing imported from the current directory."""
    (tmp_path / "json.py").write_text("raise SystemExit('the current directory was imported')")
    (tmp_path / "rogue_hunter").mkdir()
    (tmp_path / "rogue_hunter" / "__main__.py").write_text("raise SystemExit('the current directory was run')")
    environ = checkout.environ(
        PYTHONDONTWRITEBYTECODE="1", PYTHONUNBUFFERED="1", PYTHONPATH=str(tmp_path), PYTHONHOME="/nowhere",
        PIP_FIND_LINKS="/nowhere/wheels",
    )  # fmt: skip
    seen = report(checkout.run(checkout.sample, "--report", cwd=tmp_path, environ=environ))
    assert not [name for name in seen["environ"] if name.startswith("PYTHON")]  # type: ignore[attr-defined]
    assert list((checkout.root / "rogue_hunter" / "__pycache__").glob("__init__.*.pyc"))


def test_a_warm_start_runs_two_programs_beside_the_command(checkout: Checkout) -> None:
    """The launcher's cost is the shell, one subshell and cmp: about 3 ms."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    report(checkout.run(checkout.sample, "--report"))
    trace = checkout.root.parent / "trace"
    calls = "trace=execve,clone,clone3,fork,vfork"
    traced = checkout.run(strace, "-f", "--seccomp-bpf", "-qq", "-o", trace, "-e", calls, checkout.sample, "--exit", "0")
    if "ptrace" in traced.stderr:
        pytest.skip("strace may not trace here")
    lines = trace.read_text().splitlines()
    assert sum("execve" in line and line.endswith(" = 0") for line in lines) == 3    # the shell, cmp, python
    assert sum("fork(" in line or "clone(" in line or "clone3(" in line for line in lines) == 2


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_a_real_set_up(checkout: Checkout, installer: str) -> None:
    """The real lock file, by uv and by plain pip: every library imports, and its byte code is there from the start."""
    need_registry()
    paths = os.get_exec_path()
    if installer == "pip":
        (checkout.programs / "uv").unlink()
        write_program(checkout.programs / "python3", f"#!/bin/sh\nexec '{BASE_PYTHON}' \"$@\"\n")
        search = [str(checkout.programs)]
    else:
        found = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
        if found is None:
            pytest.skip("uv is not installed")
        (checkout.programs / "uv").unlink()
        (checkout.programs / "uv").symlink_to(found)
        search = [str(checkout.programs), *paths]
    libraries = ["click", "orjson", "sqlite_utils", "tabulate", "watchdog", "prometheus_client"]
    main = f"import {', '.join(libraries)}\nprint(click.__file__)\n"
    (checkout.root / "rogue_hunter" / "__main__.py").write_text(main)
    environ = {**os.environ, **checkout.environ(PYTHONDONTWRITEBYTECODE="1"), "PATH": ":".join(search)}
    environ.pop("RH_VENV", None)
    environ.pop("RH_PYTHON", None)
    done = checkout.run(checkout.sample, environ=environ)
    assert done.returncode == 0, done.stderr
    package = Path(done.stdout.strip()).parent
    assert package.is_relative_to(checkout.root / ".venv")
    assert list((package / "__pycache__").glob("core.*.pyc"))


def test_rh_check_lints_and_tests(checkout: Checkout) -> None:
    """Everything runs though one part fails, and what is not installed is named; mypy and what follows run beside pytest."""
    write_program(checkout.programs / "uv", """\
#!/bin/sh
case $1 in
venv) for place; do :; done
      mkdir -p "$place/bin" "$place/lib/python3/site-packages"; cp "$STUB_PYTHON" "$place/bin/python" ;;
esac
""")
    stub = write_program(checkout.root.parent / "stub", """\
#!/bin/sh
echo "ran $*"
case "$*" in "-m $STUB_FAILS"*) exit 1 ;; esac
""")
    check = checkout.root / "bin" / "rh-check"

    def run(fails: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environ = checkout.environ(STUB_PYTHON=str(stub), STUB_FAILS=fails)
        return checkout.run(check, *(arguments or ("tests/test_wire.py", "-k", "a b")), cwd=checkout.root, environ=environ)

    good = run("nothing")
    assert good.returncode == 0, good.stderr
    ran = [line for line in good.stdout.splitlines() if line.startswith("ran ")]
    assert [line.split()[2] for line in ran] == ["ruff", "pytest", "mypy"]
    assert ran[1] == "ran -m pytest tests/test_wire.py -k a b"
    assert "--strict" in ran[2] and "rogue_hunter" in ran[2]
    assert "== shellcheck: SKIPPED, not installed" in good.stdout
    assert "== mandoc: SKIPPED, not installed" in good.stdout
    assert (checkout.root / ".venv-test").is_dir() and not (checkout.root / ".venv").exists()
    assert good.stdout.startswith("rh-check: ruff, mypy, shellcheck and mandoc")
    quick = run("nothing", "--quick", "-x").stdout.splitlines()
    assert quick[0].startswith("rh-check: ruff, mypy and the fast tests; less than a minute")
    assert [line.split()[2] for line in quick if line.startswith("ran ")] == ["ruff", "pytest", "mypy"]
    assert "ran -m pytest -m not slow and not waits -x" in quick
    helped = run("nothing", "--help")
    assert helped.returncode == 0 and "--quick" in helped.stdout and "ran " not in helped.stdout
    for part in ("ruff", "mypy", "pytest"):
        bad = run(part)
        assert bad.returncode == 1
        assert bad.stderr.endswith(f"rogue-hunter: failed: {part}\n")
        assert "ran -m pytest" in bad.stdout
    for linter in ("shellcheck", "mandoc"):
        write_program(checkout.programs / linter, "#!/bin/sh\nexit 1\n")
        bad = run("nothing")
        assert bad.returncode == 1
        assert f"== {linter}: FAILED" in bad.stdout
        (checkout.programs / linter).unlink()


def test_rh_check_and_the_commands_do_not_share_an_rh_venv(checkout: Checkout, tmp_path: Path) -> None:
    """They have different lock files: sharing one place would remake it at every turn."""
    environ = checkout.environ(RH_VENV=str(tmp_path / "v"))
    checkout.run(checkout.root / "bin" / "rh-check", environ=environ)
    checkout.run(checkout.sample, environ=environ)
    assert checkout.calls("uv venv") == 2
    checkout.run(checkout.root / "bin" / "rh-check", environ=environ)
    checkout.run(checkout.sample, environ=environ)
    assert checkout.calls("uv venv") == 2
    assert (tmp_path / "v").is_dir() and (tmp_path / "v-test").is_dir()


@pytest.mark.parametrize("answer", ["yes", "no"])
def test_ci_installs_what_is_missing_and_bears_a_refusal(checkout: Checkout, answer: str) -> None:
    """.ci/run asks apt-get once for missing packages; refused, the checks run all the same. Their status is CI's."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    shutil.copytree(REPO / ".ci", checkout.root / ".ci")
    write_program(checkout.root / "bin" / "rh-check", "#!/bin/sh\ncat\necho checked\nexit 3\n")
    status = "exit 0" if answer == "yes" else "exit 100"
    write_program(checkout.programs / "apt-get", f"#!/bin/sh\necho \"apt $*\" >>\"$STUB_LOG\"\n{status}\n")
    write_program(checkout.programs / "sudo", "#!/bin/sh\nshift\nexec \"$@\"\n")
    for program in ("dirname", "timeout"):
        found = shutil.which(program)
        assert found is not None
        (checkout.programs / program).symlink_to(found)
    done = checkout.run(bash, checkout.root / ".ci" / "run", stdin="not for the checks")
    assert done.returncode == 3
    assert done.stdout.splitlines()[-1] == "checked"
    calls = checkout.log.read_text().splitlines()
    assert calls[0] == "apt update -qq"
    assert "shellcheck mandoc man-db sqlite3 jq strace" in calls[1]
    if answer == "yes":
        assert len(calls) == 2 and done.stderr == ""
    else:
        assert len(calls) > 2
        assert "warning: apt-get update failed" in done.stderr and "warning: jq was not installed" in done.stderr
