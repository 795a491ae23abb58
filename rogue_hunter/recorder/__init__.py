"""The flight recorder of Linux: what ran on each CPU, from before a pause, with its stacks."""
