"""`python -m tests.bench`: the command line; the package's docstring describes what is measured, and how."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import tests.bench as package
from tests.bench import chart, compare, goals, loads, readme, report, slope, startup, subjects, words
from tests.bench.build import REPO, BuildError, Tools, build
from tests.bench.run import Plan, Run, by_weight, prepared

ALONE = "RH_BENCH_ALONE"
"""Set in the environment of the benchmark's second self, which runs in a pid namespace of its own."""

MOST_STRETCH = 4.0
"""Of the warm-up on a machine that others use; the time would not suffice for more."""

QUICK_SUBJECTS = ["floor", "rh-pipe", "top", "psutil"]


@dataclass(frozen=True, slots=True)
class Mode:
    """The defaults of the options. `minutes` is never overrun by more than one."""

    minutes: float
    sizes: Sequence[int]
    loads: Sequence[str]
    subjects: Sequence[str]
    seconds: float
    rounds: int
    beats_s: float
    start_ups: int
    slope_ticks: int


MODES = {
    "default": Mode(14, (100, 1000, 5000, 10_000), loads.KINDS, tuple(subjects.SUBJECTS), 4, 3, 20, 20, 100_000),
    "quick": Mode(2.5, (100, 1000), ("idle", "active"), QUICK_SUBJECTS, 3, 2, 8, 5, 0),
    "long": Mode(60, (100, 1000, 5000, 10_000), loads.KINDS, tuple(subjects.SUBJECTS), 8, 9, 60, 40, 1_000_000),
}


