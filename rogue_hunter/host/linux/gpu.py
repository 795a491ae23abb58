"""GPU time of processes, once a second, off the beat.

Kernel drivers that follow the DRM convention print nanoseconds of engine time in /proc/PID/fdinfo of every open GPU
device (Documentation/gpu/drm-usage-stats.rst); Nvidia's own driver reports a percentage through NVML instead, which is
asked where the package nvidia-ml-py is installed. Which processes hold a GPU device is looked up by their descriptors,
for new processes at once and for all of them every half minute.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

EVERY_S = 1.0
LOOK_EVERY_S = 30.0
"""A process that opens a GPU late in its life is found after this time."""

Use = tuple[float | None, float | None]
"""gpu_seconds_total and gpu_ms_per_s of a process; None where unknown."""


def parse_fdinfo(data: bytes) -> tuple[tuple[bytes, bytes], int] | None:
    """The client (device, id) and its engine time in ns, of one fdinfo; None for one that is no GPU or shows no time.

    Several descriptors may be one client; the time of all engines is summed. `drm-engine-capacity-*` is no time.
    """
    fields: dict[bytes, bytes] = {}
    total, known = 0, False
    for line in data.splitlines():
        name, colon, value = line.partition(b":")
        if not colon or not name.startswith(b"drm-"):
            continue
        fields[name] = value.strip()
        if name.startswith(b"drm-engine-") and not name.startswith(b"drm-engine-capacity-"):
            number, _, unit = value.strip().partition(b" ")
            if number.isdigit() and unit.strip() == b"ns":
                total += int(number)
                known = True
    if not known or b"drm-client-id" not in fields:
        return None
    return (fields.get(b"drm-pdev", fields.get(b"drm-driver", b"")), fields[b"drm-client-id"]), total


def holders(root: Path, pids: Iterable[str]) -> dict[str, list[str]]:
    """Which of these processes hold GPU devices: pid -> descriptor numbers. What may not be read holds none."""
    found: dict[str, list[str]] = {}
    for pid in pids:
        base = root / pid / "fd"
        with contextlib.suppress(OSError):
            for number in os.listdir(base):
                with contextlib.suppress(OSError):
                    if os.readlink(base / number).startswith("/dev/dri/"):
                        found.setdefault(pid, []).append(number)
    return found


def engine_ns(root: Path, pid: str, numbers: Iterable[str]) -> int | None:
    """Engine time of all GPU clients of a process, each once; None when none shows it."""
    clients: dict[tuple[bytes, bytes], int] = {}
    for number in numbers:
        with contextlib.suppress(OSError, ValueError):
            known = parse_fdinfo((root / pid / "fdinfo" / number).read_bytes())
            if known is not None:
                clients[known[0]] = max(known[1], clients.get(known[0], 0))
    return sum(clients.values()) if clients else None


@dataclass(slots=True)
class _Held:
    numbers: list[str]
    total_ns: int = 0
    last_ns: int | None = None
    at: float = 0.0


@dataclass
class Gpu:
    """Readings between calls. `nvml` returns pid -> GPU ms a second, `mono` is a clock in seconds."""

    root: Path
    nvml: Callable[[], dict[int, float]] | None = None
    mono: Callable[[], float] = time.monotonic
    _held: dict[str, _Held] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)
    _looked: float = float("-inf")

    def read(self) -> dict[int, Use]:
        """GPU use by pid, of the processes that hold a GPU. A client that closes makes the sum fall: the total never
        falls, it continues from the new baseline."""
        now = self.mono()
        self._look(now)
        found: dict[int, Use] = {}
        for pid, held in list(self._held.items()):
            ns = engine_ns(self.root, pid, held.numbers)
            if ns is None:
                del self._held[pid]
                continue
            rate = None
            if held.last_ns is None:
                held.total_ns = ns
            else:
                grown = max(0, ns - held.last_ns)
                held.total_ns += grown
                if now > held.at:
                    rate = round(grown / 1e6 / (now - held.at), 2)
            held.last_ns, held.at = ns, now
            found[int(pid)] = (round(held.total_ns / 1e9, 6), rate)
        if self.nvml is not None:
            for number, ms in self.nvml().items():
                found.setdefault(number, (None, ms))
        return found

    def _look(self, now: float) -> None:
        with contextlib.suppress(OSError):
            pids = {name for name in os.listdir(self.root) if name.isascii() and name.isdigit()}
            again = now - self._looked >= LOOK_EVERY_S
            if again:
                self._looked = now
            for pid, numbers in holders(self.root, pids if again else pids - self._seen).items():
                self._held.setdefault(pid, _Held(numbers)).numbers = numbers
            for pid in self._held.keys() - pids:
                del self._held[pid]
            self._seen = pids


class GpuThread:
    """Reads once a second in a thread of its own. `latest` is the last answer, taken without waiting."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._latest: dict[int, Use] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gpu", daemon=True)
        self._thread.start()

    def latest(self) -> dict[int, Use] | None:
        """The answer that came since the last call, or None."""
        answer, self._latest = self._latest, None
        return answer

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join(2.0)

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            self._latest = self._gpu.read()


def nvml_reader(module: Any = None) -> Callable[[], dict[int, float]] | None:
    """A reader of NVML's process utilisation, or None without the package, the library or a device."""
    try:
        nv = module or import_module("pynvml")
        nv.nvmlInit()
        devices = [nv.nvmlDeviceGetHandleByIndex(i) for i in range(nv.nvmlDeviceGetCount())]
    except Exception:  # NVMLError is a class of the optional package
        return None
    since = [0] * len(devices)

    def read() -> dict[int, float]:
        found: dict[int, float] = {}
        for i, device in enumerate(devices):
            samples = []
            with contextlib.suppress(Exception):  # no sample since then is an error to NVML
                samples = nv.nvmlDeviceGetProcessUtilization(device, since[i])
            for sample in samples:
                since[i] = max(since[i], sample.timeStamp)
                found[sample.pid] = found.get(sample.pid, 0.0) + 10.0 * min(100, sample.smUtil)
        return found

    return read


def start(root: Path) -> GpuThread | None:
    """A thread that reads, where this machine has a GPU that reports use; else None, at no cost."""
    nvml = nvml_reader() if os.path.exists("/dev/nvidiactl") else None
    if nvml is None and not os.path.isdir("/dev/dri"):
        return None
    try:
        return GpuThread(Gpu(root, nvml))
    except RuntimeError:
        return None  # no thread to be had
