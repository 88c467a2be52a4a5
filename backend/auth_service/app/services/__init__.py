"""Use cases; each writes in one unit of work."""
