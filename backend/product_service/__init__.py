"""Products, their stock, and the categories they stand in."""
