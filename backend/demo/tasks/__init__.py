"""The task service's way from MongoDB to PostgreSQL on one machine: servers, service, traffic."""
