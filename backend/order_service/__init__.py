"""Orders, and the sagas that carry them through the other services."""
