"""What an operator may set for the payment service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from backend.shared import ConfigurationError
from backend.shared.environment import load_environment
from backend.shared.events.pruning import MessageRetention


class Provider(StrEnum):
    """Who moves the money."""

    CREDIT = "credit"
    TEST = "test"
    """The same, but it declines, delays and fails on demand."""


@dataclass(frozen=True, kw_only=True)
class PaymentSettings:
    """Settings of the payment service. Read with `from_env`; a wrong one raises `ConfigurationError` with its variable."""

    database_url: str
    broker_url: str
    provider: Provider = Provider.CREDIT
    jwks_url: str | None = None
    public_key_file: Path | None = None
    retention: MessageRetention = field(default_factory=MessageRetention)
    log_level: str = "INFO"

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> PaymentSettings:
        """Settings from `PAYMENT_DATABASE_URL` (else `DATABASE_URL`) and `BROKER_URL`, which have no default, `PAYMENT_PROVIDER`,
        `AUTH_JWKS_URL`, `AUTH_PUBLIC_KEY_FILE` (which wins over it), those of `MessageRetention`, and `LOG_LEVEL`.
        """
        found = load_environment() if environment is None else environment
        key_file = found.get("AUTH_PUBLIC_KEY_FILE", "").strip()
        return cls(
            database_url=_needed(found, "PAYMENT_DATABASE_URL", "DATABASE_URL"),
            broker_url=_needed(found, "BROKER_URL"),
            provider=_provider(found),
            jwks_url=found.get("AUTH_JWKS_URL", "").strip() or None,
            public_key_file=Path(key_file) if key_file else None,
            retention=MessageRetention.from_env(found),
            log_level=found.get("LOG_LEVEL", "").strip() or "INFO",
        )


def _needed(found: Mapping[str, str], *variables: str) -> str:
    for variable in variables:
        if text := found.get(variable, "").strip():
            return text
    raise ConfigurationError("is not set", variable=variables[0])


def _provider(found: Mapping[str, str]) -> Provider:
    given = found.get("PAYMENT_PROVIDER", "").strip().lower() or Provider.CREDIT.value
    if given not in set(Provider):
        raise ConfigurationError(
            f"must be one of {', '.join(provider.value for provider in Provider)}",
            variable="PAYMENT_PROVIDER",
        )
    return Provider(given)
