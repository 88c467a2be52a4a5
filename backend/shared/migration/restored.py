"""After a side was restored, or a standby has taken its place: a new epoch, and what was known of the other side forgotten.

Positions of a server that went back in time mean nothing any more, nor does what was carried to it since. So the epoch is
raised, which makes every guard there old; the secondary side is closed, whatever the backup says; and backfill and
validation start anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from backend.shared.domain.errors import ConflictError
from backend.shared.domain.phases import Direction, Phase, Side
from backend.shared.migration.cutover import LOCK_MS
from backend.shared.migration.progress import keeper_of, repository_of
from backend.shared.runtime import ServiceRuntime
from backend.shared.stores.side import LockHeldError

_LOCK_FACTOR = 50


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What was made of it: the epoch that holds now, and the side to be copied to again, if any."""

    side: Side
    epoch: int
    copy_again: Side | None


async def take_up_restored(runtime: ServiceRuntime, side: Side, *, by: str, reason: str) -> Restored:
    """Go on with a `side` that was restored. May be repeated, also after a crash in the middle.

    The authoritative side stays the one that the phase row names. Raises `ConflictError` while the phase is being changed, and
    where a transaction holds on to a side for long.
    """
    await runtime.following.refresh()
    control = runtime.control
    if control.intent is not None:
        raise ConflictError(
            "the phase is being changed: finish that first (`tandem advance` or `tandem rollback`)"
        )
    epochs = [control.epoch]
    for store in runtime.stores.values():
        async with store.connect() as connection:
            epochs.append(await store.epoch_of_mark(connection))
    epoch = max(epochs) + 1
    authoritative = control.phase.policy.authoritative
    # The secondary side first: until the other is in the new epoch too, nothing can be carried.
    for each in (authoritative.other, authoritative):
        await _mark(runtime, each, is_open=each is authoritative, epoch=epoch, phase=control.phase)
    copy_again = authoritative.other if control.phase.policy.dual else None
    if copy_again:
        await _void_copy(runtime, copy_again)
    await runtime.controls.raise_epoch(
        control, epoch=epoch, by=by, reason=reason or f"the {side.value} side was restored"
    )
    await runtime.following.refresh()
    await runtime.sides.look()
    return Restored(side=side, epoch=epoch, copy_again=copy_again)


async def _mark(runtime: ServiceRuntime, side: Side, *, is_open: bool, epoch: int, phase: Phase) -> None:
    """Put mark, fence and capture of `side` in order, in one transaction."""
    store = runtime.stores[side]
    try:
        async with store.begin() as connection:
            await store.marks.lock_alone(connection, timeout_ms=LOCK_MS * _LOCK_FACTOR)
            await store.restore(connection, is_open=is_open, epoch=epoch, phase=phase)
    except LockHeldError as error:
        raise ConflictError(
            f"a transaction holds the {side.value} side, which stays as it is: call this again"
        ) from error


async def _void_copy(runtime: ServiceRuntime, side: Side) -> None:
    """Forget how far a backfill to `side` had come, and say that there has to be one."""
    async with keeper_of(runtime, side).begin() as connection:
        await repository_of(runtime, side).demand(
            connection, [entity.name for entity in runtime.catalog.ordered], Direction.towards(side)
        )
