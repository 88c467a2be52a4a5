"""Tasks, the teams and people who do them, and what is written down about it."""
