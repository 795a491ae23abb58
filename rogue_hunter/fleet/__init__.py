"""Many machines: rh-ship sends a host's history over NATS JetStream, rh-hub stores and queries that of all hosts."""
