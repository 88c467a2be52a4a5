"""The one error of the old shop."""

from __future__ import annotations

from backend.shared.domain.errors import TandemError


class LoadError(TandemError):
    """The shop could not be reached or loaded; the database is as it was. The message is one line, without a password."""
