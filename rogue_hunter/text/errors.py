"""The base class of the package's errors: a message for people and an exit code."""

from __future__ import annotations

from rogue_hunter.text.format import path_text

OK, FOUND, USAGE, BAD_INPUT, UNAVAILABLE, IO_ERROR, CONFIG_ERROR = 0, 1, 2, 65, 69, 74, 78
"""Exit codes of every command; those above 64 are from sysexits.h."""


class RogueHunterError(Exception):
    """An error that a command reports in one line and ends with. `code` is the exit code.

    A subclass sets its own `code`, or each instance gets one. The message may hold a path that is not UTF-8: it
    becomes a text that a record can hold.
    """

    code = FOUND

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(path_text(message))
        if code is not None:
            self.code = code
