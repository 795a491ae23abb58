"""A capture on Linux: threads, waits, pressure and logs, from /proc and the journal."""
