"""Carries the current state of some keys from one side to the other, and says what became of each (R2, R3, R5).

A batch goes over in one transaction. If the target refuses it, it is halved until the row that it refuses stands alone:
good rows are never blocked by a bad one. A unique value that another key still holds brings that key into the batch.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from backend.shared.domain.errors import FencedError, TandemError
from backend.shared.domain.mapping import EntityCatalog
from backend.shared.domain.phases import Direction, Side
from backend.shared.journal.stranded_records import PARKED_EPOCH
from backend.shared.stores.errors import (
    classify,
    constraint_of,
    describe,
    is_database_error,
    sqlstate_of,
)
from backend.shared.stores.protocol import (
    Applied,
    OutdatedReadError,
    Position,
    StateBatch,
    Trouble,
    UnfitKeysError,
)
from backend.shared.stores.repeating import repeated
from backend.shared.stores.side import Connection, SideStore

KeysByEntity = Mapping[str, Sequence[str]]
Hook = Callable[[str], Awaitable[None]]
MAX_CLASH_KEYS = 1000
READS_AT_MOST = 50
"""How often keys are read again because a backfill has copied newer state meanwhile."""


async def no_hook(_step: str) -> None:
    """Nothing; tests put a pause or a crash here."""


class Outcome(StrEnum):
    """What became of one key."""

    CARRIED = "carried"
    SKIPPED = "skipped"
    """Something as new or newer was there already."""
    WAITING = "waiting"
    """It cannot go yet, through no fault of its own."""
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True)
class KeyOutcome:
    """What became of one key, with the position that was read, and the reason if it did not go."""

    outcome: Outcome
    position: Position | None = None
    reason: str = ""
    sqlstate: str | None = None


Outcomes = dict[tuple[str, str], KeyOutcome]


class TargetUnavailableError(TandemError):
    """A side could not be asked at all: nothing is known of any key, nothing counts as an attempt."""

    def __init__(self, cause: BaseException, *, side: Side) -> None:
        super().__init__(f"{side.value} side: {describe(cause)}")
        self.cause = cause
        self.side = side


class Carrier:
    """Carries keys in one direction. Safe to run beside others and to repeat: the guard decides."""

    def __init__(
        self,
        *,
        source: SideStore,
        target: SideStore,
        catalog: EntityCatalog,
        direction: Direction,
        hook: Hook = no_hook,
    ) -> None:
        self._source = source
        self._target = target
        self._catalog = catalog
        self._direction = direction
        self._hook = hook

    async def carry(self, keys: KeysByEntity, *, epoch: int) -> Outcomes:
        """Carry `keys`; durable on the target when this returns.

        Raises `TargetUnavailableError` if either side could not be asked and `FencedError` if the target is not closed in
        this epoch; some of the keys may have been carried by then, which does no harm.
        """
        outcomes: Outcomes = {}
        for _ in range(READS_AT_MOST):
            wanted = {
                entity: left
                for entity, found in keys.items()
                if (left := [key for key in found if (entity, key) not in outcomes])
            }
            if not wanted:
                return outcomes
            try:
                await self._attempt(wanted, epoch=epoch, outcomes=outcomes)
            except OutdatedReadError as error:
                outdated = error
        raise TargetUnavailableError(outdated, side=self._direction.target) from outdated

    async def _attempt(
        self,
        keys: dict[str, list[str]],
        *,
        epoch: int,
        outcomes: Outcomes,
        asked_for: frozenset[tuple[str, str]] = frozenset(),
    ) -> None:
        """Carry `keys`, in parts if need be. `asked_for`: parents that were carried for them already."""
        batches: list[StateBatch] = []
        try:
            batches, unfit = await self._read_fit(keys)
            outcomes.update(unfit)
            if not batches:
                return
            outcomes.update(await self._apply(batches, epoch=epoch))
        except FencedError:
            raise
        except Exception as error:
            if not is_database_error(error):
                raise
            trouble = classify(error)
            if trouble is Trouble.UNAVAILABLE:
                side = self._direction.target if batches else self._direction.source
                raise TargetUnavailableError(error, side=side) from error
            if trouble is Trouble.MISSING_PARENT and batches:
                needed = await self._parents(batches, error, asked_for)
                if needed:
                    asked_for |= {(entity, key) for entity, found in needed.items() for key in found}
                    await self._attempt(needed, epoch=epoch, outcomes=outcomes, asked_for=asked_for)
                    await self._attempt(keys, epoch=epoch, outcomes=outcomes, asked_for=asked_for)
                    return
            halves = _halves(keys)
            if not halves:
                outcomes.update(await self._single(keys, batches, error, epoch=epoch))
            for half in halves:
                await self._attempt(half, epoch=epoch, outcomes=outcomes, asked_for=asked_for)

    async def _parents(
        self, batches: Sequence[StateBatch], error: BaseException, asked_for: frozenset[tuple[str, str]]
    ) -> dict[str, list[str]]:
        """Keys of missing parents that have not been carried for this yet."""
        _, name = constraint_of(error)
        async with self._target.connect() as connection:
            found = await self._target.state.missing_parents(connection, batches, name)
        left = {
            entity: [key for key in keys if (entity, key) not in asked_for] for entity, keys in found.items()
        }
        return {entity: keys for entity, keys in left.items() if keys}

    async def _read_fit(self, keys: KeysByEntity) -> tuple[list[StateBatch], Outcomes]:
        """The state of `keys`, but for those that the target's shape cannot say: what became of these."""
        unfit: Outcomes = {}
        batches: list[StateBatch] = []
        for entity, found in keys.items():
            left = list(found)
            try:
                batches += await self._read({entity: left})
            except UnfitKeysError as error:
                unfit |= {
                    (entity, key): _unfit(reason, error.position) for key, reason in error.reasons.items()
                }
                if left := [key for key in left if key not in error.reasons]:
                    batches += await self._read({entity: left})
        return batches, unfit

    async def _read(self, keys: KeysByEntity) -> list[StateBatch]:
        async with self._source.reading() as connection:
            batches = [
                await self._source.state.read_state(
                    connection, self._catalog[entity], self._direction, keys=found
                )
                for entity, found in keys.items()
            ]
            await self._source.state.make_durable(connection)
        await self._hook("after_read")
        return batches

    async def _apply(
        self,
        batches: Sequence[StateBatch],
        *,
        epoch: int,
        before: Callable[[Connection], Awaitable[None]] | None = None,
    ) -> Outcomes:
        async def attempt() -> Outcomes:
            async with self._target.begin() as connection:
                if before:
                    await before(connection)
                found = await self._apply_in(connection, batches, epoch=epoch, reads_again=before is None)
                await self._hook("before_target_commit")
                return found

        outcomes = await repeated(attempt)
        await self._hook("after_target_commit")
        return outcomes

    async def _apply_in(
        self, connection: Connection, batches: Sequence[StateBatch], *, epoch: int, reads_again: bool
    ) -> Outcomes:
        for left in range(READS_AT_MOST, 0, -1):
            try:
                applied = await self._target.state.apply(connection, batches, epoch=epoch)
            except OutdatedReadError:
                # Nothing was written. Read again inside of this transaction: what it holds keeps the next chunk of
                # these keys from getting in between once more.
                if not reads_again or left == 1:
                    raise
                batches = await self._read({batch.entity.name: batch.keys for batch in batches})
            else:
                break
        outcomes: Outcomes = {}
        for batch in batches:
            outcomes |= await self._outcomes(connection, batch, applied[batch.entity.name], epoch=epoch)
        return outcomes

    async def _outcomes(
        self, connection: Connection, batch: StateBatch, applied: Applied, *, epoch: int
    ) -> Outcomes:
        """What became of the keys of a batch. One whose guard is parked was not carried, whatever its guard says."""
        name = batch.entity.name
        carried = KeyOutcome(outcome=Outcome.CARRIED, position=batch.position)
        skipped = KeyOutcome(outcome=Outcome.SKIPPED, position=batch.position)
        found: Outcomes = {(name, key): carried if key in applied.moved else skipped for key in batch.keys}
        if applied.skipped:
            guards = await self._target.state.read_guards(
                connection, batch.entity, keys=sorted(applied.skipped)
            )
            parked = KeyOutcome(
                outcome=Outcome.WAITING,
                position=batch.position,
                reason="was written there alone, and waits to be settled",
            )
            # Of one that was let go of a moment ago the guard may be older than what was read here, and not moved all the same.
            found |= {
                (name, key): parked
                for key, guard in guards.items()
                if guard[0] == PARKED_EPOCH or guard < (epoch, batch.position)
            }
        return found

    async def _single(
        self, keys: dict[str, list[str]], batches: Sequence[StateBatch], error: BaseException, *, epoch: int
    ) -> Outcomes:
        """Decide about one key that was refused alone."""
        ((entity, (key,)),) = keys.items()
        trouble = classify(error)
        if trouble is Trouble.CLASH and batches:
            swapped = await self._swap(batches[0], error, epoch=epoch)
            if swapped is not None:
                return swapped
        waits, reason = False, describe(error)
        if trouble is Trouble.MISSING_PARENT and batches:
            orphaned = await self._not_on_source(batches, error)
            waits = not orphaned
            reason += (
                f"; the {self._direction.source.value} side has none either: {orphaned}" if orphaned else ""
            )
        return {
            (entity, key): KeyOutcome(
                outcome=Outcome.WAITING if waits else Outcome.REFUSED,
                position=batches[0].position if batches else await self._position(),
                reason=reason,
                sqlstate=sqlstate_of(error),
            )
        }

    async def _not_on_source(self, batches: Sequence[StateBatch], error: BaseException) -> str:
        """A parent that the source does not have either, read later than the child; empty if they may be on their way.

        A source that enforces no foreign keys may hold a child without its parent: no waiting mends that (decision 0014).
        """
        for entity, keys in (await self._parents(batches, error, frozenset())).items():
            found, _ = await self._read_fit({entity: keys})
            for batch in found:
                if gone := sorted(set(batch.keys) - batch.present[0]):
                    return f"{entity} {gone[0]}"
        return ""

    async def _position(self) -> Position:
        """Where the source stands now: not before what a read that failed has seen."""
        try:
            async with self._source.reading() as connection:
                return await self._source.state.position(connection)
        except Exception as error:
            if not is_database_error(error):
                raise
            raise TargetUnavailableError(error, side=self._direction.source) from error

    async def _swap(self, batch: StateBatch, error: BaseException, *, epoch: int) -> Outcomes | None:
        """Carry a key together with those that hold its unique values; None if that does not work.

        Either they hold them rightly, or one of them has a row that the target cannot take: that is no fault of any other
        key, and must not stop what has nothing to do with it.
        """
        try:
            return await self._with_holders(batch, error, epoch=epoch)
        except (FencedError, TargetUnavailableError):
            raise
        except Exception as again:
            if not is_database_error(again):
                raise
            if classify(again) is Trouble.UNAVAILABLE:
                raise TargetUnavailableError(again, side=batch.direction.target) from again
            return None

    async def _with_holders(self, batch: StateBatch, error: BaseException, *, epoch: int) -> Outcomes | None:
        _, name = constraint_of(error)
        keys = set(batch.keys)
        while True:
            async with self._target.connect() as connection:
                index = await self._target.state.find_unique(connection, batch, name)
                if index is None:
                    return None
                more = await self._target.state.holders(connection, batch, index) - keys
            if not more:
                break
            keys |= more
            if len(keys) > MAX_CLASH_KEYS:
                return {(batch.entity.name, key): _still_clashing(batch, error) for key in batch.keys}
            (batch,) = await self._read({batch.entity.name: sorted(keys)})
        if len(keys) == 1:
            return None
        return await self._apply_parked(batch, index, epoch=epoch)

    async def _apply_parked(self, batch: StateBatch, index: object, *, epoch: int) -> Outcomes:
        state = self._target.state

        async def let_go(connection: Connection) -> None:
            await state.enter(connection, batch.direction, epoch=epoch)
            await state.lock_guards(connection, batch.entity, keys=batch.keys)
            newer = await self._newer_guards(connection, batch, epoch=epoch)
            await state.let_go(connection, batch.entity, index, sorted(set(batch.keys) - newer))

        return await self._apply([batch], epoch=epoch, before=let_go)

    async def _newer_guards(self, connection: Connection, batch: StateBatch, *, epoch: int) -> set[str]:
        """Keys that this batch will not write, and which must not be parked either."""
        guards = await self._target.state.read_guards(connection, batch.entity, keys=batch.keys)
        return {key for key, guard in guards.items() if guard >= (epoch, batch.position)}


def _unfit(reason: str, position: Position) -> KeyOutcome:
    return KeyOutcome(outcome=Outcome.REFUSED, position=position, reason=reason)


def _still_clashing(batch: StateBatch, error: BaseException) -> KeyOutcome:
    return KeyOutcome(
        outcome=Outcome.WAITING, position=batch.position, reason=describe(error), sqlstate=sqlstate_of(error)
    )


def _halves(keys: dict[str, list[str]]) -> list[dict[str, list[str]]]:
    """Two parts of `keys`, parting entities first; nothing if there is only one key."""
    if len(keys) > 1:
        return [{entity: found} for entity, found in keys.items()]
    ((entity, found),) = keys.items()
    if len(found) < 2:
        return []
    middle = len(found) // 2
    return [{entity: found[:middle]}, {entity: found[middle:]}]


__all__ = ["Carrier", "Hook", "KeyOutcome", "Outcome", "Outcomes", "TargetUnavailableError", "no_hook"]
