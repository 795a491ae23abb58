"""Real slowdowns with a known culprit: what rh-report and rh-report why must answer. `python -m tests.scenarios`."""
