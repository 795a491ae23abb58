"""Giving descriptors back."""

from __future__ import annotations

import contextlib
import os


def shut(fd: int) -> None:
    """Close `fd`. Linux gives a descriptor back whatever close(2) answers, so there is nothing to do about an error,
    and no reading is worth less for one."""
    with contextlib.suppress(OSError):
        os.close(fd)
