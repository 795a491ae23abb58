"""The wait graph: which thread waits for which, and the root that blocks the others."""
