"""Opening the database, for the one writer and for readers, and finding damaged values in it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import time
from pathlib import Path

from rogue_hunter import files
from rogue_hunter.store.migrations import VERSION, migrate, migrate_apart, prepare
from rogue_hunter.store.tables import APPLICATION_ID, TABLES, quoted
from rogue_hunter.stream import wire
from rogue_hunter.text.errors import IO_ERROR, RogueHunterError

NO_HISTORY = "no history yet: start rh-pipe first (rh-pipe, or rh-service install)"
"""What is printed where there is no database."""

BUSY_MS = 20
"""Milliseconds that the writer waits for a lock. It owns the only writing connection, so that locks are short; the beat
must not wait for them, and what cannot be written is kept and retried."""

MAKING_MS = 5000
"""The same while another process makes or migrates the file, which happens once, before the first beat."""

CHECK_S = 2.0
"""The check of a file at start is given up after this time: 500 MB take longer."""


class DatabaseError(RogueHunterError):
    """The database cannot be used. `code` is the exit code: 69 in use, 74 cannot be read or written, 78 not ours."""

    code = IO_ERROR


class Lock:
    """The right to be the only writer of a database, held for life by flock on a file beside it.

    SQLite before 3.51.3 can lose data when two connections checkpoint at once. The lock ends with the process, however
    it ends.
    """

    def __init__(self, database: Path) -> None:
        """Take the lock. Raises DatabaseError, 69 when another process has it."""
        self.path = database.with_name(database.name + ".lock")
        self._database = database
        self._held = self._take()

    def keep(self) -> None:
        """Take the lock again if its file was deleted or replaced: another process could hold the new one. Raises
        DatabaseError as at first."""
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(self._held.fd), os.stat(self.path, follow_symlinks=False)):
                return
        old, self._held = self._held, self._take()
        old.release()

    def _take(self) -> files.Lock:
        if not self._database.parent.is_dir():
            raise DatabaseError(f"{self._database.parent}: no such directory", 74)
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DatabaseError(f"{self.path}: {error.strerror}", 74) from None
        try:
            return files.hold(fd, self.path)
        except OSError as error:    # a file system without locks
            raise DatabaseError(f"{self.path}: cannot be locked: {error.strerror}", 74) from None
        except files.Locked as error:
            who = f" (process {error.holder})" if error.holder else ""
            raise DatabaseError(f"{self._database}: another rh-pipe writes to it{who}", 69) from None

    def release(self) -> None:
        """Let others write. The file stays: removing it would let two processes hold two locks of one name."""
        self._held.release()


def open_writer(path: Path, *, check: bool = True, apart: bool = False) -> tuple[sqlite3.Connection, Path | None]:
    """The writing connection: WAL, synchronous NORMAL, migrated; made with mode 0600 if there is no file.

    `apart` migrates in a process of its own, which keeps this one small. A corrupt file is moved aside, and its new
    name given as the second value. Raises DatabaseError. The caller holds the Lock.
    """
    _regular(path)
    _ours(path)
    moved = None
    for attempt in (1, 2):
        try:
            return _connect(path, check, apart), moved
        except sqlite3.DatabaseError as error:
            if attempt == 2 or not is_corrupt(error):
                raise _refusal(path, error) from None
            moved = move_aside(path)
    raise AssertionError("unreachable")


def is_corrupt(error: sqlite3.Error) -> bool:
    """True when the file is damaged or no database."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def move_aside(path: Path) -> Path:
    """Rename a corrupt file and its -wal, so that it can be looked at; never delete it. Raises DatabaseError."""
    stamp = time.strftime("%Y%m%dT%H%M%S")
    target = path.with_name(f"{path.name}.corrupt-{stamp}")
    n = 0
    while target.exists():
        n += 1
        target = path.with_name(f"{path.name}.corrupt-{stamp}-{n}")
    try:
        os.rename(path, target)
        for tail in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{path}{tail}", f"{target}{tail}")
    except OSError as error:
        raise DatabaseError(f"{path}: corrupt, and cannot be moved aside: {error.strerror}", 74) from None
    return target


