"""What is fuzzed: every parser, with inputs that it is made for, and what it may answer instead of a value."""

from __future__ import annotations

import contextlib
import io
import json
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from ctypes import sizeof
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rogue_hunter.capture.blame import blame, blame_records
from rogue_hunter.capture.reports.detect import parse_file
from rogue_hunter.capture.reports.tools import get_recent_sleep_events
from rogue_hunter.capture.reports.tools import pmset as parse_pmset_log
from rogue_hunter.config.options import Config
from rogue_hunter.config.toml import ConfigError, to_toml, values_of
from rogue_hunter.config.toml import parse as parse_config
from rogue_hunter.host.linux import parse as linux
from rogue_hunter.host.linux.describe import cgroup_path
from rogue_hunter.host.linux.gpu import parse_fdinfo
from rogue_hunter.host.macos import abi
from rogue_hunter.host.macos import decode as darwin
from rogue_hunter.host.macos.iokit import parse_ioreg
from rogue_hunter.reaper.audit import AuditError, AuditLog
from rogue_hunter.reaper.candidate import check_match
from rogue_hunter.reaper.guards import Budget
from rogue_hunter.recorder import symbols
from rogue_hunter.recorder.decode import entries
from rogue_hunter.recorder.symbols import parse_dump, parse_jit, parse_kallsyms, parse_maps
from rogue_hunter.rules.load import builtin
from rogue_hunter.rules.load import parse as parse_rules
from rogue_hunter.rules.matcher import Matcher
from rogue_hunter.rules.model import RuleError
from rogue_hunter.rules.parse import narrow, place_in
from rogue_hunter.sampling.lineage import Lineage
from rogue_hunter.scoring.stage import Score
from rogue_hunter.store.prune import parse_size
from rogue_hunter.stream import wire
from rogue_hunter.stream.pipeline import chain
from rogue_hunter.stream.tick import Tick
from rogue_hunter.text.format import clip, csv_cell, visible
from rogue_hunter.text.redact import LIMIT, redact
from rogue_hunter.text.timespec import parse_duration, parse_time
from rogue_hunter.tracking.events import Track
from rogue_hunter.tracking.minutes import History
from rogue_hunter.tracking.pauses import Pauses
from tests.recorder.rings import comm, fork, newest_first, sample, switch
from tests.tools import ticks as ticktools
from tests.tools.processes import io_text, stat_line, status_text

from .table import REPO

