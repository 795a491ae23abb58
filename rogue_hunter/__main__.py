"""`python -m rogue_hunter NAME ...`: run rh-NAME. Only the module of that command is imported."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path


def main() -> None:
    """Run the command that the first argument names."""
    known = names()
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in known:
        sys.stderr.write(f"usage: python -m rogue_hunter {{{','.join(known)}}} ...\n")
        sys.exit(2)
    del sys.argv[1]
    import_module(f"rogue_hunter.cli.{name}").main()


def names() -> list[str]:
    """The commands, without rh-."""
    files = (Path(__file__).parent / "cli").glob("[a-z]*.py")
    return sorted(file.stem for file in files if file.stem != "common")


if __name__ == "__main__":
    main()
