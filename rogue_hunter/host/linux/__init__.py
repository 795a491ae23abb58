"""Linux: processes and machine from /proc."""
