"""From readings of the host to complete ticks: rates, parents and units, rogue-hunter's own usage."""
