"""A capture on Linux: what threads do, who waits for whom, pressure, logs; all from /proc and the journal."""
