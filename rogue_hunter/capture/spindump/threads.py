"""The line that opens a thread in a spindump report.

    Thread 0x3fd504    DispatchQueue "com.apple.main-thread"(1)    341 samples (1-341)    priority 31 (base 31)
        cpu time 0.922s (3.2G cycles, 15.4G instructions, 0.21c/i)    3 I/Os (48 KB)

Report versions up to 29 pad the parts to columns; later ones put four spaces between them. Every part but the id may
be missing. `<multiple>` and `0xa,0xb` stand for several threads that served one queue.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from rogue_hunter.capture.spindump.decode import NAME_LIMIT, fraction, text, whole

_ID = re.compile(rb"\s*Thread (<[^>]{0,64}>|\S{1,4096})")
_SAMPLES = re.compile(rb"(?:^|\s)([0-9]{1,12}) samples? \(([0-9]{1,12})(?:-([0-9]{1,12}))?[^)]{0,64}\)")
_PRIORITY = re.compile(rb"\spriority ([0-9]{1,6})(?:-([0-9]{1,6}))?(?: \(base ([0-9]{1,6})(?:-[0-9]{1,6})?\))?")
_CPU = re.compile(rb"\scpu time (<?[0-9][0-9.]{0,20})s")
_IDLE = re.compile(rb"\sidle time (<?[0-9][0-9.]{0,20})s")
_LAST_RAN = re.compile(rb"last ran (<?[0-9][0-9.,]{0,20})s")
_LINE_LIMIT = 8192


class ThreadLine(NamedTuple):
    """What the line says; None where it says nothing."""

    thread_id: str
    name: str | None
    queue: str | None
    samples: int | None
    first: int | None
    last: int | None
    priority: int | None
    priority_high: int | None
    base_priority: int | None
    cpu_seconds: float | None
    idle_seconds: float | None
    last_ran_s: float | None

    @property
    def aggregated(self) -> bool:
        """It stands for several threads."""
        return self.thread_id.startswith("<") or "," in self.thread_id


def is_thread_line(line: bytes) -> bool:
    """`line` without its indentation opens a thread."""
    return line.startswith((b"Thread 0x", b"Thread <"))


def thread_line(line: bytes) -> ThreadLine:
    """Take the line apart. A name may hold what looks like another part: the counts are the last of their kind."""
    line = line[:_LINE_LIMIT].rstrip()
    head = _ID.match(line)
    if head is None:
        return ThreadLine("?", *[None] * 11)
    rest = line[head.end() :]
    every = list(_SAMPLES.finditer(rest))
    counts = every[-1] if every else None
    labels, numbers = (rest[: counts.start()], rest[counts.end() :]) if counts else _cut_labels(rest)
    queue, name = _labels(labels.strip())
    first = whole(counts.group(2)) if counts else None
    last = whole(counts.group(3)) if counts and counts.group(3) else first
    priority = _PRIORITY.search(numbers)
    cpu, idle, ran = _CPU.search(numbers), _IDLE.search(numbers), _LAST_RAN.search(numbers)
    high = whole(priority.group(2)) if priority and priority.group(2) else None
    return ThreadLine(
        text(head.group(1), 4096), name, queue,
        whole(counts.group(1)) if counts else None, first, last,
        whole(priority.group(1)) if priority else None, high,
        whole(priority.group(3)) if priority and priority.group(3) else None,
        fraction(cpu.group(1)) if cpu else None,
        fraction(idle.group(1)) if idle else None,
        fraction(ran.group(1).replace(b",", b"")) if ran else None,
    )


def _cut_labels(rest: bytes) -> tuple[bytes, bytes]:
    at = rest.rfind(b" priority ")
    return (rest[:at], rest[at:]) if at >= 0 else (rest, b"")


def _labels(labels: bytes) -> tuple[str | None, str | None]:
    """Queue and name; each may be quoted and hold anything."""
    queue = name = None
    if labels.startswith(b"DispatchQueue "):
        at = labels.find(b' Thread name "')
        mine, labels = (labels[:at], labels[at + 1 :]) if at >= 0 else (labels, b"")
        queue = text(mine[len(b"DispatchQueue ") :].strip(), NAME_LIMIT)
    if labels.startswith(b"Thread name "):
        quoted = labels[len(b"Thread name ") :].removesuffix(b"(changed)").strip()
        if len(quoted) >= 2 and quoted.startswith(b'"') and quoted.endswith(b'"'):
            quoted = quoted[1:-1]
        name = text(quoted, NAME_LIMIT)
    return queue, name
