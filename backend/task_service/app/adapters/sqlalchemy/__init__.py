"""Tasks through SQLAlchemy, on PostgreSQL or SQLite."""
