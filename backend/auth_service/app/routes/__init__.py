"""Routes, thin: what comes in, the use case, what goes out."""
