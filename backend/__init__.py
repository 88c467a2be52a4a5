"""The import root: the engine, the services, the legacy shop and the demo."""