CONFIG = Config()
SAMPLES = REPO.parent / "shared" / "samples"
_SCRATCH = tempfile.TemporaryDirectory(prefix="rh-fuzz-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)


@dataclass(frozen=True)
class Target:
    """`take` gets bytes; `allowed` are the only exceptions. `share` is the part of the usual number in short runs."""

    take: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    allowed: tuple[type[Exception], ...] = (ValueError,)
    words: tuple[bytes, ...] = ()
    share: float = 1.0


def _elf(data: bytes) -> None:
    """The functions of a file at some addresses."""
    def read(offset: int, size: int) -> bytes:
        return data[offset: offset + min(size, 1 << 20)] if 0 <= offset < len(data) else b""

    headers = symbols.parse_elf(read)
    symbols.build_id(read, headers)
    symbols.function_names(read, headers, list(range(0, 1 << 16, 1 << 12)))


def _samples(pattern: str, size: int = 1500) -> tuple[bytes, ...]:
    """Pieces of real output of macOS, where it is at hand."""
    found = []
    for path in sorted(SAMPLES.glob(pattern)):
        data = path.read_bytes()
        third = data.rfind(b"\n", 0, len(data) // 3) + 1
        found += [data[:size], data[third:third + size]]
    return tuple(found)


# -- what is done with the bytes ---------------------------------------------------------------------------------------

def _cmdline(data: bytes) -> None:
    line = redact(linux.split_cmdline(data))
    assert len(line.encode()) <= LIMIT
    wire.dumps(line)


def _shown(data: bytes) -> None:
    text = data.decode("utf-8", "backslashreplace")
    for shown in (visible(text), clip(text, 40)):
        assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or 0x202A <= ord(c) <= 0x202E for c in shown)
    assert csv_cell(text)[:1] not in ("=", "+", "-", "@", "\t", "\r")


def _read(data: bytes) -> Iterator[Tick]:
    return wire.Reader(io.BytesIO(data), "fuzz").ticks()


def _wire(data: bytes) -> None:
    sink = io.BytesIO()
    wire.write(_read(data), sink)
    for line in sink.getvalue().split(b"\n")[:-1]:
        assert type(json.loads(line)["type"]) is str


def _stages(data: bytes) -> None:
    """The filters, as a shell pipeline would have them, from damaged input to lines."""
    sink = io.BytesIO()
    ticks = chain(_read(data), Lineage(), Score(CONFIG), Track(CONFIG), Pauses(CONFIG.pause), History(CONFIG),
                  Matcher(builtin()))
    wire.write(ticks, sink)
    sink2 = io.BytesIO()
    wire.write(chain(_read(data), Score(CONFIG, "stress", explain=True), Track(CONFIG, "stress")), sink2)


def _config(data: bytes) -> None:
    config = parse_config(data)
    assert parse_config(to_toml(config).encode()) == config


def _project(data: bytes) -> None:
    base = builtin()
    rules = narrow(base, values_of(data, place_in("fuzz")), "fuzz")
    assert set(base.safety.whitelist) <= set(rules.safety.whitelist)
    for inside in (True, False):
        assert rules.safety.least_pid(own_namespace=inside) >= base.safety.least_pid(own_namespace=inside)
    assert {rule.name for rule in rules.rules} <= {rule.name for rule in base.rules}


def _forensics(data: bytes) -> None:
    records = list(parse_file(io.BytesIO(data)))
    for each in (*records, *blame_records(blame(records))):
        wire.dumps(each)


def _audit(data: bytes) -> None:
    path = Path(_SCRATCH.name) / "audit.jsonl"
    path.write_bytes(data)
    Path(f"{path}.head").unlink(missing_ok=True)
    log = AuditLog(path, now=lambda: 1.7e9, mono_ns=lambda: 10**12)
    log.verify()
    Budget(log.recent(3600.0, ticktools.BOOT), "run").refusal("r", builtin().safety)
    log.check()
    log.recent(3600.0)


def _audit_seed() -> bytes:
    path = Path(_SCRATCH.name) / "seed.jsonl"
    log = AuditLog(path, now=lambda: 1.7e9, mono_ns=lambda: 10**12)
    for n in range(3):
        log.append(kind="intent" if n else "signal", run="run", boot_id=ticktools.BOOT, pid=1000 + n, command="x",
                   rule="r", outcome="terminated")
    return path.read_bytes()


def _match(data: bytes) -> None:
    value = wire.loads(data)
    if isinstance(value, dict):
        check_match(value)


def _decoders(data: bytes) -> None:
    """The structures of macOS from any bytes: each decodes, or reports that they are too few."""
    for version in range(len(abi.RUSAGE)):
        _or_short(lambda raw, version=version: darwin.decode_rusage(raw, version), data)
    for decode in (darwin.decode_bsdinfo, darwin.decode_taskallinfo, darwin.decode_shortinfo, darwin.decode_kinfo,
                   darwin.decode_uniqidentifier, darwin.decode_timeval, darwin.decode_arguments):
        _or_short(decode, data)


def _or_short(decode: Callable[[bytes], Any], data: bytes) -> None:
    with contextlib.suppress(ValueError):
        decode(data)


def _pmset(data: bytes) -> None:
    list(parse_pmset_log(data.splitlines()))
    get_recent_sleep_events(now=1.7e9, run=lambda argv: data)


def _time(data: bytes) -> None:
    text = data.decode("utf-8", "backslashreplace")
    found = parse_time(text, 1.7e9)
    assert isinstance(found, float)


def _text(take: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: take(data.decode("utf-8", "backslashreplace"))


_STREAM = ticktools.lines(ticktools.Machine(3, processes=3).ticks(3))
_STAT = stat_line(1234, b"a) R 1\n", threads=3, utime=7, cutime=9, rss=12)
_RULES = (REPO / "tests/fixtures/rules/reaper.toml").read_bytes()
_RULE = b'''[[rules]]
name = "x"
priority = "high"
[rules.conditions]
cpu_percent_min = 80.0
duration_seconds = 30
command_patterns = ["pytest", "^node$"]
any = [{ memory_mb_min = 100 }, { not = { orphan = true } }]
[rules.action]
type = "kill"
timeout_seconds = 5
'''

TARGETS: dict[str, Target] = {
    "stat": Target(linux.parse_stat, (_STAT, stat_line(2, b"", b"Z"))),
    "stat, what others change": Target(linux.parse_touched, (_STAT,)),
    "status": Target(linux.parse_status, (status_text(), b"Name:\ta\\nUid:\t0\nUid:\t1\t1\t1\t1\n")),
    "user ids": Target(linux.effective_uid, (b"\t0\t1000\t0\t0",)),
    "io": Target(linux.parse_io, (io_text(5, 6),)),
    "schedstat": Target(linux.parse_schedstat, (b"123456789 42 7\n",)),
    "cmdline": Target(_cmdline, (b"/usr/bin/python3\0-c\0import x\0--password=hunter2\0", b"sh\0-c\0mysql -phunter2 "
                                 b"'a b' \"Authorization: Bearer abc\" https://u:p@h/\0"), ()),
    "cgroup": Target(cgroup_path, (b"12:cpu:/a\n1:name=systemd:/b\n0::/user.slice/x.scope\n",), ()),
    "fdinfo": Target(parse_fdinfo, (b"pos:\t0\ndrm-driver:\ti915\ndrm-client-id:\t7\ndrm-engine-render:\t55 ns\n",)),
    "meminfo": Target(linux.parse_meminfo, (b"MemTotal:       16384 kB\nMemFree: 1 kB\nMemAvailable:   8 kB\n",)),
    "pressure": Target(linux.parse_pressure, (b"some avg10=0.00 avg60=0.00 avg300=0.00 total=12\nfull avg10=0 "
                                               b"total=1\n",)),
    "cpu": Target(linux.parse_cpu, (b"cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1\ncpu1 2\nintr 5 6\nbtime 1700000000\n",)),
    "loadavg": Target(linux.parse_loadavg_last_pid, (b"0.00 0.01 0.05 1/100 4321\n",), ()),
    "names as shown": Target(_shown, (b"=cmd|' /C calc'!A0", b"\x1b]52;c;aGk=\x07\xe2\x80\xaetxt.exe", b"a\tb"), ()),
    "NDJSON": Target(_wire, (_STREAM, _STREAM[:900]), (), (b'"pid":', b'"type":"tick"', b'"v":1',
                                                               b'{"type":"x","v":1}\n')),
    "NDJSON through every stage": Target(_stages, (_STREAM,), (), (b'"cpu_percent":1e308', b'"interval_s":0',
                                         b'"ts":0', b'"start_time":-1e300', b'"mono_ns":0', b'"cpus":0'), 0.05),
    "configuration": Target(_config, (b'[system]\nhz = 3\n[bands]\nhigh = 60\n[store]\nqueue_ticks = 5\n',
                                      b'[scoring]\nmodel = "stress"\n[scoring.stress.bands]\nhigh = 50\n'),
                            (ConfigError,), (b"hz", b"= inf", b"= nan", b"[[", b"'''", b"1979-05-27T07:32:00Z"), 0.3),
    "rules": Target(lambda data: parse_rules(data, "fuzz"), (_RULE, _RULES[:1500]), (RuleError,),
                    (b"(a+)+$", b'""', b"(?i)", b"[z-a]", b"(?P<a", b"= nan", b"= -1", b"= true"), 0.1),
    "a project's rules": Target(_project, ((REPO / "tests/fixtures/rules/project.toml").read_bytes(),), (RuleError,),
                                (b"= 1", b"whitelist_processes", b"min_pid = 1"), 0.1),
    "spindump": Target(_forensics, ((REPO / "tests/fixtures/forensics/heavy.txt").read_bytes()[:1500],
                                    (REPO / "tests/fixtures/forensics/deadlock.spin").read_bytes()[:1500],
                                    *_samples("spindump/*")), (), (b"blocked by ", b" [", b"] (", b"Thread 0x",
                                                                    b"Process: "), 0.1),
    "logs": Target(_forensics, tuple((REPO / f"tests/fixtures/forensics/{name}.ndjson").read_bytes()[:1500]
                                     for name in ("unified", "journal")) + _samples("logshow/*") +
                   (b"6,1,22,-;hi\\x0athere\n SUB=x\n3,2,33,c;oops\n",), (), (), 0.2),
    "pmset": Target(_pmset, (b"2026-01-02 03:04:05 +0100 Sleep  \tEntering Sleep state due to 'Idle Sleep': Using BATT "
                             b"(Charge:10%) 33 secs\n", *_samples("pmset/*", 800)), (), (), 0.3),
    "ioreg": Target(parse_ioreg, (b'<?xml version="1.0"?><plist version="1.0"><array><dict><key>IOUserClientCreator'
                                  b'</key><string>pid 5, x</string><key>AppUsage</key><array><dict><key>accumulatedGPU'
                                  b'Time</key><integer>5</integer></dict></array></dict></array></plist>',),
                    words=(b"<integer>", b"<date>", b"</dict>", b"<data>", b"&amp;"), share=0.3),
    "structures of macOS": Target(_decoders, (bytes(sizeof(abi.KinfoProc)), bytes(range(256)) * 3,
                                              struct.pack("=i", 2) + b"/bin/x\0\0\0x\0-a\0HOME=/x\0"), (), (), 0.2),
    "lengths of time": Target(_text(parse_duration), (b"1h30m", b"90s", b"500ms", b"2d", b"1.5h")),
    "points of time": Target(_time, (b"1h ago", b"14:32", b"yesterday", b"2026-11-21T14:32:05+01:00", b"@1795244561")),
    "sizes": Target(_text(parse_size), (b"500MB", b"1.5GiB", b"1000")),
    "match records": Target(_match, (b'{"type":"match","v":1,"ts":1.0,"pid":1234,"start_ticks":5,"boot_id":"b",'
                                     b'"rule":"r","age_s":3.5,"evidence_terms":[]}',)),
    "perf rings": Target(lambda data: [list(entries(data, chains=chains)) for chains in (True, False)],
                         (newest_first(sample(5, 7, (1, 2), (3,)), comm(6, 7, b"a"), fork(7, 8, 7), size=256),
                          newest_first(switch(5, 7), switch(6, 0), size=128)), ()),
    "memory maps": Target(parse_maps, (b"55d0c000-55d0d000 r-xp 00001000 fe:01 1234   /usr/bin/x y\n",), ()),
    "kernel symbols": Target(parse_kallsyms, (b"ffffffff81000000 T _text\t[m]\nffffffff81000100 t f\n",), ()),
    "perf-PID.map": Target(parse_jit, (b"7f00 10 name with spaces\n7f10 20 b\n",), ()),
    "ELF": Target(_elf, (Path("/bin/true").read_bytes()[:6000],), share=0.1),
    "py-spy": Target(parse_dump, (b'[{"active":true,"frames":[{"name":"f","short_filename":"a.py","line":3}]}]',), ()),
    "audit lines": Target(_audit, (_audit_seed(),), (AuditError,), (b'"seq":', b'"ts":"x"', b'"hash":"',
                                                                   b'"prev":1'), 0.05),
}
