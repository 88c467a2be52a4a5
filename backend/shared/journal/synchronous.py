"""The synchronous second write (R4).

Two databases share no transaction, so the order is: write the first side, try the rows in an open transaction on the
second with its guards held, commit the first, read what is there now with its position, write that to the open second
transaction, commit it, end the journal rows. From the first commit on the journal row is there, and whatever happens
the relay finishes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from backend.shared.breaker import CircuitBreaker
from backend.shared.domain.errors import FencedError, SideError
from backend.shared.domain.isolation import Isolation
from backend.shared.domain.mapping import EntityCatalog
from backend.shared.domain.phases import Direction
from backend.shared.domain.results import SecondWrite
from backend.shared.journal.carrier import READS_AT_MOST, Hook, no_hook
from backend.shared.stores.errors import (
    classify,
    constraint_of,
    is_connection_loss,
    is_database_error,
    is_repeatable,
    to_side_error,
)
from backend.shared.stores.postgres import clashes
from backend.shared.stores.postgres.side import PostgresSide
from backend.shared.stores.protocol import OutdatedReadError, Position, StateBatch, Trouble
from backend.shared.stores.side import Connection
from backend.shared.unit_repeats import RunAgainError
from backend.shared.unit_runner import UnitRunner, UnitTransaction
from backend.shared.units import Transaction, Unit

T = TypeVar("T")
log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class SynchronousOutcome(Generic[T]):
    """What a unit answered, and what became of its second write. Times in seconds."""

    value: T
    second_write: SecondWrite
    error: SideError | None
    first_seconds: float
    second_seconds: float


@dataclass(kw_only=True)
class _Trial:
    """The open transaction on the secondary side."""

    connection: Connection
    batches: Sequence[StateBatch]


class SecondaryRefusedError(Exception):
    """The secondary side said no and its errors fail the call: nothing has been kept."""

    def __init__(self, error: SideError) -> None:
        super().__init__(str(error))
        self.error = error


class SynchronousWriter:
    """Runs units with both writes in the call."""

    def __init__(
        self,
        *,
        runner: UnitRunner,
        source: PostgresSide,
        target: PostgresSide,
        target_breaker: CircuitBreaker,
        catalog: EntityCatalog,
        direction: Direction,
        hook: Hook = no_hook,
    ) -> None:
        self._runner = runner
        self._target = target
        self._breaker = target_breaker
        self._source = source.state
        self._store = target.state
        self._catalog = catalog
        self._journal = source.journal
        self._failures = source.failures
        self._direction = direction
        self._hook = hook

    async def run(
        self,
        unit: Unit[T],
        *,
        request_id: str,
        isolation: Isolation = Isolation.READ_COMMITTED,
        epoch: int,
        fails_call: bool,
        journals_touched: bool = False,
        on_transaction: Callable[[Transaction], None] = lambda _: None,
    ) -> SynchronousOutcome[T]:
        """Run `unit`. Raises `SecondaryRefusedError` with nothing kept when the second side says no and `fails_call`."""
        started = time.perf_counter()
        async with self._runner.transaction(
            request_id=request_id, journals_touched=journals_touched, isolation=isolation
        ) as first:
            on_transaction(first)
            start_id = await self._journal.last_id(first.connection)
            value = await unit(first.work)
            await first.flush()
            ids, keys = await self._journal.own_rows(first.connection, after_id=start_id)
            if not keys:
                await first.commit()
                seconds = time.perf_counter() - started
                return outcome_of(value, SecondWrite.NONE, None, seconds, 0.0)
            tried = time.perf_counter()
            trial, error = await self._try(first, keys, epoch=epoch)
            try:
                if error is not None and fails_call:
                    raise SecondaryRefusedError(error)
                await self._hook("before_first_commit")
                await first.commit()
                committed = time.perf_counter()
                await self._hook("after_first_commit")
                if trial is not None:
                    error = await self._finish(first, trial, keys, ids, epoch=epoch)
            finally:
                if trial is not None:
                    await trial.connection.close()
        done = SecondWrite.APPLIED if error is None else SecondWrite.PENDING
        return outcome_of(value, done, error, committed - started, time.perf_counter() - tried)

    async def _try(
        self, first: UnitTransaction, keys: dict[str, list[str]], *, epoch: int
    ) -> tuple[_Trial | None, SideError | None]:
        """Hold the guards of `keys` on the secondary side and write the uncommitted state there, in a transaction."""
        connection: AsyncConnection | None = None
        try:
            self._breaker.check()
            connection = await self._target.engine.connect()
            await connection.begin()
            await self._store.enter(connection, self._direction, epoch=epoch)
            for entity in sorted(keys, key=self._catalog.rank):
                await self._store.lock_guards(connection, self._catalog[entity], keys=keys[entity])
            await self._hook("after_guards_locked")
            batches = await self._uncommitted(first, keys)
            await self._write(connection, batches)
            await self._hook("after_trial")
        except Exception as error:
            if connection is not None:
                await connection.close()
            if not is_database_error(error) and not isinstance(error, SideError):
                raise
            if is_connection_loss(error):
                self._breaker.failed()
            first_entity = next(iter(keys))
            one_key = keys[first_entity][0] if len(keys) == 1 and len(keys[first_entity]) == 1 else None
            return None, to_side_error(error, self._direction.target, entity=first_entity, key=one_key)
        except BaseException:
            if connection is not None:
                await connection.invalidate()
                await connection.close()
            raise
        return _Trial(connection=connection, batches=batches), None

    async def _uncommitted(self, first: UnitTransaction, keys: dict[str, list[str]]) -> list[StateBatch]:
        """The state of `keys` as the first transaction sees it; a projection that fails does not spoil it.

        A serialization failure does, for it is no trouble of the other side: then everything is run again.
        """
        await first.connection.exec_driver_sql("SAVEPOINT tandem_trial")
        try:
            return await self._states(first.connection, keys)
        except Exception as error:
            if is_repeatable(error):
                raise RunAgainError(error) from error
            await first.connection.exec_driver_sql("ROLLBACK TO SAVEPOINT tandem_trial")
            raise

    async def _states(self, connection: Connection, keys: dict[str, list[str]]) -> list[StateBatch]:
        return [
            await self._source.read_state(
                connection, self._catalog[entity], self._direction, keys=keys[entity]
            )
            for entity in sorted(keys, key=self._catalog.rank)
        ]

    async def _write(self, connection: Connection, batches: Sequence[StateBatch]) -> None:
        """Write `batches`; unique values that two of their own keys swap are let go of first."""
        moved = {batch.entity.name: frozenset(batch.keys) for batch in batches}
        await connection.exec_driver_sql("SAVEPOINT tandem_write")
        try:
            await self._store.write(connection, batches, moved)
        except Exception as error:
            if not is_database_error(error) or classify(error) is not Trouble.CLASH:
                raise
            await connection.exec_driver_sql("ROLLBACK TO SAVEPOINT tandem_write")
            if not await self._let_go(connection, batches, error):
                raise
            await self._store.write(connection, batches, moved)

    @staticmethod
    async def _let_go(connection: Connection, batches: Sequence[StateBatch], error: Exception) -> bool:
        _, name = constraint_of(error)
        for batch in batches:
            index = await clashes.find_index(connection, batch, name)
            if index is not None and await clashes.holders(connection, batch, index) <= set(batch.keys):
                await clashes.let_go(connection, batch.entity, index, list(batch.keys))
                return True
        return False

    async def _finish(
        self,
        first: UnitTransaction,
        trial: _Trial,
        keys: dict[str, list[str]],
        ids: list[int],
        *,
        epoch: int,
    ) -> SideError | None:
        """Write what the first side holds now, commit, end the journal rows. The first side has committed already.

        The first connection is free again by then and does the rest: a second one of the same pool, while this is
        held, could wait for itself.
        """
        try:
            batches = await self._final_states(first.connection, trial.connection, keys, epoch=epoch)
            for tried, final in zip(trial.batches, batches, strict=True):
                if not final.same_rows(tried):
                    await self._write(trial.connection, [final])
            await self._hook("before_second_commit")
            await trial.connection.commit()
            await self._hook("after_second_commit")
            await self._journal.end(first.connection, ids)
            carried: dict[tuple[str, str], Position | None] = {
                (final.entity.name, key): final.position for final in batches for key in final.keys
            }
            await self._failures.close(first.connection, carried, epoch=epoch, by="synchronous write")
        except Exception as error:
            if not is_database_error(error) and not isinstance(error, SideError):
                raise
            log.warning("second_write_left_to_relay", side=self._direction.target.value, error=str(error))
            return to_side_error(error, self._direction.target)
        return None

    async def _final_states(
        self, first: Connection, second: Connection, keys: dict[str, list[str]], *, epoch: int
    ) -> list[StateBatch]:
        """What the first side holds, with the guards moved to where it was read.

        A backfill that copies other keys of an entity may raise its floor above that: then it is read again. These keys'
        own ranges cannot be copied meanwhile, since this transaction holds them.
        """
        for _ in range(READS_AT_MOST):
            batches = await self._states(first, keys)
            await self._source.make_durable(first)
            await self._hook("after_final_read")
            try:
                for final in batches:
                    await self._move_guards(second, final, epoch=epoch)
            except OutdatedReadError as error:
                outdated = error
                continue
            return batches
        raise to_side_error(outdated, self._direction.target) from outdated

    async def _move_guards(self, connection: Connection, final: StateBatch, *, epoch: int) -> None:
        """Move the guards that this transaction holds; no other position can be newer than one read after the commit."""
        if await self._store.move_guards(connection, final, epoch=epoch) != frozenset(final.keys):
            raise FencedError("a newer state is there already", side=self._direction.target, unavailable=True)


def outcome_of(
    value: T, second: SecondWrite, error: SideError | None, first_seconds: float, second_seconds: float
) -> SynchronousOutcome[T]:
    """What came of a write to both sides; times in seconds."""
    return SynchronousOutcome(
        value=value,
        second_write=second,
        error=error,
        first_seconds=first_seconds,
        second_seconds=second_seconds,
    )
