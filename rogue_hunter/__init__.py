"""rogue-hunter: find the process that makes the machine pause, prove it, and stop it safely."""

__version__ = "0.1.0"
