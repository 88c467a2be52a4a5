"""The whole shop on one machine: servers, services and traffic."""
