"""What the engine shows of itself: logs, metrics, health. Knows no service and no web framework's routes."""
