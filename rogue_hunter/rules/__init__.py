"""Rules in TOML: which processes are runaway, and what to do about each."""
