"""Tasks through Peewee, on the same tables, on PostgreSQL or SQLite."""
