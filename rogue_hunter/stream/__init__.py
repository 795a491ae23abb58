"""The stream of ticks: the tick itself, the wire format, the clock that paces it."""
