"""Read models: what one service keeps of another's aggregates, as it has heard of them.

A message may come twice, late and in any order: of two about one aggregate the one with the later position counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import BigInteger, Column, ColumnElement, Table, func, literal, select, tuple_

from backend.shared.unit_of_work import UnitOfWork

from .cause import current_cause
from .envelope import Message

M = TypeVar("M", bound=Message)
Position = tuple[int, int]
"""That of an envelope: epoch of the teller's side, and microseconds of its server's clock."""
_POSITION = ("epoch", "at")


@dataclass(frozen=True, kw_only=True)
class Held:
    """How much a read model holds. `as_of`: when the latest of it was told, by the clock of the teller's server."""

    rows: int
    as_of: datetime | None


@dataclass(frozen=True, kw_only=True)
class ReadModel(Generic[M]):
    """What `service` keeps of the aggregates that `owner` tells of with messages of `kind`.

    `entity` is kept in `table`: a key of one column, columns named as fields of `kind`, and `epoch` and `at`, the position
    of what was heard last. Each method is part of one unit of work, on whichever side it runs.
    """

    name: str
    service: str
    owner: str
    kind: type[M]
    table: Table
    entity: str

    async def hear(self, work: UnitOfWork, message: M) -> None:
        """Keep what the message that is being taken in says. Register it with a `Consumer`."""
        cause = current_cause()
        await self.keep(work, message, (cause.position if cause else None) or (0, 0))

    async def keep(self, work: UnitOfWork, message: M, position: Position) -> bool:
        """Keep what was told at `position`, unless something as late was heard already; False then."""
        values = {
            column: getattr(message, column.name) for column in self.table.c if column.name not in _POSITION
        }
        key = values[self._key]
        before = await self._hold(work, key)
        if before is not None and before >= position:
            return False
        values |= dict(zip(self._position, position, strict=True))
        if before is None:
            await work.insert(self.entity, values)
        else:
            await work.update(self.entity, (key,), values)
        return True

    async def positions(self, work: UnitOfWork, keys: Sequence[Any]) -> dict[Any, Position]:
        """The positions of those of `keys` that are kept."""
        shape = work.shape(self.table)
        key = shape.c[self._key.name]
        query = select(key, shape.c.epoch, shape.c.at).where(key.in_(keys))
        return {row[self._key.name]: (row["epoch"], row["at"]) for row in await work.rows(query)}

    async def before(self, work: UnitOfWork, mark: Position | None, *, limit: int) -> dict[Any, Position]:
        """Up to `limit` rows that were heard before `mark` (None: whenever), with their positions."""
        shape = work.shape(self.table)
        query = select(shape.c[self._key.name], shape.c.epoch, shape.c.at).limit(limit)
        if mark is not None:
            wide = [literal(part, BigInteger()) for part in mark]
            query = query.where(tuple_(shape.c.epoch, shape.c.at) < tuple_(*wide))
        return {row[self._key.name]: (row["epoch"], row["at"]) for row in await work.rows(query)}

    async def remove(self, work: UnitOfWork, key: Any, position: Position) -> bool:
        """Remove a row, unless something else was heard since `position`; False then."""
        if await self._hold(work, key) != position:
            return False
        return await work.delete(self.entity, (key,))

    async def held(self, work: UnitOfWork) -> Held:
        """How much there is, counted."""
        shape = work.shape(self.table)
        figures: list[ColumnElement[Any]] = [func.count().label("rows"), func.max(shape.c.at).label("at")]
        (row,) = await work.rows(select(*figures))
        return Held(rows=row["rows"], as_of=None if row["at"] is None else moment(row["at"]))

    @property
    def _key(self) -> Column[Any]:
        (key,) = self.table.primary_key.columns
        return key

    @property
    def _position(self) -> tuple[Column[Any], ...]:
        return tuple(self.table.c[name] for name in _POSITION)

    async def _hold(self, work: UnitOfWork, key: Any) -> Position | None:
        """The position of a row; nobody else writes it, or makes it, until the unit ends."""
        await work.hold_name(f"{self.service}_service.{self.name}:{key}")
        return (await self.positions(work, [key])).get(key)


def moment(at: int) -> datetime:
    """The time of a position, whose second part is `at`."""
    return datetime.fromtimestamp(at / 1_000_000, UTC)
