"""Whether a URL is meant for MongoDB; to be known also where its driver is not installed."""

from __future__ import annotations

SCHEMES = ("mongodb://", "mongodb+srv://")


def is_mongo_url(url: str) -> bool:
    """Whether `url` is meant for MongoDB."""
    return url.startswith(SCHEMES)
