"""What an operator may set for the order service, beside the dual-write settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from backend.messages.orders import SagaStyle
from backend.shared import ConfigurationError
from backend.shared.environment import load_environment
from backend.shared.events.pruning import MessageRetention
from backend.shared.setting_values import flag, http_url, seconds

MOST_SECONDS = 86_400.0


@dataclass(frozen=True, kw_only=True)
class SagaTimes:
    """How sagas go: `saga_style` is that of new orders. `step_seconds`: so long an orchestrated step has to be answered, and twice as
    long with each time that it is asked for again; `saga_seconds`: the same for all of a choreographed saga.
    """

    saga_style: SagaStyle = SagaStyle.CHOREOGRAPHED
    step_seconds: float = 30.0
    saga_seconds: float = 120.0

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> SagaTimes:
        """From `SAGA_STYLE`, `SAGA_STEP_SECONDS` and `SAGA_SECONDS`."""
        found = load_environment() if environment is None else environment
        return cls(
            saga_style=_style(found),
            step_seconds=seconds(found, "SAGA_STEP_SECONDS", default=cls.step_seconds, most=MOST_SECONDS),
            saga_seconds=seconds(found, "SAGA_SECONDS", default=cls.saga_seconds, most=MOST_SECONDS),
        )


@dataclass(frozen=True, kw_only=True)
class OrderSettings:
    """Settings of the order service. Read with `from_env`; a wrong one raises `ConfigurationError` with its variable."""

    broker_url: str
    cart_url: str
    product_url: str
    auth_url: str
    sagas: SagaTimes = SagaTimes()
    call_timeout_seconds: float = 2.0
    jwks_url: str | None = None
    public_key_file: Path | None = None
    run_relay: bool = True
    retention: MessageRetention = field(default_factory=MessageRetention)
    log_level: str = "INFO"

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> OrderSettings:
        """Settings from `BROKER_URL`, `CART_URL`, `PRODUCT_URL`, `AUTH_URL` (which have no default), those of `SagaTimes`
        and `MessageRetention`, `ORDER_CALL_TIMEOUT_SECONDS`, `AUTH_JWKS_URL`, `AUTH_PUBLIC_KEY_FILE` (which wins over it),
        `ORDER_RUN_RELAY` and `LOG_LEVEL`.
        """
        found = load_environment() if environment is None else environment
        key_file = found.get("AUTH_PUBLIC_KEY_FILE", "").strip()
        broker_url = found.get("BROKER_URL", "").strip()
        if not broker_url:
            raise ConfigurationError("is not set; it names the message broker", variable="BROKER_URL")
        return cls(
            broker_url=broker_url,
            cart_url=http_url(found, "CART_URL", of="the cart service"),
            product_url=http_url(found, "PRODUCT_URL", of="the product service"),
            auth_url=http_url(found, "AUTH_URL", of="the auth service"),
            sagas=SagaTimes.from_env(found),
            call_timeout_seconds=seconds(found, "ORDER_CALL_TIMEOUT_SECONDS", default=2.0),
            jwks_url=found.get("AUTH_JWKS_URL", "").strip() or None,
            public_key_file=Path(key_file) if key_file else None,
            run_relay=flag(found, "ORDER_RUN_RELAY", default=True),
            retention=MessageRetention.from_env(found),
            log_level=found.get("LOG_LEVEL", "").strip() or "INFO",
        )


def _style(found: Mapping[str, str]) -> SagaStyle:
    given = found.get("SAGA_STYLE", "").strip().lower() or SagaStyle.CHOREOGRAPHED.value
    if given not in set(SagaStyle):
        raise ConfigurationError(
            f"must be one of {', '.join(style.value for style in SagaStyle)}", variable="SAGA_STYLE"
        )
    return SagaStyle(given)
