"""The table of faults: python -m tests.faults [--long] [--only PATTERN]."""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback

from . import results
from .all import CASES
from .table import Skip, bench


def main() -> int:
    """Run the cases whose name holds PATTERN and print a line for each; 1 when one is not as expected."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--long", action="store_true", help="10^6 inputs a parser, 200 kills, every call with every error, every statement with three")
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN",
                        help="only cases whose name holds this; may be given more than once")
    parser.add_argument("--list", action="store_true", help="name the cases")
    parser.add_argument("--record", action="store_true", help=f"keep what was seen in {results.PATH.name}, with --long")
    args = parser.parse_args()
    long = args.long or "RH_LONG" in os.environ
    if args.record and not long:
        parser.error("--record is for --long")
    failed = []
    print("| case | expected | seen | s |\n|---|---|---|---|")
    for case in CASES.values():
        if args.only and not any(pattern in case.name for pattern in args.only):
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
        took_s = time.monotonic() - began
        print(f"| {case.name} | {case.expected} | {seen} | {took_s:.1f} |", flush=True)
        if args.record and not args.list:
            results.keep(case.name, seen, took_s)
    if failed:
        print(f"not as expected: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
