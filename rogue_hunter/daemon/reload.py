"""Reload the configuration when its file changes, or on SIGHUP. An invalid file is rejected; the old settings stay.

watchdog watches the directories (an editor replaces a file rather than writing to it); its threads only wake the loop,
and everything else happens there, between two beats.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rogue_hunter.config.options import Config
from rogue_hunter.config.toml import ConfigError, load, settings, toml_value
from rogue_hunter.text.format import path_text

SETTLE_S = 0.2
"""Seconds of quiet after a change: an editor writes, renames and sets times one after the other."""

POLL_S = 2.0
"""Poll interval when the directory cannot be watched."""

WATCHED_POLL_S = 10.0
"""Poll interval when the directory is also watched: a replaced directory sends no more events."""

AT_ONCE = frozenset({"system", "bands", "scoring", "rogue_selection", "tracking", "pause", "budget", "forensics",
                     "reap"})
"""Tables that take effect with the next tick; the others with the next start."""

Stamp = tuple[tuple[int, ...] | None, ...]


class Reloader:
    """Applies changes of one configuration file. `config` is the configuration in force; `apply` is called with a new
    one. A missing file means the defaults, unless `must` says that it has to exist."""

    def __init__(self, config: Config, file: Path, must: bool, say: Callable[[str, str], object],
                 apply: Callable[[Config], object], clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config
        self._apply = apply
        self._file = file
        self._must = must
        self._say = say
        self._clock = clock
        self._stamp = self._seen = stamp(file)
        self._moved_at = clock()
        self._observer: Any = None
        self.status: dict[str, Any] = {"file": path_text(file) if self._stamp[0] else None, "read_at": time.time(),
                                       "error": None}

    def look(self) -> bool:
        """Read the file again if it has changed and is no longer being written; True when it was read."""
        now, seen = self._clock(), stamp(self._file)
        if seen != self._seen:
            self._seen, self._moved_at = seen, now
        if seen == self._stamp or now - self._moved_at < SETTLE_S:
            return False
        self.read()
        return True

    @property
    def unsettled(self) -> bool:
        """True while a change was seen and the file may still be written."""
        return self._seen != self._stamp

    def read(self) -> bool:
        """Read the file now; False when it is invalid and the old configuration stays."""
        self._stamp = self._seen = stamp(self._file)
        try:
            config = load(self._file) if self._must else load(None, self._file)
        except ConfigError as error:
            self.status["error"] = path_text(str(error))
            self._say("error", f"the configuration stays as it was: {error}")
            return False
        self._use(config)
        return True

    def _use(self, config: Config) -> None:
        at_once, later = changes(self.config, config)
        self.config = config
        self._apply(config)
        self.status.update(file=path_text(self._file) if self._stamp[0] else None, read_at=time.time(), error=None)
        message = f"configuration read again: {', '.join(at_once) or 'nothing changed'}"
        if later:
            message += f"; at the next start: {', '.join(later)}"
        self._say("info", message)

    # -- watching ----------------------------------------------------------------------------------------------------

    def watch(self, hurry: Callable[[], object]) -> bool:
        """Have watchdog call `hurry`, in a thread of its own, when the file or, if it is a link, its target changes.
        False when it cannot watch; then regular calls of `look` find the change."""
        names = {self._file.absolute(), Path(os.path.realpath(self._file))}
        directories = {name.parent for name in names}
        if not all(map(os.path.isdir, directories)):
            self._say("debug", f"the configuration file is polled every {POLL_S:g} s: its directory does not exist")
            return False
        try:
            import logging

            from watchdog.events import FileSystemEvent, FileSystemEventHandler
            from watchdog.observers import Observer
        except ImportError as error:
            self._say("debug", f"the configuration file is polled every {POLL_S:g} s: {error}")
            return False
        # Its threads print warnings on standard error while they are being stopped.
        logging.getLogger("watchdog").addHandler(logging.NullHandler())
        wanted = {os.fsencode(name) for name in names}

        class Handler(FileSystemEventHandler):
            """Ignores events of opening and reading, which every reload causes."""

            def on_any_event(self, event: FileSystemEvent) -> None:
                if event.event_type not in ("opened", "closed_no_write"):
                    places = {os.fsencode(event.src_path), os.fsencode(event.dest_path or "")}
                    if places & wanted:
                        hurry()

        try:
            observer = Observer()
            for directory in directories:
                observer.schedule(Handler(), str(directory))
            observer.start()
        except (OSError, RuntimeError) as error:
            self._say("debug", f"the configuration file is polled every {POLL_S:g} s: {error}")
            return False
        self._observer = observer
        return True

    def close(self) -> None:
        """End the threads."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(1.0)
            self._observer = None


def stamp(file: Path) -> Stamp:
    """The state of a file, to be compared: of the file that the path leads to, and of the link itself."""
    found: list[tuple[int, ...] | None] = []
    for look in (os.stat, os.lstat):
        try:
            info = look(file)
            found.append((info.st_mtime_ns, info.st_size, info.st_ino, info.st_dev))
        except OSError:
            found.append(None)
    return tuple(found)


def changes(before: Config, after: Config) -> tuple[list[str], list[str]]:
    """What differs, as texts: the changes in force from the next tick on and those from the next start on."""
    old = {(s.table, s.name): s.value for s in settings(before)}
    found: tuple[list[str], list[str]] = [], []
    for s in settings(after):
        was = old[s.table, s.name]
        if s.value != was:
            change = f"{s.table}.{s.name} {toml_value(was)} -> {toml_value(s.value)}"
            found[s.table.split(".")[0] not in AT_ONCE].append(change)
    return found
