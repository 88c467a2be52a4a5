"""How far a backfill has come, and what it is told: rows on the target, beside the data that they speak of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from backend.shared.domain.errors import ConfigurationError
from backend.shared.domain.phases import Direction
from backend.shared.stores.postgres.key_sql import KeyRange
from backend.shared.stores.postgres.names import EngineNames
from backend.shared.stores.protocol import Position

FRESH_SECONDS = 5.0
"""A backfill whose last sign of life is older does not run any more."""


class Stage(StrEnum):
    """How far one entity has come."""

    COPY = "copy"
    REMOVE = "remove"
    """Looking for keys that the source has no longer."""
    COMPLETE = "complete"


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A range that was handed out. `whole`: while it is copied, carries of any key of the entity wait."""

    id: int
    entity: str
    keys: KeyRange
    whole: bool


@dataclass(frozen=True, kw_only=True)
class EntityProgress:
    """One entity's row. Counts are of the root table's rows, or of keys; `rows_expected` is an estimate."""

    entity: str
    direction: Direction
    epoch: int
    capture: str
    stage: Stage
    frontier: str | None
    exhausted: bool
    chunk_rows: int
    rows_expected: int
    rows_copied: int
    keys_removed: int
    keys_failed: int
    keys_waiting: int
    started_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class BackfillLimits:
    """What a backfill may take. None: no limit. All can be changed while it runs.

    `max_rows_per_second` counts the root table's rows in one process, `max_lag_seconds` is the relay's lag above which
    nothing is copied, `max_connection_share` the share (0 to 1) of either server's connections that may be in use.
    """

    max_rows_per_second: float | None = None
    max_lag_seconds: float | None = 30.0
    max_connection_share: float | None = 0.8
    workers: int = 2

    def __post_init__(self) -> None:
        for name, most in (
            ("max_rows_per_second", 1e9),
            ("max_lag_seconds", 1e9),
            ("max_connection_share", 1),
        ):
            value = getattr(self, name)
            if value is not None and not 0 < value <= most:
                raise ConfigurationError(f"{name} must be above zero and at most {most:g}")
        if not 1 <= self.workers <= 64:
            raise ConfigurationError("workers must be from 1 to 64")

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> BackfillLimits:
        """Limits as they were kept; names that this version does not know are passed over."""
        known = {item.name for item in fields(cls)}
        return cls(**{name: value for name, value in kept.items() if name in known})

    def changed(self, changes: Mapping[str, Any]) -> BackfillLimits:
        """These limits with `changes`; raises `ConfigurationError` for what cannot be."""
        return replace(self, **changes)


@dataclass(frozen=True, kw_only=True)
class BackfillControl:
    """What a backfill is told, and what it last said of itself."""

    paused: bool = False
    limits: BackfillLimits = BackfillLimits()
    held_by: str | None = None
    rows_per_second: float | None = None
    seconds_since_heartbeat: float | None = None

    @property
    def is_running(self) -> bool:
        """Whether a process has given a sign of life lately."""
        return self.seconds_since_heartbeat is not None and self.seconds_since_heartbeat < FRESH_SECONDS


