"""Errors that only the HTTP edge knows."""

from __future__ import annotations

from backend.shared.domain.errors import TandemError, UnauthenticatedError
from backend.shared.observability.health import Health


class InvalidTokenError(UnauthenticatedError):
    """A token was shown, but it is malformed, forged, expired, or not meant for this use."""


class KeysUnavailableError(TandemError):
    """Tokens cannot be checked: no key is configured, or the published keys cannot be fetched."""


class NotReadyError(TandemError):
    """A part that the service needs in order to serve does not work."""

    def __init__(self, health: Health) -> None:
        super().__init__(f"not ready: {', '.join(health.down())} down")
        self.health = health
