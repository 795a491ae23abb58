"""The reaper: ends the processes that match a rule, and only those."""
