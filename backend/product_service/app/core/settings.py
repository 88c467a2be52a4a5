"""What an operator may set for the product service, beside the dual-write settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from backend.shared.environment import load_environment
from backend.shared.events.pruning import MessageRetention
from backend.shared.setting_values import flag


@dataclass(frozen=True, kw_only=True)
class ProductSettings:
    """Settings of the product service. Read with `from_env`; a wrong one raises `ConfigurationError` with its variable.

    Without a key set and without a public key, reading works and every route that needs a token is refused. `run_relay`:
    whether the service carries its own changes; relay processes may do so as well, or instead.
    Without `broker_url` it hears and tells nothing of orders.
    """

    jwks_url: str | None = None
    public_key_file: Path | None = None
    run_relay: bool = True
    broker_url: str | None = None
    retention: MessageRetention = field(default_factory=MessageRetention)
    log_level: str = "INFO"

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> ProductSettings:
        """Settings from `AUTH_JWKS_URL`, `AUTH_PUBLIC_KEY_FILE` (which wins), `PRODUCT_RUN_RELAY`, `BROKER_URL`,
        those of `MessageRetention`, and `LOG_LEVEL`.
        """
        found = load_environment() if environment is None else environment
        key_file = found.get("AUTH_PUBLIC_KEY_FILE", "").strip()
        return cls(
            jwks_url=found.get("AUTH_JWKS_URL", "").strip() or None,
            public_key_file=Path(key_file) if key_file else None,
            run_relay=flag(found, "PRODUCT_RUN_RELAY", default=True),
            broker_url=found.get("BROKER_URL", "").strip() or None,
            retention=MessageRetention.from_env(found),
            log_level=found.get("LOG_LEVEL", "").strip() or "INFO",
        )
