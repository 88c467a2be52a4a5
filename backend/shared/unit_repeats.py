"""Runs a transaction again that left nothing behind: one way for all units of work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from backend.shared.database import distrust_pool
from backend.shared.domain.errors import FencedError
from backend.shared.domain.phases import Side
from backend.shared.journal.fence import FENCED
from backend.shared.pausing import backoff
from backend.shared.stores.errors import (
    describe,
    is_connection_loss,
    is_database_error,
    is_repeatable,
    is_unreachable,
    sqlstate_of,
    to_side_error,
)

T = TypeVar("T")
MAX_RUNS: Final = 5
FIRST_WAIT_SECONDS: Final = 0.04
MOST_WAIT_SECONDS: Final = 1.0

log = structlog.get_logger(__name__)


class Breaker(Protocol):
    """What a runner tells, and asks, of a circuit breaker."""

    def check(self) -> None:
        """Raise an unavailable `SideError` if nobody should ask."""
        ...

    def succeeded(self) -> None:
        """A call came through."""
        ...

    def failed(self) -> None:
        """A call found the side unavailable."""
        ...


class RunAgainError(Exception):
    """The transaction left nothing behind and may be repeated."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


async def repeat(
    attempt: Callable[[], Awaitable[T]],
    *,
    engine: AsyncEngine | None,
    side: Side,
    breaker: Breaker | None = None,
) -> T:
    """Call `attempt`, a whole transaction, until it goes through, while its failures are of the kind that leaves nothing behind.

    Deadlock, serialization failure, write conflict and a connection lost before COMMIT are repeated, `MAX_RUNS` times in all, with
    jittered back-off. `engine` is whose pool is not trusted any more once a connection was lost; None on MongoDB, whose driver says
    itself what may be repeated. Raises `FencedError` where `side` is closed; other database errors come out as the error type of
    `side`, and what is no database error as it is.
    """
    for run in range(1, MAX_RUNS + 1):
        if breaker is not None:
            breaker.check()
        try:
            result = await attempt()
        except Exception as error:
            cause = error.cause if isinstance(error, RunAgainError) else error
            again = isinstance(error, RunAgainError) or is_repeatable(cause)
            if not again and not is_database_error(cause):
                raise
            if sqlstate_of(cause) == FENCED:
                raise FencedError("it is closed", side=side, unavailable=True) from cause
            if breaker is not None and is_unreachable(cause):
                breaker.failed()
            if engine is not None and is_connection_loss(cause):
                distrust_pool(engine)
                again = True
            if run == MAX_RUNS or not again:
                raise to_side_error(cause, side) from cause
            log.info("unit_repeated", side=side.value, run=run, error=describe(cause))
            await asyncio.sleep(backoff(run, first=FIRST_WAIT_SECONDS, most=MOST_WAIT_SECONDS))
        else:
            if breaker is not None:
                breaker.succeeded()
            return result
    raise AssertionError("unreachable: the last run returns or raises")
