"""The auth service: who the shop's users are, and how they prove it."""
