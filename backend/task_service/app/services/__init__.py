"""Use cases, one unit of work each. They know the ports, and no store."""
