"""The database: SQLite in WAL mode, one writer, any number of readers."""
