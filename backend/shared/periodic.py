"""Work that is done again and again, whatever befalls a database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from backend.shared.domain.errors import TandemError
from backend.shared.observability.seldom import Seldom
from backend.shared.stores.errors import describe, is_database_error

SAID_EVERY_SECONDS = 30.0

log = structlog.get_logger(__name__)


async def every(seconds: float, work: Callable[[], Awaitable[None]], *, service: str) -> None:
    """Do `work` every `seconds` until cancelled; trouble with a database is logged now and then, and does not end it."""
    said = Seldom(SAID_EVERY_SECONDS)
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except Exception as error:
            if not is_database_error(error) and not isinstance(error, TandemError):
                raise
            if said.left_out() is not None:
                log.warning("refresh_failed", service=service, error=describe(error))
