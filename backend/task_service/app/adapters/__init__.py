"""The stores behind the ports, a room for each. Nobody but the container and the tests imports from here."""
