"""The verdict: what was short in a window of evidence, who used it, and who waited."""
