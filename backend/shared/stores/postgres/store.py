"""State of entities on PostgreSQL: read with its position, applied behind the guard."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache

from sqlalchemy.ext.asyncio import AsyncConnection

from backend.shared.domain.errors import FencedError
from backend.shared.domain.mapping import EntityCatalog, EntityMapping, Projection
from backend.shared.domain.phases import Direction
from backend.shared.domain.sync_status import sync_root
from backend.shared.stores.postgres.names import CARRY_SETTING, EngineNames
from backend.shared.stores.postgres.projection_sql import POSITION, EntitySql, key_text, ordered_bound, quoted
from backend.shared.stores.postgres.sync_columns import synced_statement
from backend.shared.stores.protocol import Applied, OutdatedReadError, Position, StateBatch

_FLUSH = (
    "SELECT set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'local' "
    "ELSE current_setting('synchronous_commit') END, true), pg_logical_emit_message(true, 'tandem', '')"
)


@lru_cache(maxsize=1024)
def entity_sql(entity: EntityMapping, direction: Direction) -> EntitySql:
    """The compiled statements of an entity in one direction."""
    return EntitySql(entity, entity.projections(direction))


class PostgresStore:
    """Reads and writes the state of one service's entities on a PostgreSQL side.

    The caller owns connection and transaction. `apply` is meant for a transaction of its own: it takes the fence lock
    of the target in share mode, gives up (`FencedError`) unless the target is closed and of the epoch named, moves the
    guards in key order, and writes only keys whose guard moved. Doing it again, or late, changes nothing.
    """

    def __init__(self, names: EngineNames, catalog: EntityCatalog) -> None:
        self.names = names
        self.catalog = catalog

    async def read_state(
        self, connection: AsyncConnection, entity: EntityMapping, direction: Direction, *, keys: Sequence[str]
    ) -> StateBatch:
        """The state of `keys` on the source, in the target's shape, with the position of the snapshot that read it."""
        return await self._read(connection, entity_sql(entity, direction).read_state, entity, direction, keys)

    async def read_stored(
        self, connection: AsyncConnection, entity: EntityMapping, direction: Direction, *, keys: Sequence[str]
    ) -> StateBatch:
        """What the target of `direction` itself holds of `keys`: mapped columns only."""
        return await self._read(
            connection, entity_sql(entity, direction).read_stored, entity, direction, keys, raw=True
        )

    async def _read(
        self,
        connection: AsyncConnection,
        statement: str,
        entity: EntityMapping,
        direction: Direction,
        keys: Sequence[str],
        *,
        raw: bool = False,
    ) -> StateBatch:
        ordered = tuple(sorted(set(keys)))
        row = (await connection.exec_driver_sql(statement, (list(ordered),))).one()
        rows: list[str] = []
        present: list[frozenset[str]] = []
        for number, projection in enumerate(entity.projections(direction)):
            text, found = row[2 + 2 * number], frozenset(row[3 + 2 * number])
            if projection.function and not raw:
                text, found = through_function(entity, projection, text)
            rows.append(text)
            # Without its root row there is no such entity, whatever other tables still hold of it.
            present.append(found & present[0] if present else found)
        return StateBatch(
            entity=entity,
            direction=direction,
            keys=ordered,
            position=Position(major=row.major, minor=row.minor),
            rows=tuple(rows),
            present=tuple(present),
        )

    async def read_uncommitted(
        self, connection: AsyncConnection, entity: EntityMapping, direction: Direction, *, keys: Sequence[str]
    ) -> StateBatch:
        """State of `keys` as the open transaction sees it; a projection that fails does not spoil it."""
        await connection.exec_driver_sql("SAVEPOINT tandem_read")
        try:
            return await self.read_state(connection, entity, direction, keys=keys)
        except Exception:
            await connection.exec_driver_sql("ROLLBACK TO SAVEPOINT tandem_read")
            raise

    async def position(self, connection: AsyncConnection) -> Position:
        """Where the source stands: the position of a snapshot taken now."""
        row = (await connection.exec_driver_sql(POSITION)).one()
        return Position(major=row.major, minor=row.minor)

    async def make_durable(self, connection: AsyncConnection) -> None:
        """Flush the source's log past every transaction that the snapshot before this call has counted.

        The number of a transaction that ended without leaving anything on disk is given out again after a crash of the
        server: a guard moved to a position that counts it would then stand in the way of later changes. A transaction
        with a number of its own, begun after the snapshot and committed to disk, keeps the numbers from going back.
        """
        await connection.exec_driver_sql(_FLUSH)

    async def apply(
        self, connection: AsyncConnection, batches: Sequence[StateBatch], *, epoch: int
    ) -> dict[str, Applied]:
        """Write `batches`, one per entity, where their guards move forward; answers by entity name.

        Everything in the caller's transaction. Raises `FencedError` before any row is touched when the target is open
        or of another epoch, and whatever the database raises when it refuses a row.
        """
        ordered = sorted(batches, key=lambda batch: self.catalog.rank(batch.entity.name))
        await self.enter(connection, ordered[0].direction, epoch=epoch)
        moved = {
            batch.entity.name: await self.move_guards(connection, batch, epoch=epoch) for batch in ordered
        }
        await self.write(connection, ordered, moved)
        return {
            batch.entity.name: Applied(
                moved=moved[batch.entity.name], skipped=frozenset(batch.keys) - moved[batch.entity.name]
            )
            for batch in ordered
        }

    async def enter(self, connection: AsyncConnection, direction: Direction, *, epoch: int) -> None:
        """Mark the transaction as a carry; take the target's fence lock and its carry lock in share mode."""
        await connection.exec_driver_sql(
            f"SELECT pg_advisory_xact_lock_shared({self.names.fence_lock}), "
            f"pg_advisory_xact_lock_shared({self.names.carry_lock}), set_config('{CARRY_SETTING}', $1, true)",
            (self.names.carry_mark(direction, epoch),),
        )

    async def move_guards(
        self, connection: AsyncConnection, batch: StateBatch, *, epoch: int
    ) -> frozenset[str]:
        """Move the guards of a batch to its position; answers the keys that moved.

        The mark is read in this statement, later than the one that took the locks, so that it cannot be an old one; and
        so are the ranges that a backfill is copying. Raises `OutdatedReadError`, with no guard moved, when the entity's
        floor is newer than what was read.
        """
        position = batch.position
        parameters = (batch.entity.name, epoch, position.major, position.minor, list(batch.keys))
        held: list[int] = []
        while True:
            row = (
                await connection.exec_driver_sql(self._move_guards(batch.entity), (*parameters, held))
            ).one()
            if not row.copying:
                break
            await self._hold(connection, row.copying)
            held += row.copying
        if not row.closed:
            raise FencedError(
                f"not closed in epoch {epoch}, so nothing may be carried to it",
                side=batch.direction.target,
                entity=batch.entity.name,
                unavailable=True,
            )
        if row.outdated:
            raise OutdatedReadError(batch.entity.name)
        return frozenset(row.moved or ())

    def _move_guards(self, entity: EntityMapping) -> str:
        names = self.names
        return (
            f"WITH mark AS MATERIALIZED (SELECT 1 FROM {names.mark} WHERE state = 'closed' AND epoch = $2::bigint), "
            f"floor AS MATERIALIZED (SELECT 1 FROM {names.guard_floor} AS f WHERE f.entity = $1::text "
            "AND (f.epoch, f.major, f.minor) > ($2::bigint, $3::bigint, $4::bigint)), "
            f"copying AS MATERIALIZED ({_copying(names, entity, keys='$5')} AND c.id <> ALL ($6::bigint[])), "
            f"moved AS (INSERT INTO {names.guard} AS g (entity, key, epoch, major, minor) "
            "SELECT $1::text, k, $2::bigint, $3::bigint, $4::bigint FROM unnest($5::text[]) AS k "
            "WHERE EXISTS (SELECT 1 FROM mark) AND NOT EXISTS (SELECT 1 FROM floor) "
            'AND NOT EXISTS (SELECT 1 FROM copying) ORDER BY k COLLATE "C" '
            "ON CONFLICT (entity, key) DO UPDATE "
            "SET epoch = excluded.epoch, major = excluded.major, minor = excluded.minor "
            "WHERE (g.epoch, g.major, g.minor) < (excluded.epoch, excluded.major, excluded.minor) RETURNING g.key) "
            "SELECT EXISTS (SELECT 1 FROM mark) AS closed, EXISTS (SELECT 1 FROM floor) AS outdated, "
            "(SELECT array_agg(id) FROM copying) AS copying, (SELECT array_agg(key) FROM moved) AS moved"
        )

    async def _hold(self, connection: AsyncConnection, chunks: Sequence[int]) -> None:
        """Wait until nobody copies these ranges, and keep it so until the transaction ends."""
        await connection.exec_driver_sql(
            f"SELECT 1 FROM {self.names.backfill_chunk} WHERE id = ANY ($1::bigint[]) ORDER BY id FOR SHARE",
            (list(chunks),),
        )

    async def lock_guards(
        self, connection: AsyncConnection, entity: EntityMapping, *, keys: Sequence[str]
    ) -> None:
        """Hold the guards of `keys` until the transaction ends, without moving them; waits for ranges being copied."""
        await connection.exec_driver_sql(
            f"{_copying(self.names, entity, keys='$2')} ORDER BY c.id FOR SHARE",
            (entity.name, sorted(set(keys))),
        )
        await connection.exec_driver_sql(
            f"INSERT INTO {self.names.guard} AS g (entity, key, epoch, major, minor) "
            'SELECT $1::text, k, 0, 0, 0 FROM unnest($2::text[]) AS k ORDER BY k COLLATE "C" '
            "ON CONFLICT (entity, key) DO UPDATE SET key = excluded.key",
            (entity.name, sorted(set(keys))),
        )

    async def read_guards(
        self, connection: AsyncConnection, entity: EntityMapping, *, keys: Sequence[str]
    ) -> dict[str, tuple[int, Position]]:
        """Epoch and position of the guards of `keys` that have one."""
        rows = await connection.exec_driver_sql(
            f"SELECT key, epoch, major, minor FROM {self.names.guard} WHERE entity = $1 AND key = ANY ($2::text[])",
            (entity.name, list(keys)),
        )
        return {row.key: (row.epoch, Position(major=row.major, minor=row.minor)) for row in rows}

    async def write(
        self, connection: AsyncConnection, batches: Sequence[StateBatch], moved: Mapping[str, frozenset[str]]
    ) -> None:
        """Make the rows of the `moved` keys what the batches say: deletes children first, then upserts parents first."""
        for batch in reversed(batches):
            await self._delete(connection, batch, moved[batch.entity.name])
        for batch in batches:
            keys = moved[batch.entity.name]
            statements = entity_sql(batch.entity, batch.direction).projections
            for sql, rows, present in zip(statements, batch.rows, batch.present, strict=True):
                if wanted := keys & present:
                    await connection.exec_driver_sql(sql.upsert, (rows, sorted(wanted)))
            await self._synced(connection, batch, keys)

    @staticmethod
    async def _synced(connection: AsyncConnection, batch: StateBatch, keys: frozenset[str]) -> None:
        """Where rows say how they stand, those of a carry are SYNCED, also if nothing had to be written."""
        side = batch.direction.target
        root = sync_root(batch.entity, side)
        if root is not None and keys:
            await connection.exec_driver_sql(synced_statement(batch.entity, root, side), (sorted(keys),))

    @staticmethod
    async def _delete(connection: AsyncConnection, batch: StateBatch, keys: frozenset[str]) -> None:
        statements = entity_sql(batch.entity, batch.direction).projections
        for sql, present in reversed(list(zip(statements, batch.present, strict=True))):
            # Where a key has several rows they are replaced as a whole.
            if gone := keys if sql.projection.many else keys - present:
                await connection.exec_driver_sql(sql.delete, (sorted(gone),))


