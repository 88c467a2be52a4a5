"""One connection to the legacy database, with failures told in one line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from backend.legacy_shop.errors import LoadError

CONNECT_TIMEOUT_SECONDS = 10.0

#: What asyncpg raises when a server is not there, is going away, or does not answer.
LOST = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
)


def plain_dsn(dsn: str) -> str:
    """The same database for asyncpg: a driver named in the scheme, as in `postgresql+asyncpg://`, is taken out."""
    scheme, separator, rest = dsn.partition("://")
    if not separator or scheme.partition("+")[0] not in {"postgresql", "postgres"}:
        raise LoadError("the address of the legacy database must begin with postgresql://")
    return f"postgresql://{rest}"


def one_line(error: BaseException) -> str:
    """The first line of an error's text; its type where it has none."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


async def open_connection(dsn: str, *, application_name: str) -> Any:
    """An asyncpg connection that the caller closes; raises `LoadError` when there is none to be had."""
    address = plain_dsn(dsn)
    try:
        return await asyncpg.connect(
            address,
            timeout=CONNECT_TIMEOUT_SECONDS,
            server_settings={"application_name": application_name},
        )
    except ValueError as error:  # its text may quote what stands in the address
        raise LoadError("the address of the legacy database is malformed") from error
    except (*LOST, asyncpg.PostgresError) as error:
        raise LoadError(f"cannot connect to the legacy database: {one_line(error)}") from error


@asynccontextmanager
async def connected(dsn: str, *, application_name: str) -> AsyncIterator[Any]:
    """An asyncpg connection for the time of the block. What the server refuses comes out as `LoadError`."""
    connection = await open_connection(dsn, application_name=application_name)
    try:
        yield connection
    except (asyncpg.PostgresError, *LOST) as error:
        raise LoadError(f"the legacy database refused: {one_line(error)}") from error
    finally:
        await connection.close(timeout=CONNECT_TIMEOUT_SECONDS)
