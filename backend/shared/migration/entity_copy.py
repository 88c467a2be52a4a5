"""Copies one entity: chunks taken, copied, split where the target refuses a row, and their size kept to a time."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import ParamSpec, TypeVar

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from backend.shared.domain.errors import ConflictError, FencedError
from backend.shared.domain.phases import Side
from backend.shared.journal.carrier import Hook, TargetUnavailableError, no_hook
from backend.shared.migration.backfill_state import BackfillRepository, Chunk, EntityProgress, Stage
from backend.shared.migration.chunk_copy import ChunkCopier
from backend.shared.migration.key_carry import KeyCarrier
from backend.shared.migration.range_sql import EntityRanges
from backend.shared.migration.throttle import Throttle
from backend.shared.stores.errors import (
    classify,
    describe,
    is_database_error,
    is_timeout,
    may_pass,
    sqlstate_of,
    to_side_error,
)
from backend.shared.stores.protocol import OutdatedReadError, Trouble

P = ParamSpec("P")
T = TypeVar("T")

FIRST_CHUNK_ROWS = 1_000
LEAST_CHUNK_ROWS = 100
"""Below this a chunk's own price, some ten milliseconds, is what it costs."""
MOST_CHUNK_ROWS = 1_000_000
KEY_CHUNK_ROWS = 1_000
"""Rows of a chunk that is carried key by key: one that holds a refused row, or whose rows a Python function makes."""
REMOVAL_PAGE = 5_000
_GROWTH_MOST, _SHRINK_MOST = 4.0, 0.25
_TOO_LONG = "57014"
"""SQLSTATE of a statement that its timeout ended."""
_OTHERS_WORK_SECONDS = 0.05
TROUBLE_SECONDS = 0.5

log = structlog.get_logger(__name__)


