"""`rh-sample --self-check` on a Mac: read ourselves through every call, and compare with what we know otherwise.

The rest of the package is proven on Linux against Apple's headers and a scripted libproc. What those cannot prove is
what a real kernel answers; this does, in about a second, and reports what it found.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import resource
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rogue_hunter.host.macos.abi import (
    ESRCH,
    PROC_PIDLISTTHREADS,
    PROC_PIDT_SHORTBSDINFO,
    PROC_PIDTASKALLINFO,
    PROC_PIDTBSDINFO,
    PROC_PIDTHREADINFO,
    PROC_PIDUNIQIDENTIFIERINFO,
    SZOMB,
    ProcBsdInfo,
    ProcBsdShortInfo,
    ProcTaskAllInfo,
    ProcThreadInfo,
    ProcUniqIdentifierInfo,
)
from rogue_hunter.host.macos.decode import (
    Usage,
    decode_arguments,
    decode_bsdinfo,
    decode_kinfo,
    decode_rusage,
    decode_shortinfo,
    decode_taskallinfo,
    decode_uniqidentifier,
)
from rogue_hunter.host.macos.host import DarwinHost
from rogue_hunter.host.macos.libproc import (
    Library,
    PidInfo,
    PidLister,
    RusageReader,
    list_threads,
    load,
    process_arguments,
    process_kinfo,
    process_path,
    seconds_per_tick,
    sysctl_int,
    sysctl_text,
)
from rogue_hunter.host.macos.machine import boot_time, darwin_clock, monotonic_ns
from rogue_hunter.host.macos.slow import default_gpu_reader
from rogue_hunter.host.protocol import HostError

BURN_S = 0.3
"""CPU time that calibrates the tick unit: getrusage counts in microseconds, so it is known to 1 in 1,000 and better."""
TOLERANCE = 0.1
"""The units that come into question differ by 41.67 (24 MHz ticks read as nanoseconds) or 1000."""
NO_SUCH_PID = 2**31 - 2


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `status` is ok, warn (a field will be missing or a cost is high), fail (numbers would be
    wrong) or info."""

    status: str
    name: str
    detail: str


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """All findings; `verdict` is sound, degraded (something warned) or broken (something failed)."""

    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> str:
        statuses = {finding.status for finding in self.findings}
        return "broken" if "fail" in statuses else "degraded" if "warn" in statuses else "sound"

    def with_(self, more: Iterable[Finding]) -> SelfCheck:
        """These findings and others."""
        return SelfCheck((*self.findings, *more))

    def lines(self) -> list[str]:
        """For people: a line a finding, then the verdict. It can be shared: home directory, user, host and identifiers
        are replaced by words."""
        width = max(len(finding.name) for finding in self.findings)
        return [f"{f.status:4}  {f.name:{width}}  {shareable(f.detail)}" for f in self.findings] + [
            f"verdict: {self.verdict}"]


_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


def shareable(text: str) -> str:
    """The text without the home directory, the name of the user and of the host, and identifiers of this machine."""
    for private, word in ((str(Path.home()), "~"), (Path.home().name, "USER"), (socket.gethostname(), "HOST")):
        if len(private) > 1:
            text = text.replace(private, word)
    return _UUID.sub("UUID", text)


def self_check(library: str | Library | None = None, *, burn: Callable[[], None] | None = None) -> SelfCheck:
    """Check this Mac (or what `library` makes of one). Never raises HostError: a library that does not load is a
    finding. `burn` uses BURN_S of CPU time."""
    try:
        lib = library if isinstance(library, Library) else load(library)
        checks = (_system, _listing, _counters, _unit, _descriptions, _threads, _denials, _clocks, _whole, _gpu,
                  _defunct)
        findings = [Finding("ok", "library", f"{lib.path}: every function is there")]
    except HostError as error:
        return SelfCheck((Finding("fail", "library", str(error)),))
    for check in checks:
        try:
            findings += check(lib, burn or _burn)
        except Exception as error:  # the check's own failure is the worst finding, not the end of the others
            findings.append(Finding("fail", check.__name__.strip("_"), f"{type(error).__name__}: {error}"))
    return SelfCheck(tuple(findings))


_Findings = Iterator[Finding]


def _verdict(right: bool, name: str, detail: str, otherwise: str = "fail") -> Finding:
    return Finding("ok" if right else otherwise, name, detail)


def _own_usage(lib: Library) -> tuple[Usage, int]:
    reader = RusageReader(lib)
    raw, errno = reader(os.getpid())
    if raw is None:
        raise OSError(errno, "proc_pid_rusage of ourselves")
    return decode_rusage(raw, reader.version), reader.version


def _burn() -> None:
    end = time.process_time() + BURN_S
    while time.process_time() < end:
        sum(range(1000))


