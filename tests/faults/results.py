"""What the long mode saw last, a line a case, in RESULTS.md: `python -m tests.faults --long --record` writes it.

Parts of it may be run apart (--only), also at the same time; a line is replaced by the case's next long run.
"""

from __future__ import annotations

import fcntl
import time
from pathlib import Path

from .all import CASES

PATH = Path(__file__).resolve().with_name("RESULTS.md")
_HEAD = """# The last long run of each case

Written by `python -m tests.faults --long --record`; seconds as they were on a shared machine of two cores.

| case | day | seen | s |
|---|---|---|---|
"""


def read(text: str) -> dict[str, str]:
    """The lines of a table of results, by case."""
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    return {row.split(" | ")[0].removeprefix("| "): row for row in rows}


def keep(name: str, seen: str, took_s: float) -> None:
    """Replace the line of a case. Raises OSError."""
    day = time.strftime("%Y-%m-%d", time.gmtime())
    row = f"| {name} | {day} | {' '.join(seen.replace('|', '/').split())} | {took_s:.0f} |"
    with open(PATH, "a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        rows = {**read(file.read()), name: row}
        file.truncate(0)
        file.write(_HEAD + "".join(f"{rows[case]}\n" for case in CASES if case in rows))
