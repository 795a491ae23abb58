"""What one row of evidence means: whose it is, what it is called, what it used, and for whom it worked."""

from __future__ import annotations

import re

from rogue_hunter.sampling.units import is_apart
from rogue_hunter.stream.tick import shown_name
from rogue_hunter.verdict.model import Key, Row, Taker, total

OWN_FIELDS = {"cpu": "cpu_seconds", "disk": "disk_bytes", "gpu": "gpu_seconds", "wakeups": "wakeups",
              "pageins": "pageins", "memory": "memory_bytes", "growth": "memory_growth_bytes",
              "waiting": "uninterruptible_s"}
"""Resource -> field of its own use. Memory held is the highest value of the window, all others are sums."""
CHILDREN_FIELDS = {"cpu": "children_cpu_seconds", "disk": "children_disk_bytes"}

BYTES_PER_CPU_SECOND = 20e9
"""No process moves more per second of its own CPU time (a direct write of 1 MiB takes some 60 us): such bytes were
credited to a parent that waited for the child that moved them."""

REALTIME = frozenset({"fifo", "rr", "deadline"})
"""Scheduling policies whose processes run before all others (sched(7))."""
KTHREADD = 2
"""The parent of all kernel threads."""

_KERNEL = re.compile(r"^(?:ksoftirqd/|kworker/|kswapd|jbd2/|loop\d|kcryptd|dmcrypt|flush-|md\d+_|kcompactd|ksmd|"
                     r"khugepaged|writeback|xfsaild|btrfs-|z_wr|txg_sync|irq/|migration/|rcu|nvme-)")
SERVERS = frozenset({"tmux: server", "screen", "sshd", "sshd-session", "dockerd", "containerd", "containerd-shim",
                     "conmon", "systemd-journal", "journald", "rsyslogd", "syslog-ng", "dbus-daemon", "Xorg",
                     "gnome-terminal-", "konsole", "xterm"})
"""Programs that use resources mostly on behalf of others."""


def is_forwarder(row: Row) -> bool:
    """True for a kernel thread or server that works for others. A program that only calls itself like a kernel thread
    has a command line or a parent other than kthreadd (pid 2)."""
    command = str(row.get("command") or "")
    if command in SERVERS:
        return True
    return bool(_KERNEL.match(command)) and not row.get("cmdline") and row.get("ppid") in (0, 2, None)


def name_of(row: Row) -> str:
    """What people call the process: its script or module, else its program."""
    return str(shown_name(row) or "?")


def key_of(row: Row) -> Key | None:
    """The identity of a row; None for a row that stands for all processes of a command."""
    pid, start = row.get("pid"), row.get("start_ticks")
    return None if pid is None or start is None else (str(row.get("boot_id", "")), int(pid), int(start))


def in_group(row: Row, group: str) -> bool:
    """True for a process in a control group or below it."""
    cgroup = str(row.get("cgroup") or "")
    return cgroup == group or cgroup.startswith(group.rstrip("/") + "/")


def uses(row: Row, resource: str) -> tuple[float, float]:
    """Own use of a resource and that of ended children."""
    own = max(0.0, total(row, OWN_FIELDS[resource]))
    children = max(0.0, total(row, CHILDREN_FIELDS[resource])) if resource in CHILDREN_FIELDS else 0.0
    if resource == "disk" and own > BYTES_PER_CPU_SECOND * max(0.001, total(row, "cpu_seconds")):
        return 0.0, own + children
    return own, children


def belongs(row: Row, taker: Taker | None) -> bool:
    """True for the row of a process that is the taker or a part of it."""
    if taker is None:
        return False
    whole = taker.kind != "process" and taker.root is not None
    unit = whole and bool(taker.unit) and row.get("unit") == taker.unit
    family = whole and taker.root is not None and row.get("ppid") == taker.root[1] and not is_apart(row)
    return unit or family or key_of(row) in taker.keys or (taker.kind == "command"
                                                          and row.get("command") == taker.command)