def _system(lib: Library, burn: Callable[[], None]) -> _Findings:
    known = [sysctl_text(lib, name) or "?" for name in ("kern.osproductversion", "kern.osrelease", "hw.model")]
    yield Finding("info", "system", f"macOS {known[0]}, Darwin {known[1]}, {known[2]}, {platform.machine()}, Python "
                  f"{platform.python_version()}")


def _listing(lib: Library, burn: Callable[[], None]) -> _Findings:
    pids = PidLister(lib)()
    yield _verdict(os.getpid() in pids and len(pids) == len(set(pids)), "listing",
                   f"{len(pids)} processes, {'we' if os.getpid() in pids else 'but not we'} among them")


def _counters(lib: Library, burn: Callable[[], None]) -> _Findings:
    usage, version = _own_usage(lib)
    yield _verdict(version >= 4, "rusage flavor", f"RUSAGE_INFO_V{version}", "warn")
    missing = [name for name, value in usage._asdict().items() if value is None]
    yield _verdict(not missing, "counters kept", f"unknown here: {', '.join(missing)}" if missing else "all", "warn")
    total = sysctl_int(lib, "hw.memsize") or 0
    yield _verdict(1 << 20 <= usage.memory_bytes <= total, "own footprint", f"{usage.memory_bytes / 1e6:.1f} MB")
    if usage.runnable_ticks is not None:
        delay = (usage.runnable_ticks - usage.cpu_ticks) * seconds_per_tick(lib)
        # Runnable time is booked when a thread blocks or its 10 ms quantum ends, so it may lag.
        yield _verdict(delay > -0.1, "run delay", f"{delay:.4f} s since we started", "warn")


def _unit(lib: Library, burn: Callable[[], None]) -> _Findings:
    ticks, known = _own_usage(lib)[0].cpu_ticks, resource.getrusage(resource.RUSAGE_SELF)
    burn()
    ticks_after, known_after = _own_usage(lib)[0].cpu_ticks, resource.getrusage(resource.RUSAGE_SELF)
    seconds = known_after.ru_utime + known_after.ru_stime - known.ru_utime - known.ru_stime
    unit = seconds_per_tick(lib)
    measured = (ticks_after - ticks) / seconds if seconds > 0 else 0.0
    yield _verdict(abs(measured * unit - 1) <= TOLERANCE, "tick unit",
                   f"{1 / unit:,.0f} ticks a second by the system, {measured:,.0f} measured against getrusage")


def _descriptions(lib: Library, burn: Callable[[], None]) -> _Findings:
    pid = os.getpid()
    usage, _ = _own_usage(lib)
    raw, errno = PidInfo(lib, PROC_PIDTASKALLINFO, ProcTaskAllInfo)(pid)
    if raw is None:
        yield Finding("fail", "taskallinfo", f"errno {errno}")
        return
    who, task = decode_taskallinfo(raw)
    yield _verdict((who.pid, who.ppid, who.uid) == (pid, os.getppid(), os.geteuid()) and task.threads >= 1,
                   "taskallinfo", f"{who.command} [{who.pid}], uid {who.uid}, {task.threads} threads")
    start, boot = (who.start_us or 0) / 1e6, boot_time(lib) or 0.0
    yield _verdict(boot - 1 <= start <= time.time() + 1, "start time", f"{time.time() - start:.1f} s ago")
    total = ProcTaskAllInfo.from_buffer_copy(raw).ptinfo
    apart = abs(total.pti_total_user + total.pti_total_system - usage.cpu_ticks) * seconds_per_tick(lib)
    yield _verdict(apart < 0.1, "the two counts of CPU time", f"{apart * 1000:.1f} ms apart")
    kinfo, errno = process_kinfo(lib, pid)
    same = kinfo is not None and decode_kinfo(kinfo)[:3] == who[:3] and decode_kinfo(kinfo).start_us == who.start_us
    yield _verdict(same, "kern.proc.pid", "the same process and start time" if same else f"differs, errno {errno}")
    short, errno = PidInfo(lib, PROC_PIDT_SHORTBSDINFO, ProcBsdShortInfo)(pid, 1)
    same = short is not None and decode_shortinfo(short)[:3] == who[:3]
    yield _verdict(same, "shortbsdinfo", "the same process" if same else f"differs, errno {errno}")
    unique, errno = PidInfo(lib, PROC_PIDUNIQIDENTIFIERINFO, ProcUniqIdentifierInfo)(pid)
    ids = decode_uniqidentifier(unique) if unique is not None else (0, 0)
    yield _verdict(ids[0] > 0, "unique id", f"{ids[0]}, version {ids[1]}" if unique else f"errno {errno}", "warn")
    path = process_path(lib, pid) or b""
    yield _verdict(path.startswith(b"/"), "path", f"absolute, {len(path)} bytes" if path else "none", "warn")
    buffer = ctypes.create_string_buffer(sysctl_int(lib, "kern.argmax") or 1 << 20)
    arguments, errno = process_arguments(lib, pid, buffer)
    argv = decode_arguments(arguments) if arguments is not None else []
    yield _verdict(bool(argv), "arguments", f"{len(argv)} of them" if argv else f"errno {errno}", "warn")


