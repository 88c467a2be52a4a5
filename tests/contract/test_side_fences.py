"""The fence of every kind of side, its marks, and capture, which is switched behind them: the same cases on each."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy.exc import DBAPIError

from backend.shared.domain.errors import FencedError
from backend.shared.domain.phases import Phase
from backend.shared.stores.side import Connection, LockHeldError
from tests.contract.conftest import Kind, MakeKind
from tests.support.notes import key
from tests.support.side_work import apply, journalled, record, written

# Fence --------------------------------------------------------------------------------------------------------------


@pytest.mark.invariant("I4")
async def test_the_lock_waits_for_who_writes_and_keeps_out_who_comes_after(opened: Kind) -> None:
    side = opened.side
    async with opened.unit() as write:
        await write(1, 1)
        async with side.connect() as connection:
            with pytest.raises(LockHeldError):
                await side.marks.lock_alone(connection, timeout_ms=100)
    assert await opened.stored(1) == 1
    async with side.connect() as connection:
        await side.marks.lock_alone(connection, timeout_ms=1000)
        late = asyncio.create_task(written(opened, 2, 2))
        for _ in range(30):  # time enough for somebody whom nothing keeps out
            assert (await side.journal.remainder(connection)).rows == 1
        assert not late.done()
        async with opened.again().journal.claiming(limit=10):
            pass
        assert (await side.journal.remainder(connection)).rows == 0
        assert await side.marks.close(connection, epoch=2)
        await connection.commit()
    with pytest.raises(FencedError):
        await late
    assert await opened.stored(2) is None


async def test_a_lock_that_was_let_go_of_holds_up_nobody(opened: Kind) -> None:
    side = opened.side
    async with side.connect() as connection:
        await side.marks.lock_alone(connection, timeout_ms=1000)
    await written(opened, 1, 1)
    async with side.connect() as connection:
        await side.marks.lock_alone(connection, timeout_ms=1000)
        async with opened.again().connect() as other:
            with pytest.raises(LockHeldError):
                await side.marks.lock_alone(other, timeout_ms=50)


@pytest.mark.invariant("I4")
async def test_a_holder_that_says_nothing_loses_the_lock_and_its_close_comes_too_late(
    opened: Kind,
) -> None:
    side = opened.side

    async def close(connection: Connection) -> None:
        await side.marks.close(connection, epoch=2)
        await connection.commit()

    async with side.connect() as connection:
        await side.marks.lock_alone(connection, timeout_ms=1000)
        await written(opened, 1, 1)  # waits until the lock is lost
        with pytest.raises((LockHeldError, DBAPIError)):
            await close(connection)
    await written(opened, 1, 2)
    assert await opened.stored(1) == 2
    async with side.connect() as connection:
        mark = await side.marks.read(connection)
    assert (mark.is_open, mark.epoch) == (True, 1)


async def test_who_shares_or_holds_open_keeps_the_lock_from_others(opened: Kind) -> None:
    side = opened.side
    for hold in (side.marks.share, side.marks.hold_open):
        async with side.connect() as connection, opened.again().connect() as other:
            await hold(connection)
            with pytest.raises(LockHeldError):
                await side.marks.lock_alone(other, timeout_ms=50)
    async with side.connect() as connection:
        await side.marks.lock_alone(connection, timeout_ms=1000)


async def test_a_closed_side_cannot_be_held_open_and_takes_no_unit(closed: Kind) -> None:
    side = closed.side
    async with side.connect() as connection:
        await side.marks.share(connection)
    async with side.connect() as connection:
        with pytest.raises(FencedError):
            await side.marks.hold_open(connection)
    with pytest.raises(FencedError):
        await written(closed, 1, 1)


@pytest.mark.invariant("I4")
async def test_marks_never_go_back(opened: Kind) -> None:
    side = opened.side

    async def change(epoch: int, *, close: bool) -> bool:
        async with side.begin() as connection:
            await side.marks.lock_alone(connection, timeout_ms=1000)
            if close:
                return await side.marks.close(connection, epoch=epoch)
            return await side.marks.open(connection, epoch=epoch, capture_token="t")

    assert not await change(1, close=True)
    assert not await change(2, close=False)
    assert await change(3, close=True)
    assert not await change(3, close=False)
    assert not await change(2, close=False)
    async with side.begin() as connection:
        assert not await side.marks.raise_epoch(connection, epoch=3, is_open=False)
        assert not await side.marks.raise_epoch(connection, epoch=4, is_open=True)
        assert await side.marks.raise_epoch(connection, epoch=4, is_open=False)
    assert await apply(side, {1: 1}, at=1, epoch=4) == {key(1)}
    assert await change(5, close=False)
    async with side.begin() as connection:
        assert await side.marks.raise_epoch(connection, epoch=6, is_open=True)
    await written(opened, 1, 2)
    assert not await change(6, close=True)
    async with side.connect() as connection:
        mark = await side.marks.read(connection)
    assert (mark.is_open, mark.epoch, mark.capture_token) == (True, 6, "t")


@pytest.mark.invariant("I4")
async def test_an_epoch_is_used_up_while_somebody_writes(opened: Kind) -> None:
    side = opened.side
    async with opened.unit() as write:
        await write(1, 1)
        async with side.begin() as connection:
            assert await side.marks.raise_epoch(connection, epoch=2, is_open=True)
    async with side.begin() as connection:
        await side.marks.lock_alone(connection, timeout_ms=1000)
        assert not await side.marks.close(connection, epoch=2)


async def test_a_restored_side_is_what_it_is_told_to_be(opened: Kind) -> None:
    side = opened.side
    await journalled(side, 1)
    async with side.connect() as connection:
        await side.marks.lock_alone(connection, timeout_ms=1000)
        await side.restore(connection, is_open=False, epoch=9, phase=Phase.RAMPDOWN)
        await connection.commit()
    async with side.connect() as connection:
        mark = await side.marks.read(connection)
        assert (mark.is_open, mark.epoch) == (False, 9)
        assert mark.identity == await side.identity(connection)
        assert (await side.journal.depth(connection)).rows == 0
        assert await side.epoch_of_mark(connection) == 9
    assert await apply(side, {1: 1}, at=1, epoch=9) == {key(1)}


# Capture ------------------------------------------------------------------------------------------------------------


async def test_capture_is_switched_under_the_number_of_its_change(make_kind: MakeKind) -> None:
    side = (await make_kind(Phase.OFF)).side

    async def switch(phase: Phase, number: int) -> bool:
        async with side.begin() as connection:
            return await side.switch_capture(connection, phase=phase, number=number, timeout_ms=1000)

    async def token() -> str:
        async with side.connect() as connection:
            return await side.capture_token(connection, phase=Phase.DUALWRITE)

    assert await token() == ""
    assert await switch(Phase.DUALWRITE, 5)
    first = await token()
    assert first
    async with side.connect() as connection:
        assert (await side.marks.read(connection)).capture_token == first
    assert await switch(Phase.SHADOW, 6)
    assert await token() == first
    assert not await switch(Phase.OFF, 5)
    assert await switch(Phase.OFF, 7)
    assert await token() == ""
    assert await switch(Phase.DUALWRITE, 8)
    assert await token() not in ("", first)


async def test_what_is_on_the_way_is_told_by_entity_and_key(opened: Kind) -> None:
    side = opened.side

    async def touched(number: int | None, *, most: int = 10, with_failures: bool = False) -> bool:
        asked = key(number) if number is not None else None
        found = await side.on_the_way(entity="note", key=asked, with_failures=with_failures, most=most)
        assert (found.captured, found.epoch) == (True, 1)
        return found.touches(frozenset({"note"}))

    assert not await touched(None)
    await journalled(side, 1, 2)
    assert await touched(1)
    assert await touched(None)
    assert not await touched(3)
    assert await touched(3, most=1)
    await record(side, 3, at=1)
    assert not await touched(3)
    assert await touched(3, with_failures=True)
    async with side.begin() as connection:
        await side.marks.lock_alone(connection, timeout_ms=1000)
        await side.marks.close(connection, epoch=2)
    found = await side.on_the_way(entity="note", key=key(9), with_failures=False, most=10)
    assert found.is_unknown


# Installation --------------------------------------------------------------------------------------------------------


async def test_a_side_is_installed_by_two_at_once_and_stays_what_it_is(opened: Kind) -> None:
    side, other = opened.side, opened.again()
    async with side.begin() as connection:
        await side.marks.raise_epoch(connection, epoch=3, is_open=True)
    await asyncio.gather(
        side.install(phase=Phase.DUALWRITE, epoch=1, foreign_writes="reject"),
        other.install(phase=Phase.DUALWRITE, epoch=1, foreign_writes="reject"),
    )
    await side.check_installation(phase=Phase.DUALWRITE)
    async with side.connect() as connection:
        mark = await side.marks.read(connection)
    assert (mark.epoch, mark.is_open, mark.foreign_writes) == (3, True, "reject")
