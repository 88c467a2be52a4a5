"""The state of entities on PostgreSQL, with what foreign keys and unique indexes make of it."""

# ruff: noqa: ARG002 - the protocol knows arguments that only other kinds of databases need
from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from backend.shared.domain.errors import FencedError
from backend.shared.domain.mapping import EntityCatalog, EntityMapping
from backend.shared.domain.phases import Direction, Side
from backend.shared.stores.postgres import clashes, parents
from backend.shared.stores.postgres.names import EngineNames
from backend.shared.stores.postgres.projection_sql import key_text, ordered_bound
from backend.shared.stores.postgres.store import PostgresStore, entity_sql
from backend.shared.stores.protocol import Position, StateBatch

_NOWHERE = Position(major=0, minor=0)


class PostgresState(PostgresStore):
    """The state of entities, with what foreign keys and unique indexes make of it."""

    def __init__(self, names: EngineNames, catalog: EntityCatalog, side: Side) -> None:
        super().__init__(names, catalog)
        self.side = side

    async def set_guards(
        self,
        connection: AsyncConnection,
        entity: EntityMapping,
        *,
        keys: Sequence[str],
        guard: tuple[int, Position],
        epoch: int,
    ) -> None:
        """Make the guards of `keys`, which this transaction holds, `guard`, whatever they are.

        The mark is read in this statement, later than `enter` took the locks. Raises `FencedError` unless this side is
        closed in `epoch`.
        """
        to_epoch, position = guard
        changed = await connection.exec_driver_sql(
            f"UPDATE {self.names.guard} SET epoch = $3, major = $4, minor = $5 "
            "WHERE entity = $1 AND key = ANY ($2::text[]) "
            f"AND EXISTS (SELECT 1 FROM {self.names.mark} WHERE state = 'closed' AND epoch = $6)",
            (entity.name, list(keys), to_epoch, position.major, position.minor, epoch),
        )
        if changed.rowcount != len(set(keys)):
            raise FencedError(
                f"not closed in epoch {epoch}, so nothing may be carried to it",
                side=self.side,
                entity=entity.name,
                unavailable=True,
            )

    async def missing_parents(
        self, connection: AsyncConnection, batches: Sequence[StateBatch], constraint: str | None
    ) -> dict[str, list[str]]:
        """Keys by entity that a foreign key asks for and this side lacks; nothing where that cannot be told."""
        return await parents.missing_parents(connection, self.catalog, batches, constraint)

    async def find_unique(
        self, connection: AsyncConnection, batch: StateBatch, constraint: str | None
    ) -> clashes.UniqueIndex | None:
        """The unique index of that name which `batch` has clashed with."""
        return await clashes.find_index(connection, batch, constraint)

    async def holders(
        self, connection: AsyncConnection, batch: StateBatch, unique: clashes.UniqueIndex
    ) -> set[str]:
        """Keys that hold, on this side, a unique value which the batch is to get."""
        return await clashes.holders(connection, batch, unique)

    async def let_go(
        self, connection: AsyncConnection, entity: EntityMapping, unique: clashes.UniqueIndex, keys: list[str]
    ) -> None:
        """Take the rows of `keys` out of the unique index's way, in the caller's transaction."""
        await clashes.let_go(connection, entity, unique, keys)

    async def stored_rows(
        self, connection: AsyncConnection, entity: EntityMapping, keys: Sequence[str]
    ) -> dict[str, dict[str, str]]:
        """The rows that this side holds of `keys`, mapped columns only: by key and table, as JSON."""
        found: dict[str, dict[str, str]] = {}
        for sql in entity_sql(entity, Direction.towards(self.side)).projections:
            rows = await connection.exec_driver_sql(
                f"SELECT s.k, json_agg(s.r)::text AS rows FROM ({sql.keyed_rows(sql.table, '$1')}) AS s GROUP BY s.k",
                (list(keys),),
            )
            for row in rows:
                found.setdefault(row.k, {})[sql.projection.table.fullname] = row.rows
        return found

    def state_of(self, entity: EntityMapping, *, key: str, rows: str | None) -> StateBatch:
        """The state that the `stored_rows` of one key say, kept as one JSON document; None is no row. Without a position."""
        direction = Direction.towards(self.side)
        document = json.loads(rows or "{}", parse_float=str)
        tables = [document.get(projection.table.fullname, []) for projection in entity.projections(direction)]
        return StateBatch(
            entity=entity,
            direction=direction,
            keys=(key,),
            position=_NOWHERE,
            rows=tuple(json.dumps(table, ensure_ascii=False) for table in tables),
            present=tuple(frozenset([key] if table else []) for table in tables),
        )

    async def keys_after(
        self, connection: AsyncConnection, entity: EntityMapping, *, after: str | None, limit: int
    ) -> list[str]:
        """Up to `limit` canonical keys of the entity's root table, past `after`, in the order of their bytes."""
        root = entity_sql(entity, Direction.towards(self.side)).projections[0]
        key = key_text(root.key, entity.key)
        order = ordered_bound(key, entity.key)
        past = f"WHERE {order} > {ordered_bound('$2', entity.key)} " if after is not None else ""
        rows = await connection.exec_driver_sql(
            f"SELECT {key} AS k FROM {root.table} {past}ORDER BY {order} LIMIT $1",
            (limit,) if after is None else (limit, after),
        )
        return [row.k for row in rows]

    async def strange_keys(
        self, connection: AsyncConnection, entity: EntityMapping, *, most: int
    ) -> list[str]:
        """None: the key's column has a type."""
        return []

    async def count(self, connection: AsyncConnection, entity: EntityMapping) -> int:
        """Rows of the root table."""
        root = entity_sql(entity, Direction.towards(self.side)).projections[0]
        return int((await connection.exec_driver_sql(f"SELECT count(*) FROM {root.table}")).scalar_one())
