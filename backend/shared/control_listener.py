"""Hears of changes of the phase row at once, where the way to the database carries LISTEN.

PgBouncer in transaction mode does not. Then, and whenever this connection is lost, the reading each second has to do: what
is heard here only wakes that up, and means nothing by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import asyncpg
import structlog

from backend.shared.database import goes_through_pgbouncer, plain_url
from backend.shared.stores.errors import describe, is_database_error

RETRY_SECONDS = 5.0
KEEPALIVE_SECONDS = 30.0

log = structlog.get_logger(__name__)


async def listen(url: str, channel: str, heard: Callable[[], None]) -> None:
    """Call `heard` for each notice on `channel`, until cancelled. A lost connection is made again."""
    if goes_through_pgbouncer(url):
        return
    while True:
        try:
            await _until_lost(url, channel, heard)
        except Exception as error:
            if not is_database_error(error):
                raise
            log.debug("not_listening", error=describe(error))
        await asyncio.sleep(RETRY_SECONDS)


async def _until_lost(url: str, channel: str, heard: Callable[[], None]) -> None:
    connection = await asyncpg.connect(
        plain_url(url), timeout=RETRY_SECONDS, server_settings={"application_name": f"{channel}-listener"}
    )
    try:
        await connection.add_listener(channel, lambda *_: heard())
        heard()  # whatever was said before this
        while True:
            await asyncio.sleep(KEEPALIVE_SECONDS)
            await connection.execute("SELECT 1", timeout=RETRY_SECONDS)
    finally:
        connection.terminate()
