"""What only the auth service can run into."""

from __future__ import annotations

from backend.shared import TandemError


class OverloadedError(TandemError):
    """More passwords wait to be checked than the service takes on. Nothing was changed; worth trying again."""
