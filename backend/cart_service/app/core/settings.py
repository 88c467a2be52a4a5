"""What an operator may set for the cart service, beside the dual-write settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from backend.shared.environment import load_environment
from backend.shared.events.pruning import MessageRetention
from backend.shared.setting_values import flag, http_url, seconds


@dataclass(frozen=True, kw_only=True)
class CartSettings:
    """Settings of the cart service. Read with `from_env`; a wrong one raises `ConfigurationError` with its variable.

    `product_url` is where products are looked up. Without a key set and without a public key every route that needs a
    token is refused. `run_relay`: whether the service carries its own changes; relay processes may do so as well, or
    instead. Without `broker_url` it hears nothing of orders and users.
    """

    product_url: str
    product_timeout_seconds: float = 2.0
    jwks_url: str | None = None
    public_key_file: Path | None = None
    run_relay: bool = True
    broker_url: str | None = None
    retention: MessageRetention = field(default_factory=MessageRetention)
    log_level: str = "INFO"

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> CartSettings:
        """Settings from `PRODUCT_URL` (which has no default), `CART_PRODUCT_TIMEOUT_SECONDS`, `AUTH_JWKS_URL`,
        `AUTH_PUBLIC_KEY_FILE` (which wins over it), `CART_RUN_RELAY`, `BROKER_URL`,
        those of `MessageRetention`, and `LOG_LEVEL`.
        """
        found = load_environment() if environment is None else environment
        key_file = found.get("AUTH_PUBLIC_KEY_FILE", "").strip()
        return cls(
            product_url=http_url(found, "PRODUCT_URL", of="the product service"),
            product_timeout_seconds=seconds(found, "CART_PRODUCT_TIMEOUT_SECONDS", default=2.0),
            jwks_url=found.get("AUTH_JWKS_URL", "").strip() or None,
            public_key_file=Path(key_file) if key_file else None,
            run_relay=flag(found, "CART_RUN_RELAY", default=True),
            broker_url=found.get("BROKER_URL", "").strip() or None,
            retention=MessageRetention.from_env(found),
            log_level=found.get("LOG_LEVEL", "").strip() or "INFO",
        )
