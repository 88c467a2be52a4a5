"""The HTTP edge that every service shares: application, problem details, security, pagination, `/dual-write`."""
