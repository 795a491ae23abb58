"""The unit of work that a process belongs to: a container, a service, an app, or what was started at a prompt."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rogue_hunter.sampling.ledger import ancestors, parent_of
from rogue_hunter.sampling.naming import work_of
from rogue_hunter.schema.field import Key
from rogue_hunter.stream.tick import Row

SHELLS = frozenset({"sh", "bash", "dash", "zsh", "fish", "ksh", "mksh", "tcsh", "csh", "ash", "busybox", "nu", "xonsh",
                    "pwsh", "elvish"})
"""Programs whose children were started by a person or a script, each as a thing of its own."""

SERVICE_MANAGERS = frozenset({"systemd", "launchd"})
"""Processes other than pid 1 that become the parent of orphans: systemd --user does (PR_SET_CHILD_SUBREAPER)."""
ADOPTERS = SERVICE_MANAGERS | {"init"}
"""These, and the names of a pid 1 whose other children are services. In a container it is any program."""

MANAGERS = ADOPTERS | frozenset({"sshd", "sshd-session", "login", "cron", "crond", "atd", "anacron",
                      "fcron", "cronie", "tmux", "tmux: server", "screen", "supervisord", "runit", "runsv",
                      "s6-supervise", "dockerd", "containerd-shim", "conmon", "tini", "dumb-init", "gdm", "sddm",
                      "getty", "agetty", "su", "catatonit", "docker-init", "runsvdir", "s6-svscan"})
"""Programs that start services and sessions."""

ORPHANS_MAX = 256
"""Programs of orphans whose unit is kept."""

WRAPPERS = frozenset({"timeout", "env", "nice", "ionice", "nohup", "sudo", "doas", "setsid", "setpriv", "chrt",
                      "taskset", "time", "strace", "ltrace", "stdbuf", "unbuffer", "caffeinate", "systemd-inhibit",
                      "runuser", "chroot", "unshare", "nsenter", "prlimit", "numactl", "firejail", "bwrap", "proot",
                      "flock", "lockf", "pkexec", "run0", "script", "xvfb-run", "ssh-agent", "dbus-run-sessio"})
"""Programs that run one other program and wait for it: the unit is that program."""

KTHREADD = 2
"""The parent of all kernel threads."""

STEPPED_OVER = SHELLS | MANAGERS | WRAPPERS

_ID = r"[0-9a-f]{12}"
_CONTAINER = re.compile(
    # docker-ID.scope, libpod-ID.scope, crio-ID.scope, cri-containerd-ID.scope, nerdctl-ID.scope, POD:cri-containerd:ID
    rf"(?:docker|libpod|libpod_pod|crio|cri-o|crio-conmon|libpod-conmon|cri-containerd|containerd|nerdctl|moby)[-:]({_ID})[0-9a-f]*"
    # /docker/ID, /kubepods/.../podUID/ID, /libpod_parent/libpod-ID, /ecs/TASK/ID, /default/ID: 256 bits
    rf"|/({_ID})[0-9a-f]{{52}}(?=/|\.scope|$)"
    rf"|/(?:docker|containerd|moby|actions_job)/({_ID})[0-9a-f]*(?=/|$)"
    # Fargate: /ecs/TASK/TASK-NUMBER
    rf"|/ecs/[^/]+/({_ID})[0-9a-f]{{20}}-[0-9]+"
    r"|/lxc(?:\.payload|\.monitor)?[./]([^/]+)"
    r"|/systemd-nspawn@([^/]+)\.service"
    r"|/machine-([^/]+)\.scope")
_FLATPAK = re.compile(r"/app-flatpak-(.+?)-\d+\.scope")
_SNAP = re.compile(r"/snap\.([^/]+?)(?:[.-][0-9a-f]{8}-[0-9a-f-]{27})?\.(?:scope|service)")
_SLURM = re.compile(r"/(?:[^/]+_)?slurm(?:stepd\.scope|_[^/]+)?(?:/uid_\d+)?/job_(\d+)(?=/|$)")
_NAMED = re.compile(r"/([^/]+\.(?:service|scope))(?=/|$)")
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})")
_APP = re.compile(r"/([^/]+\.app)/Contents/")

_TERMINAL = (r"(?:terminal|konsole|yakuake|console|kgx|ptyxis|kitty|ghostty|alacritty|wezterm|foot|footclient"
             r"|u?xterm|urxvt|rxvt|rxvt-unicode|st|tilix|tilda|guake|terminator|terminology|sakura|blackbox|warp"
             r"|hyper|tabby|rio|contour|zutty|extraterm|termite|termit|cosmicterm|cosmic-term|cool-retro-term"
             r"|lxterminal|qterminal|deepin-terminal|roxterm|gnome-terminal-server)")
_SESSION = re.compile(
    rf"(?i)(?:session-.*\.scope|user@.*\.service|init\.scope|(?:vte|tmux|ptyxis|screen|tmate|zellij|byobu)-spawn-.*\.scope"
    rf"|tab\(\d+\)\.scope|(?:app-|dbus-|run-)?(?:.*[.@:-])?(?:[a-z0-9]+-)?{_TERMINAL}(?:[-@.].*)?\.(?:scope|service)"
    r"|(?:open)?sshd?(?:-session)?(?:@.*)?\.service|dropbear(?:@.*)?\.service|(?:in\.)?telnetd?(?:@.*)?\.service"
    r"|mosh-server.*\.(?:scope|service)|(?:cron|crond|cronie|atd|anacron|fcron|dcron|bcron|systemd-cron)\.service"
    r"|(?:serial-|console-|container-)?getty@?.*\.service|autovt@.*\.service|tmux(?:@.*)?\.service|screen\.service"
    r"|emergency\.service|rescue\.service|debug-shell\.service)")
"""Scopes and services that hold a login, a terminal or a scheduler with all that was started from it."""


def unit_of(row: Row) -> str | None:
    """The unit that a process's control group or program path names; None where they name a session or nothing."""
    cgroup = row.get("cgroup")
    if cgroup:
        found = unit_of_cgroup(cgroup)
        if found is not None:
            return found
    app = _APP.search(row.get("exe") or "")
    return app.group(1) if app else None


