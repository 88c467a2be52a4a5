"""Carts and wish lists."""
