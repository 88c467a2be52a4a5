"""The journal: its tables, the triggers that fill it, the relay that carries it, and what could not be carried."""
