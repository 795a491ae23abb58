"""Read recent entries of the kernel log and of the journal."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator

from rogue_hunter.capture import logs
from rogue_hunter.capture.command import RunCommand, first_words, part_status
from rogue_hunter.capture.request import Parts
from rogue_hunter.capture.spindump.detect import tail
from rogue_hunter.stream.tick import Record

KMSG_RECORD = 8192
"""Bytes of one record of /dev/kmsg at most (CONSOLE_EXT_LOG_MAX in the kernel)."""
KMSG_RECORDS = 200_000


def kernel_lines(path: str = "/dev/kmsg") -> Iterator[bytes]:
    """Every record in the kernel's ring buffer, oldest first, without waiting for more. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        for _ in range(KMSG_RECORDS):
            try:
                data = os.read(fd, KMSG_RECORD)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.EPIPE:  # overwritten while it was read: read the oldest that is left
                    continue
                if error.errno == errno.EINVAL:  # a record longer than the buffer
                    continue
                raise
            if not data:
                return
            yield from data.splitlines(keepends=True)
    finally:
        os.close(fd)


def kernel_log(since: float, capture: str, parts: Parts, limit: int,
               path: str = "/dev/kmsg") -> tuple[list[Record], int]:
    """Entries of the kernel since the epoch second `since`, and how many were left out."""
    # printk's clock does not advance in suspend, like CLOCK_MONOTONIC.
    boot_ts = time.time() - time.clock_gettime(time.CLOCK_MONOTONIC)
    try:
        entries = (each for each in logs.kernel(kernel_lines(path), boot_ts, capture)
                   if each["type"] == "log_entry" and each.get("ts", since) >= since)
        kept = tail(entries, limit)
    except PermissionError:
        parts.done("kernel_log", "denied", "no permission to read the kernel log (kernel.dmesg_restrict)")
    except FileNotFoundError:
        parts.done("kernel_log", "unavailable")
    except OSError as error:
        parts.done("kernel_log", "failed", f"the kernel log: {error.strerror}")
    else:
        parts.done("kernel_log", "ok")
        return kept
    return [], 0


def journal(since: float, capture: str, parts: Parts, limit: int, make: RunCommand, timeout_s: float,
            cancel: threading.Event | None) -> tuple[list[Record], int]:
    """Entries of the journal since the epoch second `since`, newest `limit`; kernel messages are skipped, because they
    are read from the kernel itself."""
    argv = ["journalctl", "--no-pager", "-q", "-o", "json", f"--since=@{since:.0f}", "-n", str(max(1, 4 * limit))]
    command = make(argv, timeout_s, 1 << 25, cancel)
    kept, left = tail((each for each in logs.journal(command.lines(), capture)
                       if each["type"] == "log_entry" and each["source"] != "kernel"), limit)
    status = part_status(command.outcome)
    if status == "failed" and "permission" in command.outcome.error.lower():
        status = "denied"
    said = f"no answer within {timeout_s:g} s" if status == "timeout" else first_words(command.outcome)
    parts.done("journal", status, None if status in ("ok", "unavailable") else f"journalctl: {said}")
    return kept, left