class BackfillRepository:
    """Reads and writes the progress of one service's backfill; the caller owns the transactions.

    On its target, or, where that keeps no tables, on the source: then entities are kept under a `prefix`.
    """

    def __init__(self, names: EngineNames, *, prefix: str = "") -> None:
        self._names = names
        self._prefix = prefix

    async def progress(self, connection: AsyncConnection) -> dict[str, EntityProgress]:
        """All entities that a backfill was begun of, by name."""
        columns = ", ".join(item.name for item in fields(EntityProgress))
        rows = await connection.exec_driver_sql(f"SELECT {columns} FROM {self._names.backfill}")
        return {
            name: _progress({**row._asdict(), "entity": name})
            for row in rows
            if row.entity.startswith(self._prefix) and ":" not in (name := row.entity[len(self._prefix) :])
        }

    async def void(self, connection: AsyncConnection) -> None:
        """What was copied does not count: capture had a gap since."""
        await connection.exec_driver_sql(
            f"UPDATE {self._names.backfill} SET capture = '' WHERE starts_with(entity, $1)", (self._prefix,)
        )

    async def demand(
        self, connection: AsyncConnection, entities: Sequence[str], direction: Direction
    ) -> None:
        """Say that `entities` have to be copied, whatever has been before."""
        await connection.exec_driver_sql(f"DELETE FROM {self._names.backfill_chunk}")
        await connection.exec_driver_sql(
            f"INSERT INTO {self._names.backfill} "
            "(entity, direction, epoch, capture, stage, chunk_rows, rows_expected) "
            "SELECT $3 || name, $2, 0, '', 'copy', 1000, 0 FROM unnest($1::text[]) AS name "
            "ON CONFLICT (entity) DO UPDATE SET capture = ''",
            (list(entities), direction.value, self._prefix),
        )

    async def advance(
        self,
        connection: AsyncConnection,
        before: EntityProgress,
        *,
        frontier: str | None,
        rows: int,
        removed: int,
        failed: int,
        waiting: int,
    ) -> bool:
        """Count keys up to `frontier` (None: all) as carried; False if another process has gone on from `before`."""
        found = await connection.exec_driver_sql(
            f"UPDATE {self._names.backfill} SET frontier = $3::text, exhausted = $3::text IS NULL, "
            "rows_copied = rows_copied + $5, keys_removed = keys_removed + $6, keys_failed = keys_failed + $7, "
            "keys_waiting = keys_waiting + $8 WHERE entity = $1 AND started_at = $4::timestamptz "
            "AND frontier IS NOT DISTINCT FROM $2::text AND NOT exhausted RETURNING entity",
            (
                self._prefix + before.entity,
                before.frontier,
                frontier,
                before.started_at,
                rows,
                removed,
                failed,
                waiting,
            ),
        )
        return found.first() is not None

    async def begin(
        self,
        connection: AsyncConnection,
        entity: str,
        *,
        before: EntityProgress | None,
        direction: Direction,
        epoch: int,
        capture: str,
        rows_expected: int,
        chunk_rows: int,
    ) -> None:
        """Begin an entity anew, unless another process has done so since `before` was read."""
        seen = before.started_at if before else None
        found = await connection.exec_driver_sql(
            f"INSERT INTO {self._names.backfill} AS b "
            "(entity, direction, epoch, capture, stage, chunk_rows, rows_expected) "
            "VALUES ($1, $2, $3, $4, 'copy', $5, $6) ON CONFLICT (entity) DO UPDATE SET direction = excluded.direction, "
            "epoch = excluded.epoch, capture = excluded.capture, stage = 'copy', frontier = NULL, exhausted = false, "
            "chunk_rows = excluded.chunk_rows, rows_expected = excluded.rows_expected, rows_copied = 0, "
            "keys_removed = 0, keys_failed = 0, keys_waiting = 0, started_at = clock_timestamp(), finished_at = NULL "
            "WHERE b.started_at = $7::timestamptz RETURNING entity",
            (self._prefix + entity, direction.value, epoch, capture, chunk_rows, rows_expected, seen),
        )
        if found.first() is not None:
            await connection.exec_driver_sql(
                f"DELETE FROM {self._names.backfill_chunk} WHERE entity = $1", (entity,)
            )

    async def chunks(self, connection: AsyncConnection, entity: str) -> list[Chunk]:
        """Ranges that were handed out and are not copied yet."""
        rows = await connection.exec_driver_sql(
            f"SELECT id, entity, lower, upper, locked_whole FROM {self._names.backfill_chunk} "
            "WHERE entity = $1 ORDER BY id",
            (entity,),
        )
        return [_chunk(row) for row in rows]

    async def hand_out(
        self, connection: AsyncConnection, before: EntityProgress, *, upper: str | None, whole: bool
    ) -> Chunk | None:
        """The range from the frontier to `upper`, which is the frontier now; None if another process was first."""
        found = await connection.exec_driver_sql(
            f"WITH moved AS (UPDATE {self._names.backfill} SET frontier = $3::text, exhausted = $3::text IS NULL "
            "WHERE entity = $1 AND frontier IS NOT DISTINCT FROM $2::text AND NOT exhausted "
            "AND started_at = $5::timestamptz RETURNING entity) "
            f"INSERT INTO {self._names.backfill_chunk} (entity, lower, upper, locked_whole) "
            "SELECT entity, $2::text, $3::text, $4::boolean FROM moved "
            "RETURNING id, entity, lower, upper, locked_whole",
            (before.entity, before.frontier, upper, whole, before.started_at),
        )
        row = found.first()
        return _chunk(row) if row else None

    async def is_free(self, connection: AsyncConnection, chunk: Chunk) -> bool:
        """Whether nobody copies a chunk now; carries that wait for it do not count."""
        found = await connection.exec_driver_sql(
            f"SELECT 1 FROM {self._names.backfill_chunk} WHERE id = $1 FOR KEY SHARE SKIP LOCKED", (chunk.id,)
        )
        return found.first() is not None

    async def hold(self, connection: AsyncConnection, chunk: Chunk) -> bool:
        """Hold a chunk until the transaction ends; False if it is done or split by now."""
        found = await connection.exec_driver_sql(
            f"SELECT upper FROM {self._names.backfill_chunk} WHERE id = $1 FOR UPDATE", (chunk.id,)
        )
        row = found.first()
        return row is not None and row.upper == chunk.keys.upper

    async def split(self, connection: AsyncConnection, chunk: Chunk, middle: str) -> None:
        """Make two chunks of one, parted after the key `middle`."""
        await connection.exec_driver_sql(
            f"WITH first AS (UPDATE {self._names.backfill_chunk} SET upper = $3 "
            "WHERE id = $1 AND upper IS NOT DISTINCT FROM $2 RETURNING entity, locked_whole) "
            f"INSERT INTO {self._names.backfill_chunk} (entity, lower, upper, locked_whole) "
            "SELECT entity, $3, $2, locked_whole FROM first",
            (chunk.id, chunk.keys.upper, middle),
        )

    async def finish(
        self,
        connection: AsyncConnection,
        chunk: Chunk,
        *,
        rows: int,
        removed: int = 0,
        failed: int = 0,
        waiting: int = 0,
        chunk_rows: int,
    ) -> None:
        """Count a chunk as copied, and forget its range."""
        await connection.exec_driver_sql(
            f"DELETE FROM {self._names.backfill_chunk} WHERE id = $1", (chunk.id,)
        )
        await connection.exec_driver_sql(
            f"UPDATE {self._names.backfill} SET rows_copied = rows_copied + $2, keys_removed = keys_removed + $3, "
            "keys_failed = keys_failed + $4, keys_waiting = keys_waiting + $5, chunk_rows = $6 WHERE entity = $1",
            (chunk.entity, rows, removed, failed, waiting, chunk_rows),
        )

    async def resize(self, connection: AsyncConnection, before: EntityProgress, *, chunk_rows: int) -> None:
        """Have the next chunks of an entity hold so many rows."""
        await connection.exec_driver_sql(
            f"UPDATE {self._names.backfill} SET chunk_rows = $2 WHERE entity = $1 AND started_at = $3::timestamptz",
            (before.entity, chunk_rows, before.started_at),
        )

    async def removal(
        self, connection: AsyncConnection, before: EntityProgress, *, frontier: str, removed: int
    ) -> None:
        """Note how far the search for keys to remove has come."""
        await connection.exec_driver_sql(
            f"UPDATE {self._names.backfill} SET frontier = $2, keys_removed = keys_removed + $3 "
            "WHERE entity = $1 AND stage = 'remove' AND started_at = $4::timestamptz",
            (before.entity, frontier, removed, before.started_at),
        )

    async def enter_stage(self, connection: AsyncConnection, before: EntityProgress, stage: Stage) -> None:
        """Move an entity on to its next stage, once."""
        await connection.exec_driver_sql(
            f"UPDATE {self._names.backfill} SET stage = $2, frontier = NULL, "
            "finished_at = CASE WHEN $2 = 'complete' THEN clock_timestamp() END "
            "WHERE entity = $1 AND stage = $3 AND started_at = $4::timestamptz",
            (self._prefix + before.entity, stage.value, before.stage.value, before.started_at),
        )

    async def raise_floor(
        self, connection: AsyncConnection, entity: str, *, epoch: int, position: Position
    ) -> None:
        """Let no carry write what it read before `position`."""
        await connection.exec_driver_sql(
            f"INSERT INTO {self._names.guard_floor} AS f (entity, epoch, major, minor) VALUES ($1, $2, $3, $4) "
            "ON CONFLICT (entity) DO UPDATE "
            "SET epoch = excluded.epoch, major = excluded.major, minor = excluded.minor "
            "WHERE (f.epoch, f.major, f.minor) < (excluded.epoch, excluded.major, excluded.minor)",
            (entity, epoch, position.major, position.minor),
        )

    async def control(self, connection: AsyncConnection) -> BackfillControl:
        """What a backfill is told; the defaults if nobody has said anything."""
        found = await connection.exec_driver_sql(
            "SELECT paused, limits::text AS limits, held_by, rows_per_second, "
            "extract(epoch FROM clock_timestamp() - heartbeat_at)::float8 AS age "
            f"FROM {self._names.backfill_control}"
        )
        row = found.first()
        if row is None:
            return BackfillControl()
        return BackfillControl(
            paused=row.paused,
            limits=BackfillLimits.of(json.loads(row.limits)),
            held_by=row.held_by,
            rows_per_second=row.rows_per_second,
            seconds_since_heartbeat=row.age,
        )

    async def change_control(
        self, connection: AsyncConnection, *, paused: bool | None, limits: BackfillLimits, by: str
    ) -> None:
        """Tell a backfill something: `paused` None leaves that as it is."""
        await connection.exec_driver_sql(
            f"INSERT INTO {self._names.backfill_control} AS c (paused, limits, changed_by) "
            "VALUES (coalesce($1::boolean, false), $2::text::jsonb, $3) ON CONFLICT (only_row) DO UPDATE "
            "SET paused = coalesce($1::boolean, c.paused), limits = excluded.limits, changed_by = excluded.changed_by, "
            "changed_at = clock_timestamp()",
            (paused, json.dumps(asdict(limits)), by),
        )

    async def beat(
        self, connection: AsyncConnection, *, held_by: str | None, rows_per_second: float, by: str
    ) -> None:
        """Give a sign of life."""
        await connection.exec_driver_sql(
            f"INSERT INTO {self._names.backfill_control} (held_by, rows_per_second, heartbeat_at, changed_by) "
            "VALUES ($1, $2, clock_timestamp(), $3) ON CONFLICT (only_row) DO UPDATE "
            "SET held_by = excluded.held_by, rows_per_second = excluded.rows_per_second, "
            "heartbeat_at = excluded.heartbeat_at",
            (held_by, rows_per_second, by),
        )

    async def rest(self, connection: AsyncConnection) -> None:
        """Say that no process works any more."""
        await connection.exec_driver_sql(
            f"UPDATE {self._names.backfill_control} SET heartbeat_at = NULL, held_by = NULL"
        )


def _progress(row: Mapping[str, Any]) -> EntityProgress:
    return EntityProgress(**{**row, "direction": Direction(row["direction"]), "stage": Stage(row["stage"])})


def _chunk(row: Any) -> Chunk:
    keys = KeyRange(lower=row.lower, upper=row.upper)
    return Chunk(id=row.id, entity=row.entity, keys=keys, whole=row.locked_whole)


def estimate(progress: Sequence[EntityProgress]) -> tuple[int, int]:
    """Rows copied and rows expected, of all of `progress`; the estimate is never below what was copied."""
    copied = sum(item.rows_copied for item in progress)
    expected = sum(
        item.rows_copied if item.exhausted else max(item.rows_expected, item.rows_copied) for item in progress
    )
    return copied, expected
