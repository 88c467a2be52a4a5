"""The engine: keeps two databases of one service the same. It knows no service."""
