"""`python -m tests.bench`: the command line; what is measured, and how, stands in the package's docstring."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn

import tests.bench as package
from tests.bench import chart, loads, report, subjects
from tests.bench.build import REPO, BuildError, Tools, build
from tests.bench.run import Plan, prepared, run

ALONE = "RH_BENCH_ALONE"
"""Set in the environment of the benchmark's second self, which runs in a pid namespace of its own."""

QUICK_SUBJECTS = ["floor", "rh-pipe", "top", "psutil"]


def parser() -> argparse.ArgumentParser:
    """The options. What was not chosen is None and filled in by settings_of()."""
    known = "\n".join(f"  {subject.name:<18}{subject.what}" for subject in subjects.SUBJECTS.values())
    p = argparse.ArgumentParser(prog="python -m tests.bench", description=package.__doc__, epilog=f"subjects:\n{known}",
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true",
                   help=f"100 and 1,000 processes, idle and active; {', '.join(QUICK_SUBJECTS)}; two short rounds")
    p.add_argument("--sizes", type=_numbers, metavar="N,N", help="numbers of processes (100,1000,5000,10000)")
    p.add_argument("--active", type=_share, default=0.05, metavar="SHARE",
                   help="share of them that runs in each tick, for the load active (0.05)")
    p.add_argument("--loads", type=_among(loads.KINDS), metavar="KIND,KIND",
                   help=f"some of {', '.join(loads.KINDS)} (all)")
    p.add_argument("--subjects", type=_among(subjects.SUBJECTS), metavar="NAME,NAME", help="some of those below (all)")
    p.add_argument("--add", action="append", type=_added, default=[], metavar="NAME=COMMAND",
                   help="one more subject that keeps the beat, such as rh-pipe of another checkout; "
                        "{hz} and {scratch}, a directory, are filled in")
    p.add_argument("--seconds", type=_positive, metavar="S", help="length of a turn's window (10)")
    p.add_argument("--warmup", type=_positive, metavar="S",
                   help="time before the mark, not counted (3); half a second more for each 1,000 processes")
    p.add_argument("--rounds", type=int, choices=range(1, 101), metavar="N", help="turns of each on each load (3)")
    p.add_argument("--hz", type=_positive, default=3.0, metavar="H", help="the beat (3)")
    p.add_argument("--sweep", type=_positive, default=0.0, metavar="S",
                   help="let the floor, too, read every process in full once in S seconds (never)")
    p.add_argument("--whole-machine", action="store_true",
                   help="watch all processes of the machine rather than those of the load alone")
    p.add_argument("--no-syscalls", action="store_true", help="do not count system calls")
    p.add_argument("--json", type=_writable, metavar="FILE", help="write everything measured to FILE")
    p.add_argument("--svg", type=_writable, metavar="FILE", help="write a chart of cost against processes to FILE")
    return p


def _numbers(text: str) -> list[int]:
    values = [int(word) for word in text.split(",")]
    if min(values) < 1:
        raise argparse.ArgumentTypeError(f"{text}: numbers from 1 were expected")
    return values


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: a number above 0 was expected")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text}: a share above 0 and up to 1 was expected")
    return value


def _among(known: Collection[str]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        unknown = [word for word in text.split(",") if word not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(known)}")
        return text.split(",")
    return names


def _added(text: str) -> subjects.Subject:
    try:
        return subjects.added(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _writable(text: str) -> Path:
    """Found out before the run rather than behind it."""
    path = Path(text)
    try:
        path.open("a").close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error.strerror}") from None
    return path


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """The numbers of the run, with what nobody chose filled in; they go into the JSON document."""
    quick = options.quick
    return {
        "hz": options.hz,
        "sizes": options.sizes or ([100, 1000] if quick else [100, 1000, 5000, 10_000]),
        "active": options.active,
        "loads": options.loads or (["idle", "active"] if quick else list(loads.KINDS)),
        "subjects": options.subjects or (QUICK_SUBJECTS if quick else list(subjects.SUBJECTS)),
        "seconds": options.seconds or (4.0 if quick else 10.0),
        "warmup": options.warmup or (2.0 if quick else 3.0),
        "rounds": options.rounds or (2 if quick else 3),
        "sweep": options.sweep,
        "alone": ALONE in os.environ,
    }


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _on_sigterm(*_: object) -> NoReturn:
    sys.exit(143)                      # through the blocks that end what was started


def alone(tools: Tools, argv: Sequence[str]) -> int | None:
    """Run the whole benchmark in a pid namespace of its own: its exit status, None where there can be none."""
    if subprocess.run([tools.isolate, "true"], stderr=subprocess.DEVNULL, check=False).returncode:
        return None
    command = [str(tools.isolate), sys.executable, "-m", "tests.bench", *argv]
    found = [str(REPO), *filter(None, [os.environ.get("PYTHONPATH")])]
    inside = subprocess.Popen(command, env={**os.environ, ALONE: "1", "PYTHONPATH": os.pathsep.join(found)})
    try:
        return inside.wait()
    finally:
        inside.terminate()             # passed on; it cleans up behind itself
        inside.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark. Exit status: 0 done, 2 usage, 69 it cannot run here, 130 and 143 interrupted."""
    options = parser().parse_args(argv)
    settings = settings_of(options)
    if sys.platform != "linux":
        say("the benchmark reads Linux's /proc")
        return 69
    with tempfile.TemporaryDirectory(prefix="rh-bench-") as directory:
        try:
            tools = build(Path(directory))
        except BuildError as error:
            say(str(error))
            return 69
        if not options.whole_machine and ALONE not in os.environ:
            if (status := alone(tools, sys.argv[1:] if argv is None else argv)) is not None:
                return status
            say("there can be no pid namespace here: measuring among all processes of the machine")
        wanted = [subjects.SUBJECTS[name] for name in settings["subjects"]] + options.add
        ready, missing = prepared(wanted, say)
        plan = Plan(loads.plan(settings["loads"], settings["sizes"], settings["active"]), ready, settings["rounds"],
                    settings["seconds"], settings["warmup"], not options.no_syscalls)
        say(f"{len(plan.loads)} loads, {len(ready)} subjects: about {plan.duration_s() / 60:.0f} minutes")
        context = subjects.Context(tools, Path(directory), settings["hz"], settings["sweep"])
        results = run(plan, context, say)
    if options.json:
        options.json.write_text(json.dumps(report.document(results, settings, missing), indent=1) + "\n")
    if options.svg:
        options.svg.write_text(chart.svg(results))
    print(report.markdown(results, settings, missing), end="")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
