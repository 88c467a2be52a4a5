"""What has changed on a side since a position, as journal, failures and guards tell it.

A key that changed on the source after a position P is either still in the journal there, or has been carried, and then its
guard on the target stands at a position after P. What was changed on the target behind the engine's back leaves neither,
and is not found here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from backend.shared.domain.mapping import EntityMapping
from backend.shared.domain.phases import Side
from backend.shared.stores.errors import is_database_error, to_side_error
from backend.shared.stores.postgres.names import EngineNames
from backend.shared.stores.postgres.projection_sql import ESTIMATED_ROWS, POSITION, table_name
from backend.shared.stores.protocol import Position
from backend.shared.validation.sides import Sides

MOST_KEYS = 200_000
"""Of all entities at once. Beyond that, comparing everything costs little more, and keeps memory bounded."""

BACKFILL_SILENT_SECONDS = 30.0
_FIRST = Position(major=0, minor=0)
_LOWEST_MINOR = -(2**62)


def alone(engine: AsyncEngine) -> AsyncEngine:
    """The same engine and pool, where each statement is a transaction of its own: that saves two round trips."""
    return engine.execution_options(isolation_level="AUTOCOMMIT")


@dataclass(frozen=True, kw_only=True)
class EntityChanges:
    """What is known of one entity. `keys` is None where there are too many to name."""

    keys: tuple[str, ...] | None
    failed: tuple[str, ...] = ()
    copied: bool = False
    """Whether a backfill has written there since: such rows have no guard of their own."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Asks both sides for what has changed. Reads only."""

    sides: Sides
    names: EngineNames
    epoch: int
    most_keys: int = MOST_KEYS

    async def beginning(self, entity: str) -> Position:
        """A position such that whatever changes, is carried or is copied from now on shows as newer than it.

        A carry under way may have read before now, and write later. Its journal row is still open, and its position is
        after the transaction that wrote that row: so the oldest open row bounds all of them. While ranges are being
        copied there is no such bound; the position is then the very first one.
        """
        (row,) = await self.sides.ask_source(
            f"SELECT pos.major, pos.minor, (SELECT min(j.xid::text::bigint) FROM {self.names.journal} AS j "
            f"WHERE j.entity = $1) AS oldest FROM ({POSITION}) AS pos",
            entity,
        )
        copying = await self.sides.ask_target(
            f"SELECT 1 FROM {self.names.backfill_chunk} WHERE entity = $1 LIMIT 1", entity
        )
        if copying:
            return _FIRST
        now = Position(major=row.major, minor=row.minor)
        return min(now, Position(major=row.oldest, minor=_LOWEST_MINOR)) if row.oldest else now

    async def is_being_copied(self) -> bool:
        """Whether a backfill runs, by its sign of life."""
        side = self.sides.direction.target
        try:
            return await being_copied(self.sides.engines[side], self.names)
        except Exception as error:
            if not is_database_error(error):
                raise
            raise to_side_error(error, side) from error

    async def since(self, positions: Mapping[str, Position]) -> dict[str, EntityChanges]:
        """By entity, what has changed after its position.

        The source is read first: what leaves the journal in between then shows by its guard.
        """
        open_keys, failed, most = await self._on_source(list(positions))
        statement, parameters = self._newer_on_target(positions)
        newer = await self._rows(self.sides.direction.target, statement, *parameters)
        found = {}
        for row in newer:
            keys = tuple(dict.fromkeys((*open_keys.get(row.entity, ()), *row.keys_carried)))
            found[row.entity] = EntityChanges(
                keys=None if most or len(keys) > self.most_keys else keys,
                failed=tuple(failed.get(row.entity, ())),
                copied=row.copied,
            )
        return found

    async def _on_source(
        self, entities: Sequence[str]
    ) -> tuple[dict[str, list[str]], dict[str, list[str]], bool]:
        rows = await self._rows(
            self.sides.direction.source,
            "SELECT c.entity, c.failed, array_agg(c.key) AS keys_changed FROM ("
            f"(SELECT DISTINCT entity, key, false AS failed FROM {self.names.journal} WHERE entity = ANY ($1::text[]) "
            f"LIMIT $2) UNION ALL (SELECT entity, key, true AS failed FROM {self.names.failure} "
            "WHERE state = 'open' AND entity = ANY ($1::text[]) LIMIT $2)) AS c GROUP BY 1, 2",
            list(entities),
            self.most_keys + 1,
        )
        open_keys = {row.entity: row.keys_changed for row in rows if not row.failed}
        failed = {row.entity: row.keys_changed for row in rows if row.failed}
        return open_keys, failed, sum(len(row.keys_changed) for row in rows) > self.most_keys

    async def _rows(self, side: Side, statement: str, *parameters: Any) -> list[Any]:
        """What one statement answers, in one round trip: numbers and canonical keys print alike everywhere."""
        try:
            async with alone(self.sides.engines[side]).connect() as connection:
                return list(await connection.exec_driver_sql(statement, tuple(parameters)))
        except Exception as error:
            if not is_database_error(error):
                raise
            raise to_side_error(error, side) from error

    def _newer_on_target(self, positions: Mapping[str, Position]) -> tuple[str, list[object]]:
        """By entity, keys with a newer guard, and whether its floor is newer.

        One query per entity, so that each goes by the index of guards with a position of its own.
        """
        parameters: list[object] = [self.epoch, self.most_keys + 1]
        queries = []
        for entity, position in positions.items():
            n = len(parameters)
            parameters += [entity, position.major, position.minor]
            since = f"${n + 2}::bigint, ${n + 3}::bigint"
            queries.append(
                f"SELECT ${n + 1}::text AS entity, ARRAY(SELECT g.key FROM {self.names.guard} AS g "
                f"WHERE g.entity = ${n + 1} AND (g.epoch > $1 OR (g.epoch = $1 AND g.major >= ${n + 2} "
                f"AND (g.major, g.minor) > ({since}))) LIMIT $2) AS keys_carried, "
                f"EXISTS (SELECT FROM {self.names.guard_floor} AS f WHERE f.entity = ${n + 1} "
                f"AND (f.epoch, f.major, f.minor) > ($1, {since})) AS copied"
            )
        return " UNION ALL ".join(queries), parameters


async def being_copied(engine: AsyncEngine, names: EngineNames) -> bool:
    """Whether a backfill runs, by the sign of life that it leaves in this database."""
    async with alone(engine).connect() as connection:
        rows = await connection.exec_driver_sql(
            f"SELECT 1 FROM {names.backfill_control} "
            "WHERE heartbeat_at > clock_timestamp() - make_interval(secs => $1)",
            (BACKFILL_SILENT_SECONDS,),
        )
        return rows.first() is not None


async def estimated_rows(sides: Sides, entity: EntityMapping) -> int | None:
    """About how many rows the entity has, as the databases estimate it; None if they have never counted."""
    tables = {
        sides.direction.source: entity.sources(sides.direction.source)[0].table,
        sides.direction.target: entity.projections(sides.direction)[0].table,
    }
    counts = []
    for side, table in tables.items():
        rows = await sides.ask(side, ESTIMATED_ROWS, table_name(table))
        counts += [int(row.n) for row in rows]
    return max(counts, default=None)
