"""What is kept from tick to tick: events, pauses, minutes, and the ring of the last ticks."""