def _copying(names: EngineNames, entity: EntityMapping, *, keys: str) -> str:
    """A query of the chunks of entity `$1` that hold one of the canonical keys in the array `keys`."""
    key = ordered_bound("k", entity.key)
    lower, upper = ordered_bound("c.lower", entity.key), ordered_bound("c.upper", entity.key)
    return (
        f"SELECT c.id FROM {names.backfill_chunk} AS c WHERE c.entity = $1::text AND (c.locked_whole OR EXISTS ("
        f"SELECT 1 FROM unnest({keys}::text[]) AS k "
        f"WHERE (c.lower IS NULL OR {key} > {lower}) AND (c.upper IS NULL OR {key} <= {upper})))"
    )


def through_function(entity: EntityMapping, projection: Projection, text: str) -> tuple[str, frozenset[str]]:
    """Pass the rows of a projection through its Python function; answers the new rows and their keys."""
    function = projection.function
    if function is None:
        raise AssertionError(f"{entity.name}: {projection.table.name} is mapped by SQL")
    rows = [row for row in map(function, json.loads(text)) if row is not None]
    keys = frozenset(json.dumps([row[name] for name in projection.key], ensure_ascii=False) for row in rows)
    return json.dumps(rows, ensure_ascii=False), keys


__all__ = ["PostgresStore", "entity_sql", "key_text", "quoted", "through_function"]
