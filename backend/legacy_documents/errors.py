"""What can go wrong with a load."""

from __future__ import annotations


class DocumentLoadError(Exception):
    """The collections will not do for the load, or nothing of that size can be made."""
