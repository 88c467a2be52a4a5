"""What an operator may set for the cart service, beside the dual-write settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from backend.shared import ConfigurationError
from backend.shared.environment import load_environment

_MAX_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class CartSettings:
    """Settings of the cart service. Read with `from_env`; a wrong one raises `ConfigurationError` with its variable.

    `product_url` is where products are looked up. Without a key set and without a public key every route that needs a
    token is refused. `run_relay`: whether the service carries its own changes; relay processes may do so as well, or
    instead.
    """

    product_url: str
    product_timeout_seconds: float = 2.0
    jwks_url: str | None = None
    public_key_file: Path | None = None
    run_relay: bool = True
    log_level: str = "INFO"

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> CartSettings:
        """Settings from `PRODUCT_URL` (which has no default), `CART_PRODUCT_TIMEOUT_SECONDS`, `AUTH_JWKS_URL`,
        `AUTH_PUBLIC_KEY_FILE` (which wins over it), `CART_RUN_RELAY` and `LOG_LEVEL`.
        """
        found = load_environment() if environment is None else environment
        key_file = found.get("AUTH_PUBLIC_KEY_FILE", "").strip()
        return cls(
            product_url=_url(found, "PRODUCT_URL"),
            product_timeout_seconds=_seconds(found, "CART_PRODUCT_TIMEOUT_SECONDS", default=2.0),
            jwks_url=found.get("AUTH_JWKS_URL", "").strip() or None,
            public_key_file=Path(key_file) if key_file else None,
            run_relay=_flag(found, "CART_RUN_RELAY", default=True),
            log_level=found.get("LOG_LEVEL", "").strip() or "INFO",
        )


def _url(found: Mapping[str, str], variable: str) -> str:
    text = found.get(variable, "").strip()
    if not text:
        raise ConfigurationError(
            "is not set; it names the product service, as http://host:port", variable=variable
        )
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError("is not a URL like http://host:port", variable=variable)
    return text


def _seconds(found: Mapping[str, str], variable: str, *, default: float) -> float:
    text = found.get(variable, "").strip()
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _MAX_TIMEOUT_SECONDS:
        raise ConfigurationError(
            f"must be a number of seconds above 0, up to {_MAX_TIMEOUT_SECONDS:g}", variable=variable
        )
    return seconds


def _flag(found: Mapping[str, str], variable: str, *, default: bool) -> bool:
    text = found.get(variable, "").strip().lower()
    if text not in ("", "true", "false"):
        raise ConfigurationError("must be true or false", variable=variable)
    return text == "true" if text else default
