"""Domain events: recorded with the change that they tell of, delivered at least once, taken in once."""