def _threads(lib: Library, burn: Callable[[], None]) -> _Findings:
    read = PidInfo(lib, PROC_PIDTHREADINFO, ProcThreadInfo)
    handles = list_threads(lib, os.getpid(), PROC_PIDLISTTHREADS)
    answers = [raw for handle in handles if (raw := read(os.getpid(), handle)[0]) is not None]
    states = [ProcThreadInfo.from_buffer_copy(raw).pth_run_state for raw in answers]
    yield _verdict(1 in states, "threads", f"states {states}; we run in one of them", "warn")


def _denials(lib: Library, burn: Callable[[], None]) -> _Findings:
    read = RusageReader(lib)
    read(os.getpid())
    _, errno = read(NO_SUCH_PID)
    yield _verdict(errno == ESRCH, "an unused pid", f"errno {errno} (ESRCH is {ESRCH})")
    raw, errno = read(1)
    means = "readable" if raw is not None else f"errno {errno}"
    yield Finding("info", "launchd", f"{means}; as {'root' if os.geteuid() == 0 else 'a user'}")


def _clocks(lib: Library, burn: Callable[[], None]) -> _Findings:
    clock = darwin_clock(lib)
    assert clock.sleeping is not None  # noqa: S101  what darwin_clock promises
    ours, theirs, known = monotonic_ns(lib), clock.sleeping, time.monotonic_ns
    begin = (ours(), theirs(), known())
    time.sleep(0.05)
    end = (ours(), theirs(), known())
    passed, continuous, reference = (b - a for a, b in zip(begin, end, strict=True))
    yield _verdict(abs(passed / reference - 1) < 0.05 and abs(continuous / reference - 1) < 0.05, "clocks",
                   f"{passed / 1e6:.1f} and {continuous / 1e6:.1f} ms in {reference / 1e6:.1f} ms")
    yield Finding("info", "asleep since boot", f"{(end[1] - end[0]) / 1e9:.0f} s")


def _whole(lib: Library, burn: Callable[[], None]) -> _Findings:
    host = DarwinHost(lib)
    try:
        host.snapshot()
        time.sleep(0.2)
        begin = time.perf_counter()
        cpu = time.thread_time()
        shot = host.snapshot()
        cpu, wall = time.thread_time() - cpu, time.perf_counter() - begin
        facts = host.facts()
    finally:
        host.close()
    yield _verdict(shot.errors == 0, "every process",
                   f"{len(shot.processes)}: {shot.active} ran, {shot.unreadable} may not be read, {shot.errors} errors")
    yield _verdict(cpu * 3 < 0.1, "cost", f"{wall * 1000:.1f} ms a tick, {cpu * 1000:.1f} ms of CPU: "
                   f"{cpu * 300:.1f} % of a core at 3 Hz", "warn")
    busy, available = shot.machine.get("cpu_busy_cores"), shot.machine.get("memory_available_bytes")
    right = busy is not None and 0 <= busy <= facts.cpus and available is not None and available > 0
    yield _verdict(right, "the machine", f"{facts.cpus} CPUs, {busy} busy, "
                   f"{(available or 0) / 2**30:.1f} of {(facts.memory_total_bytes or 0) / 2**30:.1f} GiB available")
    yield Finding("info", "boot", "by its identifier" if _UUID.fullmatch(facts.boot_id) else "by its time")


def _gpu(lib: Library, burn: Callable[[], None]) -> _Findings:
    reader = default_gpu_reader(lib)
    used = reader() if reader is not None else None
    yield Finding("info", "GPU", "cannot be read" if used is None else f"{len(used)} processes hold a client")


def _defunct(lib: Library, burn: Callable[[], None]) -> _Findings:
    """A child of ours that ended and is not yet waited for. Only where the library is the machine's own."""
    if lib.injected:
        return
    child = os.posix_spawn("/usr/bin/true", ["true"], {})
    try:
        read, deadline = PidInfo(lib, PROC_PIDTBSDINFO, ProcBsdInfo), time.monotonic() + 5
        status, errno = 0, 0
        while status != SZOMB and time.monotonic() < deadline:
            raw, errno = read(child, 1)
            status = decode_bsdinfo(raw).status if raw is not None else 0
            time.sleep(0.01)
        counted, _ = RusageReader(lib)(child)
    finally:
        os.waitpid(child, 0)
    yield _verdict(status == SZOMB, "a defunct process", f"seen, its counters {'kept' if counted else 'gone'}"
                   if status == SZOMB else f"not seen, errno {errno}", "warn")