def unit_of_cgroup(path: str) -> str | None:
    """The unit that a control group path names: `container:ID` (12 digits of the id, or the container's name),
    `flatpak:APP`, `snap:APP`, `slurm:JOB`, else the innermost service or scope; None for a session, a slice and the
    root."""
    containers = _CONTAINER.findall(path)
    if containers:
        return f"container:{_plain(next(filter(None, containers[-1])))}"
    for kind, pattern in (("flatpak", _FLATPAK), ("snap", _SNAP), ("slurm", _SLURM)):
        app = pattern.search(path)
        if app:
            return f"{kind}:{_plain(app.group(1))}"
    names = _NAMED.findall(path)
    return None if not names or _SESSION.fullmatch(names[-1]) else names[-1]


def in_service(path: str) -> bool:
    """Whether the innermost service or scope of a control group path is a service. A service may have groups of its own
    below (Delegate= of systemd.resource-control(5))."""
    names = _NAMED.findall(path)
    return bool(names) and names[-1].endswith(".service")


def starts_jobs(row: Row) -> bool:
    """Whether the children of a process are parts of its work: false for service managers and for a shell at a prompt,
    from which unrelated programs are started; true for a script and for any other program."""
    command = row.get("command")
    if command in SHELLS:
        return runs_script(row.get("cmdline") or "")
    return command not in MANAGERS and command not in WRAPPERS


def is_apart(row: Mapping[str, Any], parent: Mapping[str, Any] | None) -> bool:
    """True for a process that leads a session of its own (setsid(2)), as daemons, jobs of a scheduler and programs in a
    terminal do: it is no part of its parent's work. False where sessions are not known, and for a worker: some programs
    (fio, PostgreSQL) fork theirs into sessions. It has the arguments of its parent, or a title with its name."""
    if row.get("session") is None or row["session"] != row.get("pid"):
        return False
    if parent is None or row.get("command") != parent.get("command") or row.get("command") in STEPPED_OVER:
        return True
    line = row.get("cmdline") or ""
    return not line or not (line == parent.get("cmdline") or line.startswith(f"{row['command']}: "))


