"""Questions to the two sides: one statement each, in a read-only transaction in which equal values print alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from backend.shared.domain.phases import Direction, Side
from backend.shared.stores.postgres.errors import classify, is_database_error, to_side_error
from backend.shared.stores.protocol import Trouble

# What a role or a database may set otherwise, and what would make equal values print differently or, worse, the other
# way round. Transaction-local, so that it holds behind PgBouncer too. DateStyle keeps its order of day and month.
_PRINTED_ALIKE = "SELECT " + ", ".join(
    f"set_config('{name}', '{value}', true)"
    for name, value in {
        "transaction_read_only": "on",
        "timezone": "UTC",
        "datestyle": "ISO",
        "intervalstyle": "postgres",
        "extra_float_digits": "3",
        "bytea_output": "hex",
        "lc_monetary": "C",
    }.items()
)


SCAN_SECONDS = 3600.0
"""The most that one statement may take that goes through many rows."""
# One core of a server at a time, whatever is free there; and room to group by some thousand parts without the disk.
_SCANS = {
    "statement_timeout": f"{SCAN_SECONDS * 1000:.0f}",
    "max_parallel_workers_per_gather": "0",
    "work_mem": "32MB",
    "jit": "off",
}
_BEGIN_SCAN = f"BEGIN READ ONLY; {_PRINTED_ALIKE}, " + ", ".join(
    f"set_config('{name}', '{value}', true)" for name, value in _SCANS.items()
)


class UnreadableRowError(Exception):
    """A row among those asked for cannot be read in the target's types: a text that is no date, a number too big."""


@dataclass(frozen=True, kw_only=True)
class Sides:
    """The two databases of a service, seen in one direction."""

    engines: Mapping[Side, AsyncEngine]
    direction: Direction

    async def ask(self, side: Side, statement: str, *parameters: Any) -> list[Any]:
        """The rows that `statement` gives on `side`.

        Raises `UnreadableRowError` if the data refuses to be read so, and `SideError` if the side does not answer.
        """
        try:
            async with self.engines[side].connect() as connection:
                await connection.exec_driver_sql(_PRINTED_ALIKE)
                return list(await connection.exec_driver_sql(statement, tuple(parameters)))
        except Exception as error:
            raise self._told(error, side) from error

    async def scan(self, side: Side, statement: str, *parameters: Any) -> list[Any]:
        """The same, for a statement that may go through many rows: it has `SCAN_SECONDS`. Fields are had by their names."""
        try:
            async with self.engines[side].connect() as connection:
                return await _scan(connection, statement, parameters)
        except Exception as error:
            raise self._told(error, side) from error

    def _told(self, error: Exception, side: Side) -> Exception:
        """What to raise for `error`."""
        if not is_database_error(error):
            return error
        return UnreadableRowError() if classify(error) is Trouble.REFUSED else to_side_error(error, side)

    async def ask_source(self, statement: str, *parameters: Any) -> list[Any]:
        """The same, of the side that state is carried from."""
        return await self.ask(self.direction.source, statement, *parameters)

    async def ask_target(self, statement: str, *parameters: Any) -> list[Any]:
        """The same, of the side that state is carried to."""
        return await self.ask(self.direction.target, statement, *parameters)


async def _scan(connection: AsyncConnection, statement: str, parameters: tuple[Any, ...]) -> list[Any]:
    """Straight to the driver: three round trips instead of five, and a limit of its own for the time that it may take."""
    driver: Any = (await connection.get_raw_connection()).driver_connection
    ended = False
    try:
        await driver.execute(_BEGIN_SCAN)
        rows = list(await driver.fetch(statement, *parameters, timeout=SCAN_SECONDS + 5))
        await driver.execute("COMMIT")
        ended = True
    finally:
        if not ended:  # the pool knows nothing of this transaction, and would lend it on
            await connection.invalidate()
    return rows
