"""The stores behind the ports where there are two of them, kept the same by the engine."""
