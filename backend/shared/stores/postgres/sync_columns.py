"""Tells rows of a PostgreSQL side how they stand to their documents, where they have columns for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from backend.shared.domain.mapping import EntityCatalog, EntityMapping
from backend.shared.domain.phases import Side
from backend.shared.domain.sync_status import SyncStatus, sync_root
from backend.shared.journal.sync_triggers import telling_mark
from backend.shared.stores.postgres.names import CARRY_SETTING, EngineNames
from backend.shared.stores.postgres.projection_sql import key_in, key_text, quoted, table_name
from backend.shared.stores.protocol import Position

Identity = tuple[str, str]
ALONE = "written on this side alone: the other one was away"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a key stands. `position`: of the state that it is said of."""

    status: SyncStatus
    error: str | None = None
    position: Position | None = None


@dataclass(frozen=True, kw_only=True)
class RowStanding:
    """What a row says of itself."""

    status: SyncStatus
    error: str | None
    last_synced_at: datetime | None


class SyncColumns:
    """Reads and writes the columns of `SyncStatus` on one side; the caller owns the transaction."""

    def __init__(self, names: EngineNames, catalog: EntityCatalog, side: Side) -> None:
        self._names = names
        self._side = side
        self._catalog = catalog
        self._roots = {
            entity.name: root for entity in catalog.ordered if (root := sync_root(entity, side)) is not None
        }

    def has(self, entity: str) -> bool:
        """Whether rows of an entity say how they stand."""
        return entity in self._roots

    async def read(self, connection: AsyncConnection, entity: EntityMapping, key: str) -> RowStanding | None:
        """What the row of a key says; None where there is none, or none that says anything."""
        root = self._roots.get(entity.name)
        if root is None:
            return None
        found = await connection.exec_driver_sql(
            f"SELECT sync_status, sync_error, last_synced_at FROM {table_name(root)} "
            f"WHERE {key_in(self._key(entity), entity, '$1')}",
            ([key],),
        )
        row = found.first()
        if row is None:
            return None
        return RowStanding(
            status=SyncStatus(row.sync_status), error=row.sync_error, last_synced_at=row.last_synced_at
        )

    async def tell_source(
        self, connection: AsyncConnection, standings: Mapping[Identity, Standing]
    ) -> set[Identity]:
        """Tell rows of this side, the source, what became of their changes, in the transaction that ends these.

        A row whose key has another open journal row stays PENDING. Waits for nobody: answers the keys of rows that somebody
        else writes just now. What that one does with them is not known yet, so their journal rows must not end.
        """
        busy: set[Identity] = set()
        by_entity = self._by_entity(standings)
        if not by_entity:
            return busy
        await self._mark(connection)
        for entity, told in by_entity.items():
            root = self._roots[entity.name]
            key = key_text([f"t.{name}" for name in self._key(entity)], entity.key)
            condition = key_in(tuple(f"t.{name}" for name in self._key(entity)), entity, "$1")
            # By itself, so that the next statement sees everything that was committed before the rows were held.
            rows = await connection.exec_driver_sql(
                f"WITH held AS MATERIALIZED (SELECT {key} AS k FROM {table_name(root)} AS t WHERE {condition} "
                f"FOR NO KEY UPDATE SKIP LOCKED) SELECT {key} AS k, {key} IN (SELECT k FROM held) AS held "
                f"FROM {table_name(root)} AS t WHERE {condition}",
                (sorted(told),),
            )
            held: dict[str, Standing] = {}
            for row in rows:
                if row.held:
                    held[row.k] = told[row.k]
                else:
                    busy.add((entity.name, row.k))
            on_the_way = (
                f"EXISTS (SELECT 1 FROM {self._names.journal} AS j WHERE j.key = s.k AND j.entity = $4)"
            )
            await self._write(connection, entity, held, unless=on_the_way, more=(entity.name,))
        await self._unmark(connection)
        return busy

    async def tell_target(
        self, connection: AsyncConnection, standings: Mapping[Identity, Standing], *, epoch: int
    ) -> None:
        """Tell rows of this side, the target, of changes of the source that do not get here.

        The caller has made its transaction a carry and holds the guards. A row whose guard has moved past the state in question
        is left alone, and so is everything on a side that is not closed in this epoch.
        """
        await self._mark(connection)
        for entity, told in self._by_entity(standings).items():
            late = (
                f"EXISTS (SELECT 1 FROM {self._names.guard} AS g WHERE g.entity = $4 AND g.key = s.k "
                "AND (g.epoch, g.major, g.minor) > ($5::bigint, s.major, s.minor)) "
                f"OR NOT EXISTS (SELECT 1 FROM {self._names.mark} WHERE state = 'closed' AND epoch = $5::bigint)"
            )
            await self._write(connection, entity, told, unless=late, more=(entity.name, epoch), placed=True)
        await self._unmark(connection)

    async def tell_alone(self, connection: AsyncConnection, keys: Mapping[str, Sequence[str]]) -> None:
        """Tell rows of this side, by entity, that they were written here alone. The last thing in such a transaction."""
        alone = Standing(status=SyncStatus.PENDING, error=ALONE)
        standings = {(entity, key): alone for entity, found in keys.items() for key in found}
        await self._mark(connection)
        for entity, told in self._by_entity(standings).items():
            await self._write(connection, entity, told, unless="$4::text IS NULL", more=(entity.name,))
        await self._unmark(connection)

    async def _write(
        self,
        connection: AsyncConnection,
        entity: EntityMapping,
        told: Mapping[str, Standing],
        *,
        unless: str,
        more: tuple[Any, ...],
        placed: bool = False,
    ) -> None:
        if not told:
            return
        key = key_text([f"t.{name}" for name in self._key(entity)], entity.key)
        keys = sorted(told)
        arguments: list[Any] = [
            keys,
            [told[k].status.value for k in keys],
            [told[k].error for k in keys],
            *more,
        ]
        columns, arrays = "k, status, error", "$1::text[], $2::text[], $3::text[]"
        if placed:
            positions = [told[k].position or Position(major=0, minor=0) for k in keys]
            arguments += [[at.major for at in positions], [at.minor for at in positions]]
            columns, arrays = f"{columns}, major, minor", f"{arrays}, $6::bigint[], $7::bigint[]"
        await connection.exec_driver_sql(
            f"UPDATE {table_name(self._roots[entity.name])} AS t SET sync_status = s.status, sync_error = s.error, "
            "last_synced_at = CASE s.status WHEN 'SYNCED' THEN clock_timestamp() ELSE t.last_synced_at END "
            f"FROM unnest({arrays}) AS s({columns}) "
            f"WHERE {key_in(tuple(f't.{name}' for name in self._key(entity)), entity, '$1')} AND {key} = s.k "
            f"AND NOT ({unless}) AND (s.status = 'SYNCED' "
            "OR (t.sync_status, t.sync_error) IS DISTINCT FROM (s.status, s.error))",
            tuple(arguments),
        )

    def _by_entity(self, standings: Mapping[Identity, Standing]) -> dict[EntityMapping, dict[str, Standing]]:
        found: dict[EntityMapping, dict[str, Standing]] = {}
        for (entity, key), standing in standings.items():
            if self.has(entity):
                found.setdefault(self._catalog[entity], {})[key] = standing
        return found

    def _key(self, entity: EntityMapping) -> tuple[str, ...]:
        keys = entity.sources(self._side)[0].keys
        return tuple(quoted(name) for name in keys) if isinstance(keys, tuple) else ()

    async def _mark(self, connection: AsyncConnection) -> None:
        await self._set(connection, telling_mark(self._names, self._side))

    async def _unmark(self, connection: AsyncConnection) -> None:
        await self._set(connection, "")

    async def _set(self, connection: AsyncConnection, value: str) -> None:
        await connection.exec_driver_sql(f"SELECT set_config('{CARRY_SETTING}', $1, true)", (value,))


def synced_statement(entity: EntityMapping, root: Table, side: Side) -> str:
    """SQL that makes rows SYNCED whose keys are in `$1`, where they do not say so, in a carry.

    A carry does not write a row that is equal already, and so fires no trigger there.
    """
    keys = entity.sources(side)[0].keys
    names = tuple(quoted(name) for name in keys) if isinstance(keys, tuple) else ()
    return (
        f"UPDATE {table_name(root)} SET sync_status = 'SYNCED', sync_error = NULL, last_synced_at = clock_timestamp() "
        f"WHERE sync_status <> 'SYNCED' AND {key_in(names, entity, '$1')}"
    )


__all__ = ["RowStanding", "Standing", "SyncColumns", "synced_statement"]
