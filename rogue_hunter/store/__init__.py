"""The database: SQLite in WAL mode, one writer, any number of readers."""

from rogue_hunter.store.database import DatabaseError, Lock, open_reader, open_writer
from rogue_hunter.store.writer import Writer, store

__all__ = ["DatabaseError", "Lock", "Writer", "open_reader", "open_writer", "store"]
