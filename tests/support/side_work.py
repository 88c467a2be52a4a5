"""What the cases of all kinds of sides do to one (backend/shared/stores/side.py)."""

from __future__ import annotations

from datetime import UTC, datetime

from backend.shared.domain.phases import Direction
from backend.shared.journal.records import ClaimedKey
from backend.shared.stores.errors import is_repeatable
from backend.shared.stores.protocol import Position
from backend.shared.stores.side import SideStore
from tests.contract.conftest import Kind, batch
from tests.support.notes import key


async def journalled(side: SideStore, *numbers: int) -> None:
    """Journal some notes by hand."""
    async with side.begin() as connection:
        await side.journal.add(connection, "note", [key(number) for number in numbers])


async def apply(side: SideStore, notes: dict[int, int | None], *, at: int, epoch: int = 1) -> frozenset[str]:
    """Carry notes to a side in a transaction; answers the keys that moved."""
    async with side.begin() as connection:
        applied = await side.state.apply(connection, [batch(notes, at=at)], epoch=epoch)
    return applied["note"].moved


async def written(kind: Kind, number: int, n: int) -> None:
    """Write a note by a unit of its own, again after conflicts."""
    while True:
        try:
            async with kind.unit() as write:
                await write(number, n)
        except Exception as error:
            if not is_repeatable(error):
                raise
        else:
            return


CAPTURED_AT = datetime(2026, 1, 1, tzinfo=UTC)
"""When all notes that fail were written."""


async def record(
    side: SideStore, number: int, *, at: int = 1, epoch: int = 1, reason: str = "does not fit"
) -> bool:
    """Keep a note as FAILED, tried three times, with the state of position `at`; answers whether it was already."""
    refused = ClaimedKey(
        entity="note", key=key(number), captured_at=CAPTURED_AT, attempts=3, waits=0, request_id="r"
    )
    async with side.begin() as connection:
        return await side.failures.record(
            connection,
            refused,
            direction=Direction.TO_NEW,
            epoch=epoch,
            position=Position(major=at, minor=0),
            reason=reason,
            sqlstate=None,
        )
