"""`python -m rogue_hunter NAME ...`: run rh-NAME. Only the module of that command is imported."""

from __future__ import annotations

import sys
from importlib import import_module

from rogue_hunter.cli import names


def main() -> None:
    """Run the command that the first argument names."""
    known = names()
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in known:
        sys.stderr.write(f"usage: python -m rogue_hunter {{{','.join(known)}}} ...\n")
        sys.exit(2)
    del sys.argv[1]
    import_module(f"rogue_hunter.cli.{name}").main()


if __name__ == "__main__":
    main()
