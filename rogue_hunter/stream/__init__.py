"""The stream of ticks: the tick, stages and pipelines, the wire format, the clock."""
