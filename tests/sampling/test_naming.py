"""The name of a process, and which processes are rogue-hunter's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from rogue_hunter.sampling.lineage import Lineage
from rogue_hunter.sampling.naming import COMMANDS, looks_own, name_of
from tests.tools.ticks import row, stream


@pytest.mark.parametrize(("command", "exe", "cmdline", "name"), [
    ("python3", "/usr/bin/python3.11", "python3 backup.py --all", "backup.py"),
    ("python3", "/usr/bin/python3.11", "python3 -u -W ignore /opt/x/report_builder.py", "report_builder.py"),
    ("python3", "/usr/bin/python3.11", "python3 -m http.server 8000", "http.server"),
    ("python3", "/usr/bin/python3.11", "python3 -c import time", "python3"),
    ("python3", "/usr/bin/python3.11 (deleted)", "python3 x.py", "x.py"),
    ("pytest", "/usr/bin/python3.11", "/usr/bin/python3 /usr/bin/pytest -q", "pytest"),
    ("python3", "/usr/bin/python3.11", "/usr/bin/python3 /dev/fd/63", "python3"),
    ("bash", "/usr/bin/bash", "bash /proc/1234/fd/11", "bash"),
    ("gunicorn: worke", "/usr/bin/python3.11", "gunicorn: worker [app]", "gunicorn"),
    ("puma 6.4 (tcp:/", "/usr/bin/ruby3.1", "puma 6.4.0 (tcp://0.0.0.0:3000) [app]", "puma"),
    ("npm run build", "/usr/bin/node", "npm run build", "npm"),
    ("next-server (v1", "/usr/bin/node", "next-server (v14.1.0)", "next-server"),
    ("python3", "/usr/bin/python3.11", "python3 -mjson.tool x", "json.tool"),
    ("python3", "/usr/bin/python3.11", "python3 -Ic import_x", "python3"),
    ("java", "/usr/lib/jvm/bin/java", "java --add-opens java.base/java.lang=ALL-UNNAMED -jar x.jar", "x.jar"),
    ("java", "/usr/lib/jvm/bin/java", "java -classpath x @arguments org.Main", "org.Main"),
    ("java", "/usr/lib/jvm/bin/java", "java --enable-preview --source 21 Main.java", "Main.java"),
    ("deno", "/usr/bin/deno", "deno run -A --import-map map.json server.ts", "server.ts"),
    ("perl", "/usr/bin/perl", "perl -MCPAN -we 1", "perl"),
    ("php", "/usr/bin/php8.2", "php -S 0.0.0.0:80 -t public", "php"),
    ("R", "/usr/lib/R/bin/exec/R", "/usr/lib/R/bin/exec/R --no-echo --file=model.R", "model.R"),
    ("R", "/usr/lib/R/bin/exec/R", "/usr/lib/R/bin/exec/R CMD check", "R"),
    ("julia", "/usr/bin/julia", "julia -t 4 sim.jl", "sim.jl"),
    ("pwsh", "/usr/bin/pwsh", "pwsh -NoProfile -File backup.ps1", "backup.ps1"),
    ("pwsh", "/usr/bin/pwsh", "pwsh -Command Get-Process", "pwsh"),
    ("dotnet", "/usr/share/dotnet/dotnet", "dotnet /srv/Api.dll --urls x", "Api.dll"),
    ("dotnet", "/usr/share/dotnet/dotnet", "dotnet build", "dotnet"),
    ("mono", "/usr/bin/mono-sgen", "mono /opt/tool.exe", "tool.exe"),
    ("wine64-preloade", "/usr/lib/wine/wine64-preloader", "C:\\Program Files\\Game\\game.exe -x", "game.exe"),
    ("ld-linux-x86-64", "/lib64/ld-linux-x86-64.so.2", "/lib64/ld-linux-x86-64.so.2 --argv0 x /opt/prog y", "prog"),
    ("qemu-x86_64", "/usr/bin/qemu-x86_64", "qemu-x86_64 -L /sysroot ./prog", "prog"),
    ("qemu-system-x86", "/usr/bin/qemu-system-x86_64", "qemu-system-x86_64 -m 4096 disk.img", "qemu-system-x86_64"),
    ("alpha", "/opt/alpha", "python3 -m rogue_hunter pipe", "alpha"),
    ("MainThread", "/usr/bin/node", "node server.js", "server.js"),
    ("MainThread", "/usr/bin/node", "node", "node"),
    ("node", "/usr/bin/node", "node --require x.js /srv/app/index.js", "index.js"),
    ("bun", "/usr/bin/bun", "bun run dev.ts", "dev.ts"),
    ("deno", "/usr/bin/deno", "deno run --allow-net serve.ts", "serve.ts"),
    ("java", "/usr/lib/jvm/bin/java", "java -Xmx4g -jar /opt/app.jar", "app.jar"),
    ("java", "/usr/lib/jvm/bin/java", "java -cp a.jar:b.jar org.example.Main", "org.example.Main"),
    ("ruby", "/usr/bin/ruby3.1", "ruby -I lib jobs.rb", "jobs.rb"),
    ("perl", "/usr/bin/perl", "/usr/bin/perl -w /usr/bin/exiftool x.jpg", "exiftool"),
    ("php", "/usr/bin/php8.2", "php artisan queue:work", "artisan"),
    ("bash", "/usr/bin/bash", "bash -eu ./nightly.sh", "nightly.sh"),
    ("sh", "/usr/bin/dash", "sh -c while :; do :; done", "sh"),
    ("bash", "/usr/bin/bash", "-bash", "bash"),
    ("bash", "/usr/bin/bash", "bash /dev/fd/3", "bash"),
    ("GeckoMain", "/usr/lib/firefox/firefox", "/usr/lib/firefox/firefox", "firefox"),
    ("sshd", "/usr/sbin/sshd", "sshd: ann@pts/0", "sshd"),
    ("postgres", "/usr/lib/postgresql/postgres", "postgres: writer", "postgres"),
    ("gnome-terminal-", "/usr/libexec/gnome-terminal-server", "/usr/libexec/gnome-terminal-server",
     "gnome-terminal-server"),
    ("ash", "/bin/busybox", "ash", "ash"),
    ("sealed", "/memfd:sealed-91 (deleted)", "/opt/runner --x", "runner"),
    ("3", "/memfd:sealed-91 (deleted)", "", "sealed-91"),
    ("kworker/u8:2", "/usr/bin/python3.11", "python3 rename_me.py", "rename_me.py"),
    ("kworker/u8:2-loop0", "", "", "kworker/loop0"),
    ("kworker/u8:2+loop0", "", "", "kworker/loop0"),
    ("kworker/0:1H-kblockd", "", "", "kworker/kblockd"),
    ("kworker/u9:0-flush-8:0", "", "", "kworker/flush-8:0"),
    ("kworker/R-rcu_g", "", "", "kworker/rcu_g"),
    ("kworker/3:1", "", "", "kworker"),
    ("ksoftirqd/0", "", "", "ksoftirqd/0"),
    ("secret", "", "", "secret"),
    ("python", "/v/bin/python3", "/v/bin/python -m rogue_hunter pipe", "rh-pipe"),
    ("python", "/v/bin/python3", "/v/bin/python x.py -m rogue_hunter pipe", "x.py"),
    ("", "", "", "?"),
    ("Google Chrome", "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
     "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome --flag", "Google Chrome"),
])
def test_name(command: str, exe: str, cmdline: str, name: str) -> None:
    assert name_of({"command": command, "exe": exe, "cmdline": cmdline}) == name


OWN = [
    "/v/bin/python -m rogue_hunter pipe --for 20s", "/v/bin/python -P -m rogue_hunter.capture.worker 5 4",
    "/v/bin/python /usr/local/bin/rh-report why", "python3.11 /home/ann/.local/bin/rh-tail",
    "/bin/sh /home/ann/rogue-hunter/bin/rh-pipe --db x",
]
OTHERS = [
    "python3 backup.py", "vim rh-pipe", "less /home/ann/rogue-hunter/rogue_hunter/host/linux/host.py", "python3 rh-mine",
    "python3 x.py -m rogue_hunter pipe", "sh -c rh-sample -n 1 | jq .", "sh rh-pipe.sh", "cat bin/rh-pipe", "rh-pipe", "",
]


@pytest.mark.parametrize("cmdline", OWN)
def test_own(cmdline: str) -> None:
    assert looks_own({"command": "x", "cmdline": cmdline})


@pytest.mark.parametrize("cmdline", OTHERS)
def test_not_own(cmdline: str) -> None:
    """Programs that handle our files, take our words as arguments, or only have a similar name."""
    assert not looks_own({"command": "x", "cmdline": cmdline})


def test_helpers_are_own() -> None:
    """What rh-pipe starts, and what that starts, counts as its own use; another rh-pipe and a reader do not."""
    def rows(cpu: float) -> list[dict[str, object]]:
        return [row(50, 500, command="python", cmdline="python -m rogue_hunter pipe", cpu_percent=1.0),
                row(60, 600, ppid=50, command="journalctl", cmdline="journalctl -o json", cpu_percent=cpu),
                row(61, 610, ppid=60, command="zcat", cmdline="zcat", cpu_percent=2.0),
                row(70, 700, command="other", cmdline="other", cpu_percent=90.0),
                row(80, 800, command="rh-pipe", cmdline="python -m rogue_hunter pipe", own=True, cpu_percent=30.0)]

    ticks = list(map(Lineage(), stream([rows(5.0), rows(40.0), rows(0.0)], self_pid=50, self_cpu_percent=1.0)))
    assert [made.get("own") for made in ticks[1].processes.values()] == [True, True, True, None, True]
    assert [tick.row["self_cpu_percent"] for tick in ticks if tick.row] == [8.0, 43.0, 3.0]


def test_arguments_alone_are_no_proof() -> None:
    """On Linux the host knows own processes by their mark; without it a name counts for nothing, and a process
    that becomes another program is own no longer, nor is what that starts."""
    named = row(60, 600, command="rh-pipe", exe="/usr/bin/python3", cmdline="python3 -m rogue_hunter pipe", cpu_percent=99.0)
    marked = {**named, "own": True}
    child = row(70, 700, ppid=60, command="sh", cmdline="sh")
    ticks = list(map(Lineage(), stream([[named], [marked, child], [named, child], [named, child, row(80, 800, ppid=60)]])))
    assert [[made.get("own") for made in tick.processes.values()] for tick in ticks] == [
        [None], [True, True], [None, True], [None, True, None]]


@pytest.mark.parametrize(("changed", "own"), [
    ({}, True), ({"exe": "/bin/sleep"}, None), ({"uid": 501}, None), ({"exe": None}, None), ({"cmdline": "python3 backup.py"}, None)])
def test_without_a_mark_the_program_and_the_user_must_be_the_samplers(changed: dict[str, object], own: bool | None) -> None:
    sampler = row(50, 500, uid=0, exe="/opt/python3.13", cmdline="python3 -m rogue_hunter pipe")
    report = row(60, 600, **{"uid": 0, "exe": "/opt/python3.13", "cmdline": "python3 -m rogue_hunter report", **changed})
    (tick,) = map(Lineage(), stream([[sampler, report]], self_pid=50, os="macos"))
    assert [made.get("own") for made in tick.processes.values()] == [True, own]


def test_a_name_that_is_the_command_is_left_out() -> None:
    (tick,) = map(Lineage(), stream([[row(50, command="nginx", exe="/usr/sbin/nginx", cmdline="nginx"),
                                      row(60, command="python3", exe="/usr/bin/python3", cmdline="python3 a.py")]]))
    assert [made.get("name") for made in tick.processes.values()] == [None, "a.py"]


def test_every_command_is_known() -> None:
    launchers = Path(__file__).resolve().parents[2] / "bin"
    assert {path.name[3:] for path in launchers.glob("rh-*")} - {"check"} <= COMMANDS