def parser() -> argparse.ArgumentParser:
    """The options. What was not chosen is None and filled in by settings_of()."""
    known = "\n".join(f"  {subject.name:<18}{subject.what}" for subject in subjects.SUBJECTS.values())
    p = argparse.ArgumentParser(prog="python -m tests.bench", description=package.__doc__, epilog=f"subjects:\n{known}",
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    how = p.add_mutually_exclusive_group()
    how.add_argument("--quick", dest="mode", action="store_const", const="quick",
                     help=f"100 and 1,000 processes, idle and active; {', '.join(QUICK_SUBJECTS)}; two and a half minutes")
    how.add_argument("--long", dest="mode", action="store_const", const="long",
                     help="more and longer rounds, up to an hour")
    p.add_argument("--minutes", type=_positive, metavar="M", help="begin nothing behind so many minutes (14; 2.5; 60)")
    p.add_argument("--sizes", type=_numbers, metavar="N,N", help="numbers of processes (100,1000,5000,10000)")
    p.add_argument("--active", type=_share, default=0.05, metavar="SHARE",
                   help="share of them that runs in each tick, for the load active (0.05)")
    p.add_argument("--loads", type=_among(loads.KINDS), metavar="KIND,KIND",
                   help=f"some of {', '.join(loads.KINDS)} (all)")
    p.add_argument("--subjects", type=_among(subjects.SUBJECTS), metavar="NAME,NAME", help="some of those below (all)")
    p.add_argument("--add", action="append", type=_added, default=[], metavar="NAME=COMMAND",
                   help="one more subject that keeps the beat, such as rh-pipe of another checkout; "
                        "{hz} and {scratch}, a directory, are filled in")
    p.add_argument("--seconds", type=_positive, metavar="S", help="length of a turn's window (4; 3; 8)")
    p.add_argument("--warmup", type=_positive, default=1.0, metavar="FACTOR",
                   help="stretch the time before the mark, which is not counted (1)")
    p.add_argument("--rounds", type=int, choices=range(1, 101), metavar="N", help="turns of each on each load (3; 2; 9)")
    p.add_argument("--hz", type=_positive, default=3.0, metavar="H", help="the beat (3)")
    p.add_argument("--sweep", type=_positive, default=0.0, metavar="S",
                   help="let the floor, too, read every process in full once in S seconds (never)")
    p.add_argument("--whole-machine", action="store_true",
                   help="watch all processes of the machine rather than those of the load alone")
    p.add_argument("--no-syscalls", action="store_true", help="do not count system calls")
    p.add_argument("--ticks-only", action="store_true", help="no start-up times, no beat, no memory over hours")
    p.add_argument("--from", dest="kept", type=_document, metavar="FILE",
                   help="measure nothing: show the run that --json wrote to FILE")
    p.add_argument("--json", type=_writable, metavar="FILE", help="write everything measured to FILE")
    p.add_argument("--compare", type=_document, metavar="FILE", help="show this run beside the one in FILE")
    p.add_argument("--svg", type=_writable, metavar="FILE", help="write a chart of cost against processes to FILE")
    p.add_argument("--readme", action="store_true",
                   help=f"write README's block on cost, {readme.CHART.name} and {readme.DOCUMENT.name} in this directory")
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


def _document(text: str) -> report.Document:
    try:
        made = json.loads(Path(text).read_bytes())
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error.strerror}") from None
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}") from None
    if not isinstance(made, dict) or made.get("version") != report.VERSION:
        raise argparse.ArgumentTypeError(f"{text}: not what --json of this version writes")
    return made


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """The numbers of the run, with defaults filled in; they go into the JSON document."""
    mode = MODES[options.mode or "default"]
    return {
        "mode": options.mode or "default",
        "minutes": options.minutes or mode.minutes,
        "hz": options.hz,
        "sizes": options.sizes or list(mode.sizes),
        "active_sizes": options.sizes or [1000],
        "active": options.active,
        "loads": options.loads or list(mode.loads),
        "subjects": options.subjects or list(mode.subjects),
        "seconds": options.seconds or mode.seconds,
        "warmup": options.warmup,
        "rounds": options.rounds or mode.rounds,
        "sweep": options.sweep,
        "syscalls": not options.no_syscalls,
        "beats_s": 0.0 if options.ticks_only else mode.beats_s,
        "start_ups": 0 if options.ticks_only else mode.start_ups,
        "slope_ticks": 0 if options.ticks_only else mode.slope_ticks,
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


def measured(options: argparse.Namespace, settings: dict[str, Any], tools: Tools, scratch: Path) -> report.Document:
    """The whole run."""
    begin = time.monotonic()
    until = begin + 60 * settings["minutes"]
    before = report.load_average()
    if before > words.BUSY_LOAD:
        say(f"WARNING: the load average is {before:.2f}: others use this machine, the figures are not to be quoted")
    wanted = [subjects.SUBJECTS[name] for name in settings["subjects"]] + options.add
    ready, missing = prepared(wanted, say)
    # Where all must wait for a CPU, what a subject does at its start takes as much longer.
    stretch = settings["warmup"] * min(MOST_STRETCH, max(1.0, before / (os.cpu_count() or 1)))
    context = subjects.Context(tools, scratch, settings["hz"], settings["sweep"], stretch)
    chosen = loads.plan(settings["loads"], settings["sizes"], settings["active_sizes"], settings["active"])
    plan = Plan(by_weight(chosen), ready, settings["rounds"], settings["seconds"], settings["syscalls"],
                settings["beats_s"], until)
    say(f"{len(plan.loads)} loads, {len(ready)} subjects: about {plan.duration_s(context.hz) / 60:.0f} minutes of turns; "
        f"all ends within {settings['minutes'] + 1:g} minutes")
    start_up = []
    if settings["start_ups"]:
        start_up = startup.measured(scratch, settings["start_ups"], begin + 60 * settings["minutes"] / 5)
        for one in start_up:
            say(startup.line(one))
    grown = None
    if settings["slope_ticks"]:
        found = slope.measured(settings["slope_ticks"], 60 * settings["minutes"] / 5)
        say(f"memory over hours: {found}")
        grown = found if isinstance(found, slope.Slope) else None
        missing |= {"memory over hours": found} if isinstance(found, str) else {}
    run = Run(plan, context, say)
    run.go()
    return report.document(report.Outcome(
        run.results, settings, missing, run.left_out, start_up, grown,
        {"before": round(before, 2), "after": round(report.load_average(), 2)}, time.monotonic() - begin))


def show(made: report.Document, options: argparse.Namespace) -> None:
    """Print what a run found, and write the files that were asked for."""
    if options.json:
        options.json.write_text(json.dumps(made, indent=1) + "\n")
    if options.svg:
        options.svg.write_text(chart.svg(made))
    if options.readme:
        readme.write(made)
    print(words.markdown(made))
    if options.compare:
        print(compare.text(options.compare, made))
    print(goals.text(made), end="")
    if warning := words.busy(made):
        say(warning)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark. Exit status: 0 done, 2 usage, 69 it cannot run here, 74 a file cannot be written, 130 and 143
    interrupted."""
    options = parser().parse_args(argv)
    settings = settings_of(options)
    if options.kept is None and sys.platform != "linux":
        say("the benchmark reads Linux's /proc")
        return 69
    try:
        if options.kept is not None:
            show(options.kept, options)
            return 0
        with tempfile.TemporaryDirectory(prefix="rh-bench-") as directory:
            tools = build(Path(directory))
            if not options.whole_machine and ALONE not in os.environ:
                if (status := alone(tools, sys.argv[1:] if argv is None else argv)) is not None:
                    return status
                say("there can be no pid namespace here: measuring among all processes of the machine")
            made = measured(options, settings, tools, Path(directory))
        show(made, options)
    except BuildError as error:
        say(str(error))
        return 69
    except (OSError, readme.ReadmeError) as error:
        say(f"{error}")
        return 74
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