def open_reader(path: Path) -> sqlite3.Connection:
    """A read-only connection with rows by name. Raises DatabaseError: 69 when there is no such file."""
    if not path.exists():
        raise DatabaseError(f"{path}: {NO_HISTORY}", 69)
    _regular(path)
    try:
        try:
            return _reader(path, "mode=ro")
        except sqlite3.OperationalError as error:
            # Beside the file a reader makes another one, which a full disk and a read-only directory do not allow.
            if error.sqlite_errorcode & 0xFF not in NOT_BESIDE or not _at_rest(path):
                raise
            return _reader(path, "mode=ro&immutable=1")
    except sqlite3.DatabaseError as error:
        raise _refusal(path, error) from None


NOT_BESIDE = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL)


def _at_rest(path: Path) -> bool:
    """Whether all of a database is in its file: nothing is in the write-ahead log, and no process has the lock."""
    try:
        files.check_lock(path.with_name(path.name + ".lock"))
        return os.stat(f"{path}-wal").st_size == 0
    except FileNotFoundError:
        return True
    except (OSError, files.Locked):
        return False


def _reader(path: Path, how: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{_quoted(path)}?{how}", uri=True, isolation_level=None, timeout=5.0)
    try:
        connection.row_factory = sqlite3.Row
        _known_version(connection, path)
        connection.execute("PRAGMA query_only = 1")
    except BaseException:
        connection.close()
        raise
    return connection


def _quoted(path: Path) -> str:
    from urllib.parse import quote

    return quote(os.fsencode(path.absolute()))


def _connect(path: Path, check: bool, apart: bool) -> sqlite3.Connection:
    with contextlib.suppress(FileExistsError):
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            raise
        except OSError as error:
            raise DatabaseError(f"{path}: {error.strerror}", 74) from None
    # One page at most: another process is making the file at this moment, and locks it for a few fsyncs.
    waits = MAKING_MS if path.stat().st_size <= 4096 else BUSY_MS
    connection = sqlite3.connect(path, isolation_level=None, timeout=waits / 1000)
    try:
        _known_version(connection, path, writing=True)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if 0 < version < VERSION and apart:
            connection.close()
            migrate_apart(path)
            return _connect(path, check=False, apart=False)
        if version < VERSION:
            connection.execute(f"PRAGMA busy_timeout = {MAKING_MS}")
        prepare(connection)
        if version and check:
            _quick_check(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        # A reader that stays in a transaction lets the WAL grow; afterwards it is cut back to this size.
        connection.execute("PRAGMA journal_size_limit = 8388608")
        # KiB. SQLite would keep 2 MB, which fill in three days and look like a leak until then; we append.
        connection.execute("PRAGMA cache_size = -512")
        if version < VERSION:
            migrate(connection)
            connection.execute("PRAGMA shrink_memory")
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        with contextlib.suppress(OSError):
            os.chmod(path, 0o600)
    except BaseException:
        connection.close()
        raise
    return connection


def _known_version(connection: sqlite3.Connection, path: Path, writing: bool = False) -> None:
    """Refuse what is not ours: another program's file, or one of a newer version. Nothing is written."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if version > VERSION and application == APPLICATION_ID:
        raise DatabaseError(f"{path}: made by a newer rogue-hunter (version {version}, here {VERSION})", 78)
    if application == version == tables == 0 and not writing:      # rh-pipe was killed while it made the file
        raise DatabaseError(f"{path}: {NO_HISTORY}", 69)
    if application != APPLICATION_ID and (tables or not writing):
        raise DatabaseError(f"{path}: not a database of rogue-hunter", 78)
    if version < VERSION and not writing:
        raise DatabaseError(f"{path}: made by an older version; rh-pipe migrates it when it starts", 78)


def _quick_check(connection: sqlite3.Connection) -> None:
    deadline = time.monotonic() + CHECK_S
    connection.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
    try:
        row = connection.execute("PRAGMA quick_check(1)").fetchone()
        if row and row[0] != "ok":
            error = sqlite3.DatabaseError(row[0])
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
    finally:
        connection.set_progress_handler(None, 0)


def _regular(path: Path) -> None:
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise DatabaseError(f"{path}: {error.strerror}", 74) from None
    if stat.S_ISLNK(info.st_mode):
        raise DatabaseError(f"{path}: is a symbolic link", 74)
    if not stat.S_ISREG(info.st_mode):
        raise DatabaseError(f"{path}: not a regular file", 74)


def _ours(path: Path) -> None:
    """Refuse to write what others could read: a file that another user made, who may have put it in our way. Root may
    write to a user's own, which that user keeps in a directory of their own."""
    try:
        owner, directory = os.stat(path, follow_symlinks=False).st_uid, os.stat(path.parent)
    except OSError:
        return  # there is no file, or opening it fails with the reason
    me = os.geteuid()
    theirs = me == 0 and directory.st_uid == owner and not directory.st_mode & 0o022
    if owner != me and not theirs:
        raise DatabaseError(f"{path}: belongs to user {owner}", 74)


def _refusal(path: Path, error: sqlite3.Error) -> DatabaseError:
    return DatabaseError(f"{path}: not a readable database ({error})", 74) if is_corrupt(error) else failed(path, error)


def failed(path: Path, error: sqlite3.Error) -> DatabaseError:
    """The error of a statement: 69 where another process is in the way, else 74."""
    busy = getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
    return DatabaseError(f"{path}: {error}", 69 if busy else 74)


_FITS = {"TEXT": "('null', 'text')", "INTEGER": "('null', 'integer')", "REAL": "('null', 'real', 'integer')"}


def misfit(path: Path) -> str | None:
    """The place of the first damaged value, or why the file cannot be read; None when all is as declared.

    Reads the whole file: for when an answer has failed, not for each one.
    """
    try:
        connection = open_reader(path)
    except DatabaseError as error:
        return str(error)
    # What is no UTF-8 would be an error of its own when it is fetched; it is only looked at here.
    connection.text_factory = bytes
    try:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found is not None and found[0] != b"ok":
            return bytes(found[0]).decode("utf-8", "backslashreplace")
        there = {bytes(row[0]).decode() for row in connection.execute("SELECT name FROM sqlite_master")}
        for table in TABLES:
            for column in table.columns if table.name in there else ():
                wrong = f"typeof({quoted(column.name)}) NOT IN {_FITS[column.sql]}"
                if connection.execute(f"SELECT 1 FROM {table.name} WHERE {wrong} LIMIT 1").fetchone() is not None:
                    return f"{table.name}.{column.name} holds a value of another type"
                if column.type in (list, dict) and _broken(connection, table.name, column.name, column.type):
                    return f"{table.name}.{column.name} is no {_JSON[column.type]} of JSON"
        return _state(connection)
    except sqlite3.Error as error:
        return str(error)
    finally:
        connection.close()


def damaged(path: Path, error: Exception) -> Exception:
    """What to report if an answer could not be made: that the file is damaged if it is, else the error itself."""
    wrong = misfit(path) if path.exists() else None
    return error if wrong is None else DatabaseError(f"{path}: damaged: {wrong}", 74)


_JSON = {list: "array", dict: "object"}


def _broken(connection: sqlite3.Connection, table: str, column: str, kind: type) -> bool:
    for row in connection.execute(f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL"):
        try:
            if not isinstance(wire.loads(bytes(row[0])), kind):
                return True
        except ValueError:
            return True
    return False


def _state(connection: sqlite3.Connection) -> str | None:
    """What is wrong with daemon_state."""
    for key, value in connection.execute("SELECT key, value FROM daemon_state"):
        name = bytes(key).decode("utf-8", "backslashreplace")
        try:
            stored = wire.loads(bytes(value))
            if key == b"last_tick" and stored is not None:
                wire.check("tick", stored)
        except (ValueError, TypeError, AttributeError) as error:
            return f"daemon_state: {name} is invalid: {error}"
    return None
