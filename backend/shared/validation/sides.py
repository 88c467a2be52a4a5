"""Questions to the two sides: one statement each, in a read-only transaction in which equal values print alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

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
_SCAN_TIMEOUT = f", set_config('statement_timeout', '{SCAN_SECONDS * 1000:.0f}', true)"


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
                await connection.exec_driver_sql(_PRINTED_ALIKE + _SCAN_TIMEOUT)
                driver = (await connection.get_raw_connection()).driver_connection
                # The pool's own limit for a command would end it; only the driver can be given another.
                return list(await driver.fetch(statement, *parameters, timeout=SCAN_SECONDS + 5))  # type: ignore[union-attr]
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
