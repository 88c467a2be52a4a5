"""Real servers and processes for tests, the demo and the embedded stack."""
