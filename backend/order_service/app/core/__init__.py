"""Settings and the dual-write manager."""
