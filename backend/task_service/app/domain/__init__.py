"""What the service speaks of and its rules: pure, without input or output."""
