"""Settings, and the manager that keeps the service's two databases the same."""
