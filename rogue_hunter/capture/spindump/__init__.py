"""Reading a spindump report into records."""
