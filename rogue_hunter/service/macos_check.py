"""The part of `rh-sample --self-check` about services and reports of a Mac: findings without names or paths."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from rogue_hunter.capture.reports import collect, tools
from rogue_hunter.capture.reports.collect import WHOLE, newest_first
from rogue_hunter.host.macos.selfcheck import Finding
from rogue_hunter.service.launchd import LABEL
from rogue_hunter.service.manager import Run, run_command
from rogue_hunter.service.tailspin import FILE, TAILSPIN, enabled_by

READ_MOST = 50
"""Reports of one directory that are parsed."""


def findings(run: Run = run_command, places: Sequence[Path] | None = None, sudoers: str = FILE,
             uid: int | None = None) -> Iterator[Finding]:
    """tailspin, the sudoers rule, the agent, the sleep log, and the directories of reports of this Mac."""
    for check in (partial(_tailspin, run, sudoers), partial(_agent, run, os.getuid() if uid is None else uid),
                  partial(_sleep_log, run), partial(_reports, places)):
        try:
            yield from check()
        except Exception as error:  # a failed check is a finding, not the end of the others
            yield Finding("fail", "services", f"{type(error).__name__}: {error}")


def _tailspin(run: Run, sudoers: str) -> Iterator[Finding]:
    done = run([TAILSPIN, "info"])
    enabled = enabled_by(done.out + done.error)
    words = {True: "enabled", False: "disabled, the default: rh-service install --tailspin enables it"}.get(
        enabled, f"not known: exit {done.code}, {done.words[:200]}")  # type: ignore[arg-type]
    yield Finding("ok" if enabled else "warn", "tailspin", words)
    yield Finding("info", "sudoers rule", "installed" if os.path.lexists(sudoers) else "not installed")


def _agent(run: Run, uid: int) -> Iterator[Finding]:
    done = run(["/bin/launchctl", "print", f"gui/{uid}/{LABEL}"])
    known = [line.strip() for line in done.out.splitlines() if line.strip().split(" = ")[0] in (
        "state", "runs", "last exit code", "last terminating signal", "last exit reason")]
    yield Finding("info", "agent", "; ".join(known) if done.code == 0 and known else f"not loaded (exit {done.code})")


def _sleep_log(run: Run) -> Iterator[Finding]:
    done = run(list(tools.PMSET))
    lines = done.out.encode("utf-8", "replace").splitlines()
    kinds = Counter(str(event["kind"]) for event in tools.pmset(lines))
    yield Finding("ok" if kinds or done.code == 0 else "warn", "sleep log", f"{len(lines)} lines, " + (
        ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())) or f"no event (exit {done.code})"))


def _reports(places: Sequence[Path] | None) -> Iterator[Finding]:
    for number, place in enumerate(collect.directories() if places is None else places, 1):
        name = f"reports {number}"
        try:
            files = newest_first(place)
        except FileNotFoundError:
            yield Finding("info", name, "no such directory")
            continue
        except OSError as error:
            yield Finding("warn", name, f"cannot be listed: {error.strerror} (Full Disk Access, or an administrator)")
            continue
        kinds: Counter[str] = Counter()
        denied = refused = cut = 0
        read: Callable[[Path], Iterator[dict[str, object]]] = collect.records_of
        for _, path in files[:READ_MOST]:
            try:
                found = [str(each["type"]) for each in read(path)]
            except OSError:
                denied += 1
                continue
            whole = {kind for kind in found if kind in (*WHOLE, "log_entry", "task")}
            kinds.update(whole)
            refused += not whole
            cut += bool(whole) and "error" in found
        words = ", ".join(f"{n} {kind.removesuffix('_report')}" for kind, n in sorted(kinds.items()))
        yield Finding("warn" if refused else "ok", name,
                      f"{len(files)} files; of {min(len(files), READ_MOST)}: {words or 'none read'}"
                      + (f"; {denied} denied" if denied else "")
                      + (f"; {refused} of a kind not read" if refused else "")
                      + (f"; {cut} incomplete or in binary form only" if cut else ""))
