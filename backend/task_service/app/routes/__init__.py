"""Routes, thin: what goes over the wire, and which use case it asks for."""
