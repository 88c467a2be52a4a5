"""Measures what the engine costs and how fast it carries: `python -m benchmarks [--only NAME]`."""
