"""Scoring: how rogue is a process? Two models, both pure functions of the ticks.

`share` asks how many times its fair share of a scarce resource a process uses; `stress` adds up what it does to the
machine. A recording can be scored again by either.
"""
