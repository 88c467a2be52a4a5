"""Questions to the two sides: one statement each, in a read-only transaction in which equal values print alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from backend.shared.domain.phases import Direction, Side
from backend.shared.stores.errors import classify, is_database_error, to_side_error
from backend.shared.stores.protocol import Trouble
from backend.shared.validation.lane import READING_ALIKE, Lane

First = TypeVar("First")
Second = TypeVar("Second")


async def both(first: Awaitable[First], second: Awaitable[Second]) -> tuple[First, Second]:
    """Await both at the same time. If one fails, the other is ended before that is raised: nothing goes on unseen."""
    tasks = asyncio.ensure_future(first), asyncio.ensure_future(second)
    try:
        await asyncio.gather(*tasks)
        return tasks[0].result(), tasks[1].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class UnreadableRowError(Exception):
    """A row among those asked for cannot be read in the target's types: a text that is no date, a number too big."""


@dataclass(frozen=True, kw_only=True)
class Sides:
    """The two databases of a service, seen in one direction."""

    engines: Mapping[Side, AsyncEngine]
    direction: Direction
    lanes: Mapping[Side, Lane] | None = None

    async def ask(self, side: Side, statement: str, *parameters: Any) -> list[Any]:
        """The rows that `statement` gives on `side`.

        Raises `UnreadableRowError` if the data refuses to be read so, and `SideError` if the side does not answer.
        """
        try:
            async with self.engines[side].connect() as connection:
                await connection.exec_driver_sql(READING_ALIKE)
                return list(await connection.exec_driver_sql(statement, tuple(parameters)))
        except Exception as error:
            raise self._told(error, side) from error

    async def scan(self, side: Side, statement: str, *parameters: Any) -> list[Any]:
        """The same, for a statement that may go through many rows: it has `SCAN_SECONDS`. Fields are had by their names."""
        try:
            if self.lanes:
                return await self.lanes[side].scan(statement, parameters)
            lane = Lane(self.engines[side])
            try:
                return await lane.scan(statement, parameters)
            finally:
                await lane.close()
        except Exception as error:
            raise self._told(error, side) from error

    @asynccontextmanager
    async def in_lanes(self) -> AsyncIterator[Self]:
        """The same sides, with one connection each for all scans."""
        lanes = {side: Lane(self.engines[side]) for side in Side}
        async with AsyncExitStack() as stack:
            for lane in lanes.values():
                stack.push_async_callback(lane.close)
            yield replace(self, lanes=lanes)

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
