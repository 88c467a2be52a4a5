"""What an operator may set for the product service, beside the dual-write settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from backend.shared import ConfigurationError
from backend.shared.environment import load_environment


@dataclass(frozen=True, kw_only=True)
class ProductSettings:
    """Settings of the product service. Read with `from_env`; a wrong one raises `ConfigurationError` with its variable.

    Without a key set and without a public key, reading works and every route that needs a token is refused. `run_relay`:
    whether the service carries its own changes; relay processes may do so as well, or instead.
    """

    jwks_url: str | None = None
    public_key_file: Path | None = None
    run_relay: bool = True
    log_level: str = "INFO"

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> ProductSettings:
        """Settings from `AUTH_JWKS_URL`, `AUTH_PUBLIC_KEY_FILE` (which wins), `PRODUCT_RUN_RELAY` and `LOG_LEVEL`."""
        found = load_environment() if environment is None else environment
        key_file = found.get("AUTH_PUBLIC_KEY_FILE", "").strip()
        return cls(
            jwks_url=found.get("AUTH_JWKS_URL", "").strip() or None,
            public_key_file=Path(key_file) if key_file else None,
            run_relay=_flag(found, "PRODUCT_RUN_RELAY", default=True),
            log_level=found.get("LOG_LEVEL", "").strip() or "INFO",
        )


def _flag(found: Mapping[str, str], variable: str, *, default: bool) -> bool:
    text = found.get(variable, "").strip().lower()
    if text not in ("", "true", "false"):
        raise ConfigurationError("must be true or false", variable=variable)
    return text == "true" if text else default
