"""The messages that services tell each other: the published language, and nothing else. Knows no service."""
