"""What settling a conflict asks of a side, whatever kind of database it is."""

from __future__ import annotations

import json

import pytest
from bson import Int64, ObjectId

from backend.shared.domain.errors import FencedError
from backend.shared.domain.phases import Direction, Side
from backend.shared.journal.conflict_records import Conflict, FailedKey
from backend.shared.stores.mongo.shapes import as_kept
from backend.shared.stores.side import LockHeldError
from backend.shared.stores.state_images import differing
from tests.contract.conftest import Kind
from tests.support.notes import NOTE, key
from tests.support.side_work import record


async def kept(kind: Kind, *numbers: int) -> list[Conflict]:
    """Conflicts of FAILED notes."""
    side = kind.side
    for number in numbers:
        await record(kind.side, number)
        async with side.begin() as connection:
            (found,) = await side.conflicts.open_failures(connection, after_id=0, limit=10)
            failed = FailedKey(
                failure_id=found.id,
                entity="note",
                key=found.key,
                source_table="notes",
                reason="",
                there={},
                here={},
            )
            await side.conflicts.keep_failed(connection, [failed], side=Side.LEGACY, by="cutover")
    async with side.connect() as connection:
        return await side.conflicts.page(connection)


@pytest.mark.invariant("I4")
async def test_the_authority_is_held_in_one_epoch_only(opened: Kind) -> None:
    side = opened.side
    async with side.connect() as connection:
        epoch = (await side.marks.read(connection)).epoch
    async with side.connect() as connection:
        await side.marks.hold_authority(connection, epoch=epoch)
        async with opened.again().connect() as other:
            with pytest.raises(LockHeldError):
                await opened.again().marks.lock_alone(other, timeout_ms=50)
    for is_open in (False, True):
        async with side.connect() as connection:
            await side.marks.lock_alone(connection, timeout_ms=1000)
            if is_open:
                assert await side.marks.open(connection, epoch=epoch + 2, capture_token="")
            else:
                assert await side.marks.close(connection, epoch=epoch + 1)
            await connection.commit()
        async with side.connect() as connection:
            with pytest.raises(FencedError):
                await side.marks.hold_authority(connection, epoch=epoch)
    async with side.connect() as connection:
        await side.marks.hold_authority(connection, epoch=epoch + 2)


async def test_a_settlement_is_claimed_once_and_only_with_the_commit(opened: Kind) -> None:
    side = opened.side
    (conflict,) = await kept(opened, 1)
    async with side.connect() as connection:
        assert await side.conflicts.claim_settlement(connection, conflict, kept=Side.NEW, by="me")
    for first in (True, False):
        async with side.begin() as connection:
            claimed = await side.conflicts.claim_settlement(connection, conflict, kept=Side.NEW, by="me")
            assert claimed is first
    async with side.connect() as connection:
        assert await side.conflicts.claim_settlement(connection, conflict, kept=Side.LEGACY, by="me")


async def test_what_nobody_holds_is_held(opened: Kind) -> None:
    side = opened.side
    conflicts = await kept(opened, 1, 2, 3)
    numbers = [conflict.id for conflict in conflicts]
    async with side.begin() as connection:
        await side.conflicts.settle(connection, numbers[:1], kept=Side.NEW, by="me", detail="")
    async with side.connect() as other, side.connect() as connection:
        await side.conflicts.hold(other, numbers[1])
        assert await side.conflicts.hold_free(connection, numbers) == {numbers[2]}
        async with side.connect() as third:
            with pytest.raises(LockHeldError):
                await side.conflicts.hold(third, numbers[2])
    async with side.connect() as connection:
        assert await side.conflicts.last_id(connection) == numbers[2]


async def test_a_later_conflict_of_the_same_key_is_known(opened: Kind) -> None:
    side = opened.side
    first, second, third = await kept(opened, 1, 2, 1)
    async with side.connect() as connection:
        assert await side.conflicts.written_since(connection, first)
        assert not await side.conflicts.written_since(connection, second)
        assert not await side.conflicts.written_since(connection, third)


async def test_rows_that_were_kept_say_the_state_again(opened: Kind) -> None:
    side = opened.side
    async with opened.unit() as write:
        await write(1, 10)
    back = Direction.towards(side.side)
    async with side.connect() as connection:
        stored = await side.state.read_stored(connection, NOTE, back, keys=[key(1)])
        tables = (await side.state.stored_rows(connection, NOTE, [key(1)]))[key(1)]
    text = json.dumps({name: json.loads(rows) for name, rows in tables.items()})
    said = side.state.state_of(NOTE, key=key(1), rows=text)
    assert not differing(said, stored)
    assert said.present == stored.present
    assert side.state.state_of(NOTE, key=key(1), rows=None).present == (frozenset(),)


def test_a_document_is_kept_with_its_types() -> None:
    assert json.loads(as_kept({"_id": ObjectId(b"1" * 12), "n": Int64(5)}))["n"] == {"$numberLong": "5"}
