"""Bounds of a MongoDB client: its pool, and how long it waits for what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backend.shared.domain.errors import ConfigurationError
from backend.shared.limits import Limit, check_limits, read_limits

_HOUR_MS = 3_600_000

DOCUMENT_LIMITS = (
    Limit(field="max_pool_size", variable="MONGO_MAX_POOL_SIZE", kind=int, least=1, most=1000),
    Limit(field="min_pool_size", variable="MONGO_MIN_POOL_SIZE", kind=int, least=0, most=1000),
    Limit(
        field="wait_queue_timeout_ms",
        variable="MONGO_WAIT_QUEUE_TIMEOUT_MS",
        kind=int,
        least=1,
        most=_HOUR_MS,
    ),
    Limit(field="connect_timeout_ms", variable="MONGO_CONNECT_TIMEOUT_MS", kind=int, least=1, most=_HOUR_MS),
    Limit(
        field="server_selection_timeout_ms",
        variable="MONGO_SERVER_SELECTION_TIMEOUT_MS",
        kind=int,
        least=1,
        most=_HOUR_MS,
    ),
    Limit(field="max_time_ms", variable="MONGO_MAX_TIME_MS", kind=int, least=1, most=_HOUR_MS),
    Limit(field="socket_timeout_ms", variable="MONGO_SOCKET_TIMEOUT_MS", kind=int, least=1, most=_HOUR_MS),
)


@dataclass(frozen=True, kw_only=True)
class DocumentLimits:
    """Bounds of one side's client, named as in MongoDB; out of bounds raises `ConfigurationError`.

    `max_time_ms` is what a unit of work has until its commit, `socket_timeout_ms` the client's patience with a server that says
    nothing, also to a commit: the longer of the two, so that a unit is rolled back as a whole.
    """

    max_pool_size: int = 20
    min_pool_size: int = 0
    wait_queue_timeout_ms: int = 5_000
    connect_timeout_ms: int = 5_000
    server_selection_timeout_ms: int = 5_000
    max_time_ms: int = 30_000
    socket_timeout_ms: int = 35_000

    def __post_init__(self) -> None:
        check_limits(DOCUMENT_LIMITS, self)
        if self.min_pool_size > self.max_pool_size:
            raise ConfigurationError("is above MONGO_MAX_POOL_SIZE", variable="MONGO_MIN_POOL_SIZE")

    @classmethod
    def from_env(cls, service: str, environment: Mapping[str, str] | None = None) -> DocumentLimits:
        """Limits of `service` ("TASK"): `TASK_MONGO_MAX_POOL_SIZE`, else `MONGO_MAX_POOL_SIZE`, else the default."""
        return cls(**read_limits(DOCUMENT_LIMITS, service=service, environment=environment))
