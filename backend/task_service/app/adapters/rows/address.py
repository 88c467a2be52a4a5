"""Which kind of SQL database a URL names."""

from __future__ import annotations

from sqlalchemy import make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError

from backend.shared import ConfigurationError

from ...core.settings import Address


def sqlite_path(address: Address) -> str | None:
    """The file of a `sqlite:///` URL; None for any other kind. Raises ConfigurationError for what is no URL, or no file."""
    try:
        url: URL = make_url(address.url)
    except (ArgumentError, ValueError):
        raise ConfigurationError("is no database URL", variable=address.variable) from None
    if url.get_backend_name() != "sqlite":
        return None
    if not url.database or url.database == ":memory:" or url.query:
        # In memory each connection of the pool would have a database of its own.
        raise ConfigurationError("must name a file, as sqlite:///path/to/file", variable=address.variable)
    return url.database
