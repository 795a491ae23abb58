"""python -m tests.mutation [--only PATTERN] [--jobs N] [--every K]."""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from importlib.machinery import SourceFileLoader
from pathlib import Path

from . import results
from .operators import Mutant, mutants
from .targets import TARGETS

REPO = Path(__file__).resolve().parents[2]
PACKAGE = REPO / "rogue_hunter"
PATIENCE = 5
"""How many times the CPU time of the tests as they are a changed module may take, and 10 s at the least: a change that
makes a loop endless is noticed by this."""
WALL_S = 240
"""For what waits and takes no CPU time. A change that this ends is noticed as well, so it is far beyond any run."""
SHOW = "RH_MUTATION_SHOW"
"""Set to see what the tests print."""


def _become(module: str, changed: bytes | None, tests: tuple[str, ...], cpu_s: int) -> int:
    """In the forked child: the module as changed, and its tests. pytest's exit code."""
    os.setpgid(0, 0)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if SHOW not in os.environ:
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
    if changed is not None:
        name = "rogue_hunter." + module.removesuffix("/__init__").replace("/", ".")
        path = str(PACKAGE / f"{module}.py")
        usual = SourceFileLoader.get_code

        def get_code(self: SourceFileLoader, fullname: str) -> object:
            return compile(changed, path, "exec") if fullname == name else usual(self, fullname)

        SourceFileLoader.get_code = get_code  # type: ignore[method-assign,assignment]
    import conftest  # noqa: F401  (it loads the profile that this one replaces)
    from hypothesis import HealthCheck, Phase, settings

    settings.register_profile("mutation", deadline=None, database=None, derandomize=True, max_examples=40,
                              phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck))
    import pytest

    args = ["-x", "-q", "-p", "no:cacheprovider", "--assert=plain", "--hypothesis-profile=mutation",
            "--rootdir", str(REPO), "-c", str(REPO / "pyproject.toml")]
    return int(pytest.main([*args, *(str(REPO / "tests" / test) for test in tests)]))


def _start(module: str, changed: bytes | None, cpu_s: int) -> int:
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = _become(module, changed, TARGETS[module], cpu_s)
        except BaseException:
            code = 98       # the changed module cannot even be imported
            if SHOW in os.environ:
                traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def _ended(running: dict[int, tuple[Mutant | None, float]]) -> Iterator[tuple[Mutant | None, bool]]:
    """Those that are done: the change, and whether all tests passed."""
    while True:
        for pid, (mutant, since) in list(running.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if not done and time.monotonic() - since > WALL_S:
                os.killpg(pid, signal.SIGKILL)
                done, status = os.waitpid(pid, 0)
            if done:
                with suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)      # what a test of it left behind
                del running[pid]
                yield mutant, os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0
                return
        time.sleep(0.01)


def _as_it_is(module: str) -> None:
    """End the program unless all tests pass without a change."""
    (_, passed), = _ended({_start(module, None, 600): (None, time.monotonic())})
    if not passed:
        sys.exit(f"{module}: its tests fail as it is")


def _module(module: str, every: int, jobs: int, show: bool) -> results.Outcome:
    source = (PACKAGE / f"{module}.py").read_bytes()
    chosen = list(mutants(source))[::every]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    _as_it_is(module)
    cpu_s = 10 + int(PATIENCE * (resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before))
    running: dict[int, tuple[Mutant | None, float]] = {}
    survived: list[Mutant] = []
    waiting = chosen[::-1]
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop()
            running[_start(module, mutant.apply(source), cpu_s)] = (mutant, time.monotonic())
        for ended, alive in _ended(running):
            if alive and ended is not None:
                survived.append(ended)
                if show:
                    print(f"  {module}:{ended.line}: {ended.change}", flush=True)
    _as_it_is(module)   # else somebody changed the tree meanwhile, and it was that what was noticed
    return results.Outcome(module, len(chosen), sorted(survived, key=lambda m: m.start), source.decode().splitlines())


def main() -> int:
    """Every module whose name holds PATTERN; 1 where fewer than nine of ten changes are noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--every", type=int, default=1, metavar="K", help="every Kth change")
    parser.add_argument("--record", action="store_true", help="keep what was found in RESULTS.md")
    args = parser.parse_args()
    import click  # noqa: F401
    import hypothesis  # noqa: F401
    import jsonschema  # noqa: F401
    import orjson  # noqa: F401
    import pytest  # noqa: F401

    low = 0
    for module in TARGETS:
        if args.only and not any(pattern in module for pattern in args.only):
            continue
        began = time.monotonic()
        outcome = _module(module, args.every, args.jobs, True)
        print(f"{outcome.line()} {time.monotonic() - began:.0f} s", flush=True)
        low += outcome.score < 0.9
        if args.record and args.every == 1:
            results.keep(outcome)
    return 1 if low else 0


if __name__ == "__main__":
    sys.exit(main())
