"""Work in the background that goes on, whatever befalls a database or the work itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from backend.shared.domain.errors import TandemError
from backend.shared.error_text import came_from
from backend.shared.observability.seldom import Seldom
from backend.shared.pausing import pause
from backend.shared.stores.errors import describe, is_database_error

SAID_EVERY_SECONDS = 30.0
BEGUN_AGAIN_SECONDS = 5.0

log = structlog.get_logger(__name__)


async def every(seconds: float, work: Callable[[], Awaitable[object]], *, service: str) -> None:
    """Do `work` every `seconds` until cancelled. Trouble with a database is logged now and then, all else at once."""
    said = Seldom(SAID_EVERY_SECONDS)
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - this is where it is said
            if not is_database_error(error) and not isinstance(error, TandemError):
                _say_failed(error, service=service)
            elif said.left_out() is not None:
                log.warning("refresh_failed", service=service, error=describe(error))


async def kept_up(work: Callable[[], Awaitable[None]], *, stop: asyncio.Event, service: str) -> None:
    """Do `work`, which ends by itself once `stop` is set. If it fails that is said aloud, and it is begun again after a while.

    A relay that has ended unseen would carry nothing for as long as its process lives.
    """
    while not stop.is_set():
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - this is where it is said
            _say_failed(error, service=service)
        else:
            return
        await pause(stop, BEGUN_AGAIN_SECONDS)


def _say_failed(error: Exception, *, service: str) -> None:
    """What nobody has thought of: where it came from, without its text, which may hold anything."""
    log.critical(
        "background_work_failed",
        service=service,
        error=type(error).__name__,
        at=came_from(error),
    )
