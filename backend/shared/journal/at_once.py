"""The synchronous second write (R4), with both sides written at once; the sides may be of any kind.

The unit runs on the authoritative side and, at the same time, in a transaction on the secondary that has entered as a carry.
Two databases share no lock, so two such writes could wait for each other, each with the row that the other one needs. So
what the second side holds *before* the first has its own locks is let go of after `HOLD_SECONDS`: then the second side is
written after the first, as R4 has it, and whoever comes second waits behind whoever came first on both.

What the unit makes of the second side is only a guess, since that side may be behind. So after the first commit the
state is read on the first side, with its position, and where the second holds anything else it is made that; the guards move,
the second commits, the journal rows end. From the first commit on the journal row is there, and whatever happens the relay
finishes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from backend.shared.breaker import CircuitBreaker
from backend.shared.domain.errors import FencedError, SideError, TandemError, side_error
from backend.shared.domain.isolation import Isolation
from backend.shared.domain.mapping import EntityCatalog
from backend.shared.domain.outages import Outage
from backend.shared.domain.phases import Direction
from backend.shared.domain.results import SecondWrite
from backend.shared.journal.carrier import READS_AT_MOST, Hook, no_hook
from backend.shared.journal.sync_telling import tell_synced
from backend.shared.journal.synchronous import SecondaryRefusedError, SynchronousOutcome, outcome_of
from backend.shared.stores.errors import is_database_error, is_unreachable, to_side_error
from backend.shared.stores.protocol import OutdatedReadError, Position, StateBatch, UnfitKeysError
from backend.shared.stores.side import Connection, SideStore
from backend.shared.stores.state_images import differing
from backend.shared.units import OwnJournal, Runner, Transaction, Unit

T = TypeVar("T")
Keys = Mapping[str, Sequence[str]]
"""Canonical keys by entity."""

HOLD_SECONDS = 0.1
"""So long the second side may hold what it has written before the first side has."""
_LET_GO_SECONDS = 1.0

log = structlog.get_logger(__name__)


class _NotAtOnceError(Exception):
    """The second side has to be written after the first. Nothing is held there any more."""


@dataclass(kw_only=True)
class _Second:
    """The open transaction on the secondary side, which holds the guards of `keys`."""

    connection: Connection
    stack: AsyncExitStack
    keys: dict[str, set[str]]


class AtOnceWriter:
    """Runs units with both writes in the call, at the same time.

    `timeout_seconds` bounds the unit on either side, and what is left of the second write after the first commit; it is asked
    for each time. `hook` is for tests.
    """

    def __init__(
        self,
        *,
        runner: Runner,
        second_runner: Runner,
        source: SideStore,
        target: SideStore,
        target_breaker: CircuitBreaker,
        catalog: EntityCatalog,
        direction: Direction,
        timeout_seconds: Callable[[], float],
        hold_seconds: float = HOLD_SECONDS,
        hook: Hook = no_hook,
    ) -> None:
        self._runner = runner
        self._second_runner = second_runner
        self._source = source
        self._target = target
        self._breaker = target_breaker
        self._catalog = catalog
        self._direction = direction
        self._timeout_seconds = timeout_seconds
        self._hold_seconds = hold_seconds
        self._hook = hook
        self._letting_go: set[asyncio.Task[None]] = set()

    async def run(
        self,
        unit: Unit[T],
        *,
        request_id: str,
        isolation: Isolation = Isolation.READ_COMMITTED,
        epoch: int,
        fails_call: bool,
        journals_touched: bool = False,
        keys: Keys | None = None,
        on_transaction: Callable[[Transaction], None] = lambda _: None,
    ) -> SynchronousOutcome[T]:
        """Run `unit`. Raises `SecondaryRefusedError` with nothing kept when the second side says no and `fails_call`.

        `keys`: what the unit will touch, if the caller knows; then the guards are held from the beginning.
        """
        started = time.perf_counter()
        first_ran = asyncio.Event()
        ahead = asyncio.ensure_future(
            self._ahead(unit, first_ran, request_id=request_id, epoch=epoch, keys=keys or {})
        )
        second: _Second | None = None
        try:
            async with self._runner.transaction(
                request_id=request_id, journals_touched=journals_touched, isolation=isolation
            ) as first:
                on_transaction(first)
                value, journal = await self._first(first, unit)
                first_ran.set()
                tried = time.perf_counter()
                if not journal.keys:
                    await first.commit()
                    return outcome_of(value, SecondWrite.NONE, None, time.perf_counter() - started, 0.0)
                second, error = await self._second(
                    ahead, first, journal.keys, epoch=epoch, fails_call=fails_call
                )
                if error is not None and fails_call:
                    raise SecondaryRefusedError(error)
                await self._hook("before_first_commit")
                await first.commit()
                committed = time.perf_counter()
                await self._hook("after_first_commit")
                if second is not None:
                    error = await self._finish(first, second, journal, epoch=epoch)
        finally:
            await self._give_up(ahead, second)
        done = SecondWrite.APPLIED if error is None else SecondWrite.PENDING
        return outcome_of(value, done, error, committed - started, time.perf_counter() - tried)

    async def _first(self, first: Transaction, unit: Unit[T]) -> tuple[T, OwnJournal]:
        async with asyncio.timeout(self._timeout_seconds()):
            await first.watch_journal()
            value = await unit(first.work)
            journal = await first.own_journal()
        log.debug("side_written", side=self._direction.source.value)
        return value, journal

    # Ahead of the first commit ----------------------------------------------------------------------------------------

    async def _ahead(
        self, unit: Unit[Any], first_ran: asyncio.Event, *, request_id: str, epoch: int, keys: Keys
    ) -> _Second:
        """Run the unit on the secondary side while it runs on the first; `_NotAtOnceError` where that cannot be waited for."""
        second = await self._enter(epoch=epoch)
        try:
            async with asyncio.timeout(self._timeout_seconds()):
                await self._hold(second, keys)
                async with self._second_runner.carrying(second.connection, request_id=request_id) as work:
                    await unit(work)
                    await self._hold(second, work.touched)
            await self._hook("second_ran_ahead")
            await self._await_first(first_ran)
        except BaseException:
            await self._let_go(second)
            raise
        log.debug("side_written", side=self._direction.target.value)
        return second

    async def _await_first(self, first_ran: asyncio.Event) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._hold_seconds):
                await first_ran.wait()
        if not first_ran.is_set():
            raise _NotAtOnceError

    async def _enter(self, *, epoch: int) -> _Second:
        self._breaker.check()
        stack = AsyncExitStack()
        async with asyncio.timeout(self._timeout_seconds()):
            connection = await stack.enter_async_context(self._target.connect())
            second = _Second(connection=connection, stack=stack, keys={})
            try:
                await self._target.state.enter(connection, self._direction, epoch=epoch)
            except BaseException:
                await self._let_go(second)
                raise
        return second

    async def _hold(self, second: _Second, keys: Keys | Mapping[str, set[str]]) -> None:
        """Hold the guards of those of `keys` that are not held yet, in the order of a carry."""
        for entity in sorted(keys, key=self._catalog.rank):
            held = second.keys.setdefault(entity, set())
            if missing := sorted(set(keys[entity]) - held):
                await self._target.state.lock_guards(second.connection, self._catalog[entity], keys=missing)
                held |= set(missing)

    async def _second(
        self, ahead: asyncio.Task[_Second], first: Transaction, keys: Keys, *, epoch: int, fails_call: bool
    ) -> tuple[_Second | None, SideError | None]:
        """The second side, its guards held and the first side's state tried if need be; or why it will not do.

        Raises `FencedError` where the phase is another by now: then the whole has to be done anew.
        """
        second: _Second | None = None
        try:
            async with asyncio.timeout(self._timeout_seconds()):
                second = await self._ahead_or_after(ahead, epoch=epoch)
                await self._hold(second, keys)
                if fails_call or not ahead_did(ahead):
                    await self._try(first, second, keys)
            await self._hook("after_trial")
        except BaseException as error:
            await self._let_go(second)
            if isinstance(error, FencedError) or not isinstance(error, Exception):
                raise
            return None, self._told(error, keys)
        return second, None

    async def _ahead_or_after(self, ahead: asyncio.Task[_Second], *, epoch: int) -> _Second:
        try:
            return await asyncio.shield(ahead)
        except (FencedError, asyncio.CancelledError):
            raise
        except Exception as error:
            if is_database_error(error) and is_unreachable(error):
                raise
            if isinstance(error, SideError) and error.unavailable:
                raise
            # The unit may have failed there because that side is behind, or has met somebody's lock.
            log.debug("second_not_at_once", side=self._direction.target.value, error=type(error).__name__)
        return await self._enter(epoch=epoch)

    async def _try(self, first: Transaction, second: _Second, keys: Keys) -> None:
        """Make the second side what the first is to be, before either is committed."""
        states = [
            await self._source.state.read_uncommitted(
                first.connection, self._catalog[entity], self._direction, keys=keys[entity]
            )
            for entity in sorted(keys, key=self._catalog.rank)
        ]
        await self._make(second, states)

    async def _make(self, second: _Second, states: Sequence[StateBatch]) -> None:
        """Write `states`, parents first, where the second side holds anything else."""
        state = self._target.state
        others = {
            wanted.entity.name: differing(
                wanted,
                await state.read_stored(second.connection, wanted.entity, self._direction, keys=wanted.keys),
            )
            for wanted in states
        }
        if any(others.values()):
            await state.write(second.connection, states, others)

    def _told(self, error: Exception, keys: Keys) -> SideError:
        """`error` as an error of the secondary side; whatever is none of a database's is raised."""
        if isinstance(error, SideError):
            return error
        entity = next(iter(keys))
        key = keys[entity][0] if len(keys) == 1 and len(keys[entity]) == 1 else None
        if isinstance(error, UnfitKeysError):
            return side_error(self._direction.target, str(error), entity=entity, key=key)
        if not is_database_error(error):
            raise error
        if is_unreachable(error):
            self._breaker.failed()
        return to_side_error(error, self._direction.target, entity=entity, key=key)

    # After it ---------------------------------------------------------------------------------------------------------

    async def _finish(
        self, first: Transaction, second: _Second, journal: OwnJournal, *, epoch: int
    ) -> SideError | None:
        """Make the second side what the first is now, commit, end the journal rows. The first has committed already."""
        keys = {
            entity: sorted({*journal.keys.get(entity, ()), *found}) for entity, found in second.keys.items()
        }
        try:
            async with asyncio.timeout(self._timeout_seconds()):
                final = await self._final_states(first.connection, second, keys, epoch=epoch)
                await self._hook("before_second_commit")
                await second.connection.commit()
                await self._hook("after_second_commit")
                self._breaker.succeeded()
                await self._end(journal, final, epoch=epoch)
        except Exception as error:
            if not is_database_error(error) and not isinstance(error, TandemError | UnfitKeysError):
                raise
            told = self._told(error, keys)
            log.warning("second_write_left_to_relay", side=self._direction.target.value, error=str(told))
            return told
        return None

    async def _end(self, journal: OwnJournal, final: Sequence[StateBatch], *, epoch: int) -> None:
        """In a transaction of its own, since that of the unit may commit each statement by itself by now."""
        carried: dict[tuple[str, str], Position | None] = {
            (state.entity.name, key): state.position for state in final for key in state.keys
        }
        async with self._source.begin() as connection:
            await self._source.journal.end(connection, journal.ids)
            await self._source.failures.close(connection, carried, epoch=epoch, by="synchronous write")
            await tell_synced(self._source, connection, carried)

    async def _final_states(
        self, first: Connection, second: _Second, keys: Keys, *, epoch: int
    ) -> list[StateBatch]:
        """What the first side holds, put into the second, with the guards moved to where it was read.

        A backfill that copies other keys of an entity may raise its floor above that: then it is read again.
        """
        for left in range(READS_AT_MOST, 0, -1):
            final = [
                await self._source.state.read_state(
                    first, self._catalog[entity], self._direction, keys=keys[entity]
                )
                for entity in sorted(keys, key=self._catalog.rank)
            ]
            await self._source.state.make_durable(first)
            await self._hook("after_final_read")
            try:
                for state in final:
                    await self._move_guards(second, state, epoch=epoch)
            except OutdatedReadError:
                if left == 1:
                    raise
                continue
            break
        await self._make(second, final)
        return final

    async def _move_guards(self, second: _Second, state: StateBatch, *, epoch: int) -> None:
        """Move the guards that are held. Only one that is parked stays: nothing else is newer than what was read just now."""
        moved = await self._target.state.move_guards(second.connection, state, epoch=epoch)
        if moved != frozenset(state.keys):
            raise side_error(
                self._direction.target,
                "was written there alone, and waits to be settled",
                entity=state.entity.name,
                unavailable=True,
                outage=Outage.CONTENDED,
            )

    async def finish(self) -> None:
        """Wait for what a server had not let go of yet."""
        if self._letting_go:
            await asyncio.wait(self._letting_go, timeout=30)

    # Whatever happens -------------------------------------------------------------------------------------------------

    async def _give_up(self, ahead: asyncio.Task[_Second], second: _Second | None) -> None:
        """Let go of the second side, also of what is still under way there."""
        if not ahead.done():
            ahead.cancel()
            await asyncio.wait([ahead], timeout=_LET_GO_SECONDS)
        if ahead.done() and not ahead.cancelled() and ahead.exception() is None:
            await self._let_go(ahead.result())
        await self._let_go(second)

    async def _let_go(self, second: _Second | None) -> None:
        """Roll back what was not committed. A server that does not answer is not waited for."""
        if second is None:
            return
        task = asyncio.ensure_future(_closed(second))
        self._letting_go.add(task)
        task.add_done_callback(self._letting_go.discard)
        await asyncio.wait([task], timeout=_LET_GO_SECONDS)


def ahead_did(ahead: asyncio.Task[Any]) -> bool:
    """Whether the unit has run on the second side."""
    return ahead.done() and not ahead.cancelled() and ahead.exception() is None


async def _closed(second: _Second) -> None:
    try:
        await second.stack.aclose()
    except Exception as error:  # noqa: BLE001 - whatever it is, nothing of it was to be kept
        log.debug("second_side_let_go", error=type(error).__name__)


__all__ = ["HOLD_SECONDS", "AtOnceWriter"]
