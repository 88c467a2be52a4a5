"""After a side was restored, or a standby has taken its place: a new epoch, and what was known of the other side forgotten.

Positions of a server that went back in time mean nothing any more, nor does what was carried to it since. So the epoch is
raised, which makes every guard there old; the secondary side is closed, whatever the backup says; and backfill and
validation start anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text

from backend.shared.domain.errors import ConflictError, InstallationError
from backend.shared.domain.phases import Phase, Side
from backend.shared.journal.install import (
    capture_token,
    create_triggers,
    installed,
    missing_triggers,
    wanted_triggers,
)
from backend.shared.journal.marks import MarkRepository, identity_of
from backend.shared.migration.cutover import LOCK_MS
from backend.shared.runtime import ServiceRuntime

_LOCK_FACTOR = 50


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What was made of it: the epoch that holds now, and the side to be copied to again, if any."""

    side: Side
    epoch: int
    copy_again: Side | None


async def take_up_restored(runtime: ServiceRuntime, side: Side, *, by: str, reason: str) -> Restored:
    """Go on with a `side` that was restored. May be repeated, also after a crash in the middle.

    The authoritative side stays the one that the phase row names. Raises `ConflictError` while the phase is being changed.
    """
    await runtime.following.refresh()
    control = runtime.control
    if control.intent is not None:
        raise ConflictError(
            "the phase is being changed: finish that first (`tandem advance` or `tandem rollback`)"
        )
    marks = MarkRepository(runtime.names)
    epochs = [control.epoch]
    for each in Side:
        async with runtime.engines[each].connect() as connection:
            if await installed(connection, runtime.names) is None:
                raise InstallationError(
                    f"the journal is not installed on the {each.value} side: run `tandem install {runtime.service}`, "
                    "then this again"
                )
            epochs.append((await marks.read(connection)).epoch)
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
    names, marks = runtime.names, MarkRepository(runtime.names)
    wanted = wanted_triggers(names, runtime.catalog, side=side, phase=phase, capture=runtime.capture)
    async with runtime.engines[side].begin() as connection:
        await marks.lock_alone(connection, timeout_ms=LOCK_MS * _LOCK_FACTOR)
        missing = await missing_triggers(connection, names, wanted)
        await create_triggers(connection, [trigger for trigger in wanted if trigger.name in missing])
        await marks.overrule(connection, is_open=is_open, epoch=epoch, identity=await identity_of(connection))
        if is_open and phase.policy.captures:
            await marks.note_capture(connection, token=await capture_token(connection, names, wanted))
        if not is_open:
            # Rows from a time when it was authoritative: they were carried, before it was closed.
            await connection.execute(text(f"DELETE FROM {names.journal}"))


async def _void_copy(runtime: ServiceRuntime, side: Side) -> None:
    """Forget how far a backfill to `side` had come, and say that there has to be one."""
    async with runtime.engines[side].begin() as connection:
        await connection.execute(text(f"DELETE FROM {runtime.names.backfill_chunk}"))
        for entity in runtime.catalog.ordered:
            await connection.execute(
                text(
                    f"INSERT INTO {runtime.names.backfill} "
                    "(entity, direction, epoch, capture, stage, chunk_rows, rows_expected) "
                    "VALUES (:entity, :direction, 0, '', 'copy', 1000, 0) "
                    "ON CONFLICT (entity) DO UPDATE SET capture = ''"
                ),
                {"entity": entity.name, "direction": "to_new" if side is Side.NEW else "to_legacy"},
            )
