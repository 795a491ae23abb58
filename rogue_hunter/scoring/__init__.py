"""Scoring: how much of a hog is each process? Two models, both pure functions of the ticks.

`share` asks how many times its fair share of a scarce resource a process uses; `stress` adds up the harm it does to
the machine. A recording can be scored again by either model.
"""
