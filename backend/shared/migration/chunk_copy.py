"""Copies one range of keys from one server to the other, under live traffic (R3, R8).

The chunk's row is held on the target from before the source is read until the copy is durable, and carries of its keys
wait for it: so whatever a carry has written there was read earlier than this, and may be overwritten. The snapshot's
position becomes the floor of the entity: whatever a carry has read before that and writes later, it reads again. Together
they are the guard of all keys of the range, at the price of one row a chunk instead of one a key.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from backend.shared.domain.errors import FencedError
from backend.shared.domain.phases import Direction
from backend.shared.journal.carrier import Hook, no_hook
from backend.shared.migration.backfill_state import BackfillRepository, Chunk
from backend.shared.migration.range_sql import EntityRanges, stage_name
from backend.shared.stores.errors import sqlstate_of
from backend.shared.stores.postgres.errors import UNIQUE_VIOLATION
from backend.shared.stores.postgres.names import CARRY_SETTING, EngineNames
from backend.shared.stores.postgres.projection_sql import ProjectionSql
from backend.shared.stores.postgres.session_settings import PRINTED_ALIKE, set_locally
from backend.shared.stores.postgres.store import PostgresStore

PIECES_IN_FLIGHT = 64
"""Pieces of the stream, each of one network read, that may wait for the slower side: memory does not grow with the data."""
COPY_SECONDS = 600.0
BARRIER_MS = 200
"""A wait for the carry lock stops the carries behind it, so it is a short one, tried again."""


@dataclass(frozen=True, kw_only=True)
class Copied:
    """What became of a chunk: rows of the root table that the source has, and rows removed on the target."""

    rows: int
    removed: int


@dataclass(frozen=True, kw_only=True)
class _OpenFailure:
    id: int
    last_failed_at: datetime


class ChunkCopier:
    """Copies chunks of one service in one direction. A chunk that did not end is copied again by whoever comes next."""

    def __init__(
        self,
        *,
        source: AsyncEngine,
        target: AsyncEngine,
        store: PostgresStore,
        direction: Direction,
        hook: Hook = no_hook,
    ) -> None:
        self._source = source.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._source_each = source.execution_options(isolation_level="AUTOCOMMIT")
        self._target = target
        self._store = store
        self._names: EngineNames = store.names
        self._state = BackfillRepository(store.names)
        self._direction = direction
        self._hook = hook
        self._merges: set[str] = set()
        self._barrier = asyncio.Lock()
        self._barriers = 0

    async def await_carries(self) -> None:
        """Wait until every carry that began before this call has ended. Those that begin later see all chunks.

        Workers share: one wait that began after the call does for all who were there by then.
        """
        seen = self._barriers
        async with self._barrier:
            if self._barriers > seen:
                return
            self._barriers += 1
            while not await self._have_ended():  # noqa: ASYNC110 - another server's affair
                await asyncio.sleep(BARRIER_MS / 1000)

    async def _have_ended(self) -> bool:
        try:
            async with self._target.connect() as connection, connection.begin():
                await connection.exec_driver_sql(f"SET LOCAL lock_timeout = {BARRIER_MS}")
                await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({self._names.carry_lock})")
        except Exception as error:
            if sqlstate_of(error) != "55P03":
                raise
            return False
        return True

    async def copy(self, ranges: EntityRanges, chunk: Chunk, *, epoch: int, chunk_rows: int) -> Copied | None:
        """Copy `chunk`, count it, and forget its range: one transaction on the target.

        None if somebody else has copied or split it. Raises what either database says, and
        `FencedError` if the target is not closed in `epoch`; then nothing has changed.
        """
        async with self._target.connect() as target, target.begin():
            await self._enter(target, epoch=epoch)
            if not await self._state.hold(target, chunk):
                return None
            await self._check_closed(target, epoch=epoch)
            await self._hook("backfill_after_lock")
            async with self._source.connect() as source:
                # Before the snapshot: a table that somebody rewrites (ALTER TABLE) is empty to snapshots older than that.
                await source.exec_driver_sql(ranges.lock_source)
                position = await self._store.position(source)
                await source.exec_driver_sql(set_locally(PRINTED_ALIKE))
                await self._hook("backfill_after_snapshot")
                failures = await self._open_failures(source, ranges, chunk)
                copied = await self._transfer(source, target, ranges, chunk)
            async with self._source_each.connect() as source:
                await self._store.make_durable(source)
            await self._state.raise_floor(target, chunk.entity, epoch=epoch, position=position)
            await self._state.finish(
                target, chunk, rows=copied.rows, removed=copied.removed, chunk_rows=chunk_rows
            )
            await self._hook("backfill_before_commit")
        await self._hook("backfill_after_commit")
        await self._close(failures)
        return copied

    async def _enter(self, target: AsyncConnection, *, epoch: int) -> None:
        """Take the fence lock, as every carry does; but not the carry lock, or two workers would wait for each other."""
        await target.exec_driver_sql(
            f"SELECT pg_advisory_xact_lock_shared({self._names.fence_lock}), "
            f"set_config('{CARRY_SETTING}', $1, true)",
            (self._names.carry_mark(self._direction, epoch),),
        )

    async def _check_closed(self, target: AsyncConnection, *, epoch: int) -> None:
        found = await target.exec_driver_sql(
            f"SELECT 1 FROM {self._names.mark} WHERE state = 'closed' AND epoch = $1", (epoch,)
        )
        if found.first() is None:
            raise FencedError(
                f"not closed in epoch {epoch}, so nothing may be copied to it",
                side=self._direction.target,
                unavailable=True,
            )

    async def _transfer(
        self, source: AsyncConnection, target: AsyncConnection, ranges: EntityRanges, chunk: Chunk
    ) -> Copied:
        if ranges.exact:
            merge = await self._is_taken(target, ranges, chunk)
        elif not (merge := chunk.entity in self._merges or await self._has_further_rows(target, ranges)):
            # No range of the target says whether it is empty there: so try.
            await target.exec_driver_sql("SAVEPOINT tandem_copy")
            try:
                return await self._copy_straight(source, target, ranges, chunk)
            except Exception as error:
                if sqlstate_of(error) != UNIQUE_VIOLATION:
                    raise
            await target.exec_driver_sql("ROLLBACK TO SAVEPOINT tandem_copy")
            self._merges.add(chunk.entity)
            merge = True
        if merge:
            return await self._merge(source, target, ranges, chunk)
        return await self._copy_straight(source, target, ranges, chunk)

    @staticmethod
    async def _has_further_rows(target: AsyncConnection, ranges: EntityRanges) -> bool:
        """Whether tables beside the root hold anything: of a key whose root is not there, nobody else would say so."""
        for sql in ranges.tables[1:]:
            if (await target.exec_driver_sql(f"SELECT EXISTS (SELECT 1 FROM {sql.table})")).scalar_one():
                return True
        return False

    @staticmethod
    async def _is_taken(target: AsyncConnection, ranges: EntityRanges, chunk: Chunk) -> bool:
        for sql in ranges.tables:
            statement, parameters = ranges.is_taken(sql, chunk.keys)
            if (await target.exec_driver_sql(statement, tuple(parameters))).scalar_one():
                return True
        return False

    async def _copy_straight(
        self, source: AsyncConnection, target: AsyncConnection, ranges: EntityRanges, chunk: Chunk
    ) -> Copied:
        """Into the tables themselves, parents first."""
        counts = []
        for sql in ranges.tables:
            table = sql.projection.table
            counts.append(
                await self._pipe(source, target, ranges, sql, chunk, into=table.name, schema=table.schema)
            )
        return Copied(rows=counts[0], removed=0)

    async def _merge(
        self, source: AsyncConnection, target: AsyncConnection, ranges: EntityRanges, chunk: Chunk
    ) -> Copied:
        """Beside the tables, then into them: where rows are there already."""
        counts, removed = [], 0
        for number, sql in enumerate(ranges.tables):
            await target.exec_driver_sql(ranges.stage(sql, number))
            counts.append(
                await self._pipe(source, target, ranges, sql, chunk, into=stage_name(number), schema=None)
            )
            await target.exec_driver_sql(f"ANALYZE {stage_name(number)}")
        for number, sql in reversed(list(enumerate(ranges.tables))):
            if ranges.exact:
                statement, parameters = ranges.remove(sql, number, chunk.keys)
                gone = (await target.exec_driver_sql(statement, tuple(parameters))).rowcount
                removed = gone if number == 0 else removed
            elif number:
                await target.exec_driver_sql(ranges.remove_beside(sql, number))
        for number, sql in enumerate(ranges.tables):
            await target.exec_driver_sql(ranges.merge(sql, number))
        return Copied(rows=counts[0], removed=removed)

    async def _pipe(
        self,
        source: AsyncConnection,
        target: AsyncConnection,
        ranges: EntityRanges,
        sql: ProjectionSql,
        chunk: Chunk,
        *,
        into: str,
        schema: str | None,
    ) -> int:
        """`COPY … TO STDOUT` of the source into `COPY … FROM STDIN` of the target; answers the rows."""
        query, form = ranges.rows(sql, chunk.keys), ranges.form(sql)
        reader, writer = await _driver(source), await _driver(target)
        async with _pieces(reader, query, form) as pieces:
            copying = writer.copy_to_table(
                into,
                schema_name=schema,
                columns=[column.name for column in sql.projection.columns],
                source=pieces,
                format=form,
                timeout=COPY_SECONDS,
            )
            try:
                status = await _unless_lost(writer, copying)
            except ConnectionError:
                await target.invalidate()
                raise
        return int(str(status).split()[-1])

    async def _open_failures(
        self, source: AsyncConnection, ranges: EntityRanges, chunk: Chunk
    ) -> list[_OpenFailure]:
        """Failures of the range that the snapshot has: what it holds is what is copied, so they are over then."""
        statement, parameters = ranges.failures(self._names.failure, chunk.keys)
        rows = await source.exec_driver_sql(statement, tuple(parameters))
        return [_OpenFailure(id=row.id, last_failed_at=row.last_failed_at) for row in rows]

    async def _close(self, failures: list[_OpenFailure]) -> None:
        if not failures:
            return
        async with self._source_each.connect() as source:
            await source.exec_driver_sql(
                f"UPDATE {self._names.failure} AS f SET state = 'closed', closed_at = clock_timestamp(), "
                "closed_by = 'backfill' FROM unnest($1::bigint[], $2::timestamptz[]) AS k(id, seen) "
                "WHERE f.id = k.id AND f.state = 'open' AND f.last_failed_at = k.seen",
                ([item.id for item in failures], [item.last_failed_at for item in failures]),
            )


async def _driver(connection: AsyncConnection) -> Any:
    """The driver's own connection, in the same transaction."""
    return (await connection.get_raw_connection()).driver_connection


