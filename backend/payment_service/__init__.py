"""Money: what customers may spend, and what was set aside, taken and given back for their orders."""
