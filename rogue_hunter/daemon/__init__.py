"""The background pipe: its stages in order, its loop, and the services around it."""
