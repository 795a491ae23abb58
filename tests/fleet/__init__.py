"""Many machines: rh-ship, rh-hub and what lies between them."""