def runs_script(cmdline: str) -> bool:
    """True for the command line of a shell that runs a script, a command or its input (`sh x.sh`, `bash -c ...`)."""
    return work_of("sh", cmdline.split()[1:]) is not None


def _plain(name: str) -> str:
    """systemd's escapes (systemd-escape(1)) undone where they make a printable character."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)) if "20" <= found[1] <= "7e" else found[0], name)


class Units:
    """The unit of each process, kept until its control group, program or name changes."""

    def __init__(self) -> None:
        self._units: dict[Key, str] = {}
        self._known: dict[Key, tuple[str | None, str | None, str, bool]] = {}
        self.renamed: set[Key] = set()
        """Processes whose unit took another name with its topmost process."""
        self._orphans: dict[tuple[str, Any, Any], str] = {}
        """The unit of orphans by name, user and control group."""

    def get(self, key: Key) -> str | None:
        """The unit found last."""
        return self._units.get(key)

    def forget(self, key: Key) -> None:
        """The process is gone."""
        self._units.pop(key, None)
        self._known.pop(key, None)

    def find(self, key: Key, row: Row, name: str, rows: Mapping[Key, Row], by_pid: Mapping[int, Key],
             names: Mapping[Key, str]) -> str:
        """The unit: container, service or scope, app, else the topmost process below a shell, manager or wrapper."""
        known = self._units.get(key)
        # Control group, path and arguments come a tick after the process, from another thread, and seldom change.
        described = row.get("cgroup"), row.get("exe"), name, "cmdline" in row
        before = self._known.get(key)
        if known is not None and before == described:
            return known
        self._known[key] = described
        found = unit_of(row)
        named_after_itself = known is not None and before is not None and known == f"{before[2]}[{key[0]}]"
        if found is None and known is not None:
            # It keeps the unit that it was started in; a unit that is named after it takes its new name, and one that
            # turns out to be a worker of its parent is part of that.
            found = self._topmost(key, row, name, rows, by_pid, names) if named_after_itself else known
        if found is None:
            found = self._topmost(key, row, name, rows, by_pid, names)
        if named_after_itself and found != known:
            for other in [k for k, unit in self._units.items() if unit == known]:
                self._units[other] = found
                self.renamed.add(other)
        self._units[key] = found
        return found

    def _topmost(self, key: Key, row: Row, name: str, rows: Mapping[Key, Row], by_pid: Mapping[int, Key],
                 names: Mapping[Key, str]) -> str:
        for parent in ancestors(key, row, rows, by_pid):
            if parent[0] == 1 or rows[parent].get("command") in STEPPED_OVER or \
                    is_apart(row, rows[parent]):
                break
            if parent in self._units:
                return self._units[parent]
            key, row, name = parent, rows[parent], names.get(parent, rows[parent].get("command", "?"))
        return self._named(key, row, name, rows, by_pid)

    def _named(self, key: Key, row: Row, name: str, rows: Mapping[Key, Row], by_pid: Mapping[int, Key]) -> str:
        """The unit named after its topmost process. Orphans of one program or script are one: jobs that a script starts
        into the background, each below a shell that ends at once."""
        unit = f"{name}[{key[0]}]"
        adopted = row.get("ppid") == 1 or parent_of(key, row, rows, by_pid).get("command") in ADOPTERS
        if not adopted or not row.get("cmdline") or not starts_jobs(row):
            return unit
        alike = name, row.get("uid"), row.get("cgroup")
        unit = self._orphans.pop(alike, unit)
        self._orphans[alike] = unit     # the newest last
        if len(self._orphans) > ORPHANS_MAX:
            del self._orphans[next(iter(self._orphans))]
        return unit
