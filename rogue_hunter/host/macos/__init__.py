"""macOS: processes and machine through libproc, sysctl and the IORegistry."""
