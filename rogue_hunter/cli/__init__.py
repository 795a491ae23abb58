"""The commands: one thin click command a file, and the only importers of click."""
