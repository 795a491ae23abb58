"""How many lines of the package the tests run, the commands that they start included: python -m tests.tools.covered [--record].

Further arguments go to pytest. Counting makes everything two to three times as slow, so that this is no part of bin/rh-check;
the cases of tests/faults, which fail calls by the thousand, are left out unless they are named.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
PATH = REPO / "tests" / "COVERAGE.md"
GOAL = 90.0
_HEAD = """# Lines of the package that the tests run

Written by `python -m tests.tools.covered --record`; processes that the tests start are counted, but for those that are killed,
that run as another user or in a namespace of their own. Branches are counted too, and are not in these figures.

"""


def measured(directory: Path, arguments: list[str]) -> tuple[int, dict[str, tuple[int, int]]]:
    """pytest's exit code, and for each module the lines that were run and all that could be."""
    environment = {**os.environ, "COVERAGE_FILE": str(directory / "data")}
    chosen = arguments or ["tests", "--ignore=tests/faults"]
    code = subprocess.run([sys.executable, "-m", "pytest", "-q", "--cov", "--cov-report=", *chosen], cwd=REPO, env=environment,
                          check=False).returncode
    report = directory / "report.json"
    subprocess.run([sys.executable, "-m", "coverage", "json", "-q", "-o", report], cwd=REPO, env=environment, check=True)
    files = json.loads(report.read_bytes())["files"]
    return code, {Path(name).relative_to("rogue_hunter").as_posix() if not Path(name).is_absolute()
                  else Path(name).relative_to(REPO / "rogue_hunter").as_posix():
                  (each["summary"]["covered_lines"], each["summary"]["num_statements"]) for name, each in files.items()}


def table(found: dict[str, tuple[int, int]], day: str, arguments: list[str]) -> str:
    """The figure of all, and the modules below the goal, the worst first."""
    run, every = (sum(each[i] for each in found.values()) for i in (0, 1))
    what = f" by `{' '.join(arguments)}`" if arguments else ", without tests/faults"
    lines = [f"{day}{what}: **{100 * run / every:.1f} %** of {every:,} lines in {len(found)} modules.", ""]
    below = sorted((100 * a / b, name, b - a) for name, (a, b) in found.items() if b and 100 * a / b < GOAL)
    if below:
        lines += [f"| below {GOAL:g} % | % | lines not run |", "|---|---|---|",
                  *(f"| {name} | {percent:.0f} | {missed} |" for percent, name, missed in below)]
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """Print the table; 1 when a test failed or the figure is below the goal."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.covered", description=__doc__)
    parser.add_argument("--record", action="store_true", help=f"write {PATH.name}")
    args, arguments = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="rh-covered-") as directory:
        code, found = measured(Path(directory), arguments)
    made = table(found, time.strftime("%Y-%m-%d", time.gmtime()), arguments)
    print(made)
    if args.record:
        PATH.write_text(_HEAD + made, "utf-8")
    run, every = (sum(each[i] for each in found.values()) for i in (0, 1))
    return 1 if code or 100 * run < GOAL * every else 0


if __name__ == "__main__":
    sys.exit(main())
