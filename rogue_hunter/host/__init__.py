"""Reading the operating system: one interface, one implementation a platform."""
