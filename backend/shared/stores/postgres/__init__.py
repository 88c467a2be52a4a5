"""PostgreSQL as a side: state by projection, guards, and what its refusals mean."""
