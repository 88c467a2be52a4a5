"""Who brings what was recorded to the broker."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from backend.shared.domain.errors import ConfigurationError
from backend.shared.environment import load_environment

VARIABLE = "MESSAGES_DELIVERY"


class DeliveredBy(StrEnum):
    """What `MESSAGES_DELIVERY` may say."""

    OUTBOX = "outbox"
    """The service itself."""
    NONE = "none"
    """Somebody who reads the table `event`, such as Debezium. Nothing new is queued; what is in the queue, and what is replayed,
    is delivered by the service all the same."""


def delivered_by(service: str, environment: Mapping[str, str] | None = None) -> DeliveredBy:
    """From `SERVICE_MESSAGES_DELIVERY`, else `MESSAGES_DELIVERY`, else `outbox`. Raises `ConfigurationError` with the variable."""
    found = load_environment() if environment is None else environment
    for variable in (f"{service.upper()}_{VARIABLE}", VARIABLE):
        if given := found.get(variable, "").strip().lower():
            if given not in set(DeliveredBy):
                raise ConfigurationError(
                    f"must be one of {', '.join(choice.value for choice in DeliveredBy)}", variable=variable
                )
            return DeliveredBy(given)
    return DeliveredBy.OUTBOX
