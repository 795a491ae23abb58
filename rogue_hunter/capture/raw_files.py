"""Copies of raw captures: private, bounded in size, the oldest deleted first."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from rogue_hunter.capture.request import Parts
from rogue_hunter.config.options import Forensics
from rogue_hunter.paths import PathError, private_dir, state_dir

SUFFIX = ".tailspin"


def keep_raw(source: Path, capture: str, settings: Forensics, parts: Parts) -> dict[str, object]:
    """Copy `source` to the directory of copies; the fields raw_path and raw_bytes, or a problem among `parts`.

    The copy is left out when the disk would be left with less than settings.free_mb, or when the file alone is
    beyond the quota.
    """
    try:
        directory = private_dir(Path(settings.raw_directory) if settings.raw_directory else state_dir() / "captures")
        size = source.stat().st_size
        quota = settings.raw_quota_mb << 20
        if size > quota:
            parts.problems.append(f"raw file not kept: {size >> 20} MB, the quota is {settings.raw_quota_mb} MB")
            return {}
        make_room(directory, quota - size)
        if shutil.disk_usage(directory).free - size < settings.free_mb << 20:
            parts.problems.append(f"raw file not kept: less than {settings.free_mb} MB would be free on the disk")
            return {}
        target = directory / (capture + SUFFIX)
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as out, source.open("rb") as file:
            try:
                shutil.copyfileobj(file, out, 1 << 20)
            except OSError:
                target.unlink(missing_ok=True)
                raise
        return {"raw_path": str(target), "raw_bytes": target.stat().st_size}
    except PathError as error:
        parts.problems.append(f"raw file not kept: {error}")
    except OSError as error:
        parts.problems.append(f"raw file not kept: {error.strerror}")
    return {}


def make_room(directory: Path, allowed: int) -> int:
    """Delete the oldest copies in `directory` until they take `allowed` bytes at most; how many were deleted.

    Only regular files with the suffix of copies are counted and deleted.
    """
    found: list[tuple[int, str, int, Path]] = []
    for path in directory.iterdir():
        if path.suffix == SUFFIX and not path.is_symlink() and path.is_file():
            stat = path.stat()
            found.append((stat.st_mtime_ns, path.name, stat.st_size, path))
    total = sum(size for _, _, size, _ in found)
    deleted = 0
    for _, _, size, path in sorted(found):
        if total <= allowed:
            break
        path.unlink(missing_ok=True)
        total -= size
        deleted += 1
    return deleted
