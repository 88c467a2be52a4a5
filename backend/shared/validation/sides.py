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
            if not is_database_error(error):
                raise
            if classify(error) is Trouble.REFUSED:
                raise UnreadableRowError from error
            raise to_side_error(error, side) from error

    async def ask_source(self, statement: str, *parameters: Any) -> list[Any]:
        """The same, of the side that state is carried from."""
        return await self.ask(self.direction.source, statement, *parameters)

    async def ask_target(self, statement: str, *parameters: Any) -> list[Any]:
        """The same, of the side that state is carried to."""
        return await self.ask(self.direction.target, statement, *parameters)
