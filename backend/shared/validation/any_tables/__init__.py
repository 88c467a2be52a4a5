"""Any two tables of PostgreSQL, compared as they are, without a service."""
