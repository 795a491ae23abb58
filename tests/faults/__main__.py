"""The table of faults: python -m tests.faults [--long] [--only PATTERN]."""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback

from .all import CASES
from .table import Skip, bench


def main() -> int:
    """Run the cases whose name holds PATTERN and print a line for each; 1 when one is not as expected."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--long", action="store_true", help="10^6 inputs a parser, 200 kills, every call, every error")
    parser.add_argument("--only", default="", metavar="PATTERN", help="only cases whose name holds this")
    parser.add_argument("--list", action="store_true", help="name the cases")
    args = parser.parse_args()
    long = args.long or "RH_LONG" in os.environ
    failed = []
    print("| case | expected | seen | s |\n|---|---|---|---|")
    for case in CASES.values():
        if args.only not in case.name:
            continue
        began = time.monotonic()
        if args.list or (case.long_only and not long):
            seen = "" if args.list else "(long mode only)"
        else:
            with bench(long) as made:
                try:
                    seen = case.run(made)
                except Skip as reason:
                    seen = f"SKIPPED: {reason}"
                except Exception:
                    failed.append(case.name)
                    traceback.print_exc()
                    seen = "**FAILED**"
        print(f"| {case.name} | {case.expected} | {seen} | {time.monotonic() - began:.1f} |", flush=True)
    if failed:
        print(f"not as expected: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