async def _unless_lost(connection: Any, copying: Coroutine[Any, Any, str]) -> str:
    """The end of a COPY to `connection`. The driver, waiting to be allowed to send more, does not see that it is lost."""
    lost = asyncio.Event()

    def note(_: object) -> None:
        lost.set()

    task = asyncio.create_task(copying)
    losing = asyncio.create_task(lost.wait())
    connection.add_termination_listener(note)
    try:
        async with asyncio.timeout(COPY_SECONDS):
            await asyncio.wait({task, losing}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ConnectionResetError("the connection was lost during COPY")
        return task.result()
    finally:
        connection.remove_termination_listener(note)
        losing.cancel()
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task


@asynccontextmanager
async def _pieces(source: Any, query: str, form: str) -> AsyncIterator[AsyncIterator[bytes]]:
    """The stream of `COPY (query) TO STDOUT`, as fast as it is consumed."""
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(PIECES_IN_FLIGHT)

    async def read() -> None:
        try:
            await source.copy_from_query(query, output=queue.put, format=form, timeout=COPY_SECONDS)
        except Exception:
            await queue.put(None)
            raise
        await queue.put(None)

    async def pieces() -> AsyncIterator[bytes]:
        while (piece := await queue.get()) is not None:
            yield piece
        await reader  # what ended the stream before its end is raised here, and ends the other COPY too

    reader = asyncio.create_task(read())
    try:
        yield pieces()
    finally:
        reader.cancel()
        await asyncio.wait({reader})
        if not reader.cancelled():
            reader.exception()  # looked at, so that nobody complains that it never was
