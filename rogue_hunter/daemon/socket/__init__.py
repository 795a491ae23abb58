"""The socket of rh-pipe: NDJSON to processes of the same user, served from the loop that waits for the next beat."""
