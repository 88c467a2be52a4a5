"""Rooms for the kinds of database that a side can be, behind one protocol."""
