"""Captures: what the machine was doing during a stall, from /proc, from spindump and from logs."""