@dataclass(kw_only=True)
class EntityCopy:
    """Copies one entity in one epoch. `chunk_seconds` is what a chunk should take."""

    ranges: EntityRanges
    begun_at: datetime
    epoch: int
    source: AsyncEngine
    target: AsyncEngine
    state: BackfillRepository
    copier: ChunkCopier
    keys: KeyCarrier
    throttle: Throttle
    chunk_seconds: float
    least_chunk_rows: int
    service: str
    hook: Hook = no_hook
    _in_hand: set[int] = field(default_factory=set)
    _handing_out: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def name(self) -> str:
        """The entity's name."""
        return self.ranges.entity.name

    async def run(self) -> None:
        """Copy what is left to copy; where ranges are not the same on both sides, remove what is no more."""
        progress = await self._patiently(self.progress)
        if progress.stage is Stage.COPY:
            await self._copy_all()
            progress = await self._patiently(self._next_stage)
        if progress.stage is Stage.REMOVE:
            await self._remove_all()
            await self._patiently(self._next_stage)
        log.info("entity_backfilled", service=self.service, entity=self.name)

    async def progress(self) -> EntityProgress:
        """How far this entity has come. Raises `ConflictError` if another process has begun it anew since."""
        async with self.target.connect() as connection:
            found = (await self.state.progress(connection))[self.name]
        if found.started_at != self.begun_at:
            raise ConflictError(f"{self.name}: another process has begun the backfill anew")
        return found

    async def _patiently(self, work: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        return await patiently(self.throttle, self.ranges.direction.target, work, *args, **kwargs)

    async def _next_stage(self) -> EntityProgress:
        before = await self.progress()
        removes = before.stage is Stage.COPY and not self.ranges.exact
        if before.stage is not Stage.COMPLETE:
            async with self.target.begin() as connection:
                await self.state.enter_stage(connection, before, Stage.REMOVE if removes else Stage.COMPLETE)
        return await self.progress()

    async def _copy_all(self) -> None:
        """Copy chunk after chunk, several at a time, until none is left."""
        workers: set[asyncio.Task[bool]] = set()
        finished = False
        try:
            while workers or not finished:
                most = self.throttle.control.limits.workers
                while not finished and len(workers) < most:
                    workers.add(asyncio.create_task(self._work()))
                done, workers = await asyncio.wait(workers, return_when=asyncio.FIRST_COMPLETED)
                ends = await asyncio.gather(*done, return_exceptions=True)  # all are looked at, whoever fails
                for end in ends:
                    if isinstance(end, BaseException):
                        raise end
                finished = finished or any(ends)
        finally:
            for task in workers:
                task.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self) -> bool:
        """Copy one chunk; True when there is none any more."""
        await self.throttle.ready()
        found = await self._patiently(self._take)
        if found is None:
            if await self._patiently(self._is_copied):
                return True
            await asyncio.sleep(_OTHERS_WORK_SECONDS)
            return False
        try:
            await self._patiently(self._process, found)
        finally:
            self._in_hand.discard(found.id)
        return False

    async def _is_copied(self) -> bool:
        progress = await self.progress()
        async with self.target.connect() as connection:
            left = await self.state.chunks(connection, self.name)
        return progress.stage is not Stage.COPY or (progress.exhausted and not left)

    async def _take(self) -> Chunk | None:
        """A chunk that was left behind, or a new one; None if there are but those that others copy."""
        async with self._handing_out:
            if (left := await self._left_behind()) is not None:
                self._in_hand.add(left.id)
                return left
            while (progress := await self.progress()).stage is Stage.COPY and not progress.exhausted:
                upper = await self._upper(progress)
                async with self.target.begin() as connection:
                    new = await self.state.hand_out(
                        connection, progress, upper=upper, whole=not self.ranges.exact
                    )
                if new is not None:
                    self._in_hand.add(new.id)
                    await self.hook("backfill_after_hand_out")
                    return new
            return None

    async def _left_behind(self) -> Chunk | None:
        async with self.target.begin() as connection:
            for chunk in await self.state.chunks(connection, self.name):
                if chunk.id not in self._in_hand and await self.state.is_free(connection, chunk):
                    return chunk
        return None

    async def _upper(self, progress: EntityProgress) -> str | None:
        rows = progress.chunk_rows
        if (most := self.throttle.chunk_limit(self.chunk_seconds)) is not None:
            rows = min(rows, most)
        if self.ranges.by_keys:
            rows = min(rows, KEY_CHUNK_ROWS)
        lower = [] if progress.frontier is None else [progress.frontier]
        statement = self.ranges.bound(lower=bool(lower))
        async with self.source.connect() as connection:
            found = (await connection.exec_driver_sql(statement, (rows, *lower))).first()
        return None if found is None else str(found.k)

    async def _process(self, chunk: Chunk) -> None:
        """Copy a chunk; one that cannot be copied as it is gets split until it is small, and is then carried by key."""
        started = time.monotonic()
        progress = await self.progress()
        if self.ranges.by_keys:
            await self._key_by_key(chunk, progress)
            return
        await self.copier.await_carries()
        try:
            copied = await self.copier.copy(
                self.ranges, chunk, epoch=self.epoch, chunk_rows=progress.chunk_rows
            )
        except Exception as error:
            if not is_database_error(error) or not _asks_for_less(error):
                raise
            await self._refused(chunk, progress, error)
            return
        if copied is not None:
            self.throttle.spend(copied.rows)
            await self._adapt(progress, copied.rows, time.monotonic() - started)

    async def _refused(self, chunk: Chunk, progress: EntityProgress, error: BaseException) -> None:
        """Split a chunk, or carry its keys one by one if it is small already."""
        middle = await self._middle(chunk)
        if middle is None:
            await self._key_by_key(chunk, progress)
            return
        log.info("chunk_split", service=self.service, entity=self.name, reason=describe(error))
        async with self.target.begin() as connection:
            await self.state.split(connection, chunk, middle)

    async def _middle(self, chunk: Chunk) -> str | None:
        """The key in the middle of a chunk, unless that is small."""
        keys, parameters = self.ranges.source_keys(chunk.keys)
        few = f"SELECT count(*) FROM (SELECT 1 FROM ({keys}) AS k LIMIT {KEY_CHUNK_ROWS + 1}) AS k"
        async with self.source.connect() as connection:
            rows = (await connection.exec_driver_sql(few, tuple(parameters))).scalar_one()
            if rows <= KEY_CHUNK_ROWS:
                return None
            statement, parameters = self.ranges.middle(chunk.keys)
            return str((await connection.exec_driver_sql(statement, tuple(parameters))).scalar_one())

    async def _key_by_key(self, chunk: Chunk, progress: EntityProgress) -> None:
        """Carry a chunk's keys as the relay does: good rows go, bad ones become failures, each with its reason."""
        done = await self.keys.carry_range(self.ranges, chunk.keys, epoch=self.epoch)
        async with self.target.begin() as connection:
            if await self.state.hold(connection, chunk):
                await self.state.finish(
                    connection,
                    chunk,
                    rows=done.rows,
                    removed=done.removed,
                    failed=done.failed,
                    waiting=done.waiting,
                    chunk_rows=progress.chunk_rows,
                )
        self.throttle.spend(done.rows)

    async def _adapt(self, progress: EntityProgress, rows: int, seconds: float) -> None:
        """Have the next chunks take about `chunk_seconds`. One that was cut short says nothing."""
        if rows < progress.chunk_rows // 2:
            return
        factor = min(_GROWTH_MOST, max(_SHRINK_MOST, self.chunk_seconds / max(seconds, 1e-3)))
        chunk_rows = max(self.least_chunk_rows, min(MOST_CHUNK_ROWS, int(rows * factor)))
        async with self.target.begin() as connection:
            await self.state.resize(connection, progress, chunk_rows=chunk_rows)

    async def _remove_all(self) -> None:
        """Look through the target's keys, table by table, for those that the source has no longer."""
        while True:
            await self.throttle.ready()
            progress = await self._patiently(self.progress)
            if progress.stage is not Stage.REMOVE:
                return
            table, after = _place(progress.frontier)
            if table == len(self.ranges.tables):
                return
            keys = await self._patiently(self._removal_page, table, after)
            gone = await self._patiently(self._absent, keys) if keys else []
            done = await self._patiently(self._carry_gone, gone) if gone else 0
            frontier = json.dumps([table, keys[-1]] if keys else [table + 1, None])
            await self._patiently(self._removed, progress, frontier, done)

    async def _removal_page(self, table: int, after: str | None) -> list[str]:
        lower = [] if after is None else [after]
        statement = self.ranges.target_page(self.ranges.tables[table], lower=bool(lower))
        async with self.target.connect() as connection:
            rows = await connection.exec_driver_sql(statement, (REMOVAL_PAGE, *lower))
            return [row.k for row in rows]

    async def _absent(self, keys: list[str]) -> list[str]:
        async with self.source.connect() as connection:
            rows = await connection.exec_driver_sql(self.ranges.absent_on_source(), (keys,))
            return [row.k for row in rows]

    async def _carry_gone(self, keys: list[str]) -> int:
        done = await self.keys.carry(self.ranges.entity, keys, epoch=self.epoch)
        return len(keys) - done.failed - done.waiting

    async def _removed(self, progress: EntityProgress, frontier: str, count: int) -> None:
        async with self.target.begin() as connection:
            await self.state.removal(connection, progress, frontier=frontier, removed=count)


def _place(frontier: str | None) -> tuple[int, str | None]:
    """Which table the search for keys to remove is at, and behind which key."""
    if frontier is None:
        return 0, None
    table, key = json.loads(frontier)
    return int(table), key


async def patiently(
    throttle: Throttle,
    side: Side,
    work: Callable[P, Awaitable[T]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Do `work`, again and again while a database does not answer; what holds is said meanwhile.

    Raises `FencedError` as it is, and `SideError` for what no waiting mends.
    """
    while True:
        try:
            return await work(*args, **kwargs)
        except FencedError:
            raise
        except Exception as error:
            cause = error.cause if isinstance(error, TargetUnavailableError) else error
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError from error  # a rollback that failed has taken its place
            if not is_database_error(cause) and not isinstance(cause, OutdatedReadError):
                raise
            if not may_pass(cause):
                raise to_side_error(cause, side) from error
            throttle.trouble(cause)
        await asyncio.sleep(TROUBLE_SECONDS)


def _asks_for_less(error: BaseException) -> bool:
    """Whether a smaller chunk may do better: the target refuses a row, or the statement took too long."""
    return classify(error) is not Trouble.UNAVAILABLE or sqlstate_of(error) == _TOO_LONG or is_timeout(error)
