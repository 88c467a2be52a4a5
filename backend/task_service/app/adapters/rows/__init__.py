"""Things as rows: what the adapters on SQL have in common."""
