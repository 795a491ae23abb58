"""10^6 damaged inputs for every parser in the long mode, some hundreds in the short one; both seeded.

An input that once failed is kept in corpus/NAME and tried first in every run.
"""

from __future__ import annotations

import hashlib
import random
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from .mutate import mutate
from .table import SEED, Bench, case
from .targets import TARGETS, Target

CORPUS = Path(__file__).resolve().parent / "corpus"
SHORT, LONG = 8000, 1_000_000
SLOW_S = 5.0
"""No input takes so long on any machine, unless something in the parser is more than linear."""


def _folder(name: str) -> Path:
    return CORPUS / "".join(c if c.isalnum() else "-" for c in name)


def _fuzz(name: str, target: Target) -> Callable[[Bench], str]:
    def run(bench: Bench) -> str:
        rng = random.Random(SEED ^ zlib.crc32(name.encode()))
        kept = sorted(_folder(name).glob("*")) if _folder(name).is_dir() else []
        inputs = LONG if bench.long else max(60, int(SHORT * target.share))
        refused = 0
        slowest = 0.0
        grown: list[bytes] = []
        take, allowed = target.take, target.allowed
        for number in range(-len(kept), inputs):
            if number < 0:
                data = kept[number].read_bytes()
            else:
                of = grown if grown and rng.random() < 0.3 else target.seeds
                data = mutate(rng.choice(of), rng, target.words)
            began = time.thread_time()
            try:
                take(data)
            except allowed:
                refused += 1
                continue
            except Exception as error:
                where = _keep(name, data)
                raise AssertionError(f"{name}: input {number}, kept as {where}: {data[:300]!r}") from error
            finally:
                slowest = max(slowest, time.thread_time() - began)
            if number % 97 == 0 and len(data) < 3000:
                # Some damage is only reached through other damage that was taken.
                grown = [*grown, data][-20:]
        assert slowest < SLOW_S, f"{name}: {slowest:.1f} s for one input"
        return f"{inputs + len(kept)} inputs ({len(kept)} kept ones): 0 tracebacks, {refused} refused"
    return run


def _keep(name: str, data: bytes) -> Path:
    folder = _folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha256(data).hexdigest()[:12]
    path.write_bytes(data)
    return path.relative_to(CORPUS)


for _name, _target in TARGETS.items():
    case(f"fuzz/{_name}", "a value, or its one kind of error")(_fuzz(_name, _target))
