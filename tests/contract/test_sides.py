"""What every kind of side keeps (backend/shared/stores/side.py): the same cases on each."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from backend.shared.domain.errors import FencedError
from backend.shared.domain.phases import Direction, Phase
from backend.shared.journal.records import Claim
from backend.shared.stores.errors import is_repeatable
from backend.shared.stores.protocol import Position
from backend.shared.stores.side import LockHeldError, SideStore
from tests.contract.conftest import Kind, MakeKind
from tests.support.notes import NOTE, digits, key
from tests.support.side_work import apply, journalled, written

WRITES = 60


# Journal ------------------------------------------------------------------------------------------------------------


async def test_a_claim_ends_exactly_the_claimed_rows(opened: Kind) -> None:
    side = opened.side
    await journalled(side, *range(150))
    async with side.journal.claiming(limit=120) as (_, claim):
        assert claim.row_count == 120
        await journalled(side, 7, 200)
    async with side.connect() as connection:
        left = await side.journal.open_keys(connection, "note", [key(number) for number in range(201)])
    everything = {key(number) for number in (*range(150), 200)}
    assert left == everything - {found for _, found in claim.keys} | {key(7)}


async def test_the_oldest_rows_are_claimed_first_and_those_of_a_key_are_folded(opened: Kind) -> None:
    side = opened.side
    for number in (3, 1, 3, 2):
        await journalled(side, number)
    async with side.journal.claiming(limit=3) as (_, claim):
        assert claim.row_count == 3
        assert set(claim.keys) == {("note", key(3)), ("note", key(1))}


async def test_two_claims_at_once_have_nothing_in_common(opened: Kind) -> None:
    side, other = opened.side, opened.again()
    await journalled(side, *range(20))
    both = asyncio.Barrier(2)

    async def claim(by: SideStore) -> Claim:
        async with by.journal.claiming(limit=10) as (_, claim):
            await both.wait()
        return claim

    one, two = await asyncio.gather(claim(side), claim(other))
    assert (one.row_count, two.row_count) == (10, 10)
    assert not set(one.keys) & set(two.keys)


async def test_claimed_rows_are_still_seen_by_everybody(opened: Kind) -> None:
    side, other = opened.side, opened.again()
    await journalled(side, 1, 2)
    async with side.journal.claiming(limit=10), other.connect() as connection:
        assert (await other.journal.depth(connection)).rows == 2
        assert (await other.journal.remainder(connection)).rows == 2
        assert await other.journal.open_keys(connection, "note", [key(1), key(5)]) == {key(1)}
    async with side.connect() as connection:
        assert (await side.journal.depth(connection)).rows == 0


async def test_a_claim_whose_body_raises_is_free_at_once_and_keeps_nothing(opened: Kind) -> None:
    side = opened.side
    await journalled(side, 1, 2)

    async def fail() -> None:
        async with side.journal.claiming(limit=10) as (connection, _):
            await side.journal.add(connection, "note", [key(9)])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with side.journal.claiming(limit=10) as (_, claim):
        assert set(claim.keys) == {("note", key(1)), ("note", key(2))}


async def test_a_claim_whose_holder_was_killed_is_free_again(opened: Kind) -> None:
    await journalled(opened.side, 1, 2)
    async with (
        opened.dying_claim(limit=10),
        opened.side.journal.claiming(limit=10) as (_, claim),
    ):
        assert claim.row_count == 2


async def test_a_key_that_waits_keeps_its_age_and_is_not_due(opened: Kind) -> None:
    side = opened.side
    await journalled(side, 1)
    async with side.journal.claiming(limit=10) as (connection, claim):
        tried = replace(claim.keys["note", key(1)], waits=4, attempts=2)
        await side.journal.requeue(connection, tried, delay_seconds=3600, error="it waits")
    async with side.journal.claiming(limit=10) as (_, nothing):
        assert not nothing.keys
    async with side.connect() as connection:
        left = await side.journal.remainder(connection)
        depth = await side.journal.depth(connection)
    assert (left.rows, left.waiting, left.reason) == (1, 1, "it waits")
    assert depth.rows == 1
    assert depth.lag_seconds > depth.fresh_lag_seconds == 0
    async with side.begin() as connection:
        await side.journal.requeue(connection, tried, delay_seconds=0, error="again")
    async with side.journal.claiming(limit=10) as (_, claim):
        assert claim.keys == {("note", key(1)): tried}


async def test_a_unit_and_its_journal_row_are_one(opened: Kind) -> None:
    side = opened.side

    async def fail() -> None:
        async with opened.unit() as write:
            await write(1, 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with side.journal.claiming(limit=10) as (_, nothing):
        assert not nothing.keys
    await written(opened, 2, 5)
    async with side.journal.claiming(limit=10) as (_, claim):
        assert set(claim.keys) == {("note", key(2))}
        assert claim.keys["note", key(2)].request_id == "r"


async def test_rows_that_somebody_holds_are_not_forgotten(opened: Kind) -> None:
    side, other = opened.side, opened.again()
    await journalled(side, 1, 2)
    async with side.connect() as holder:
        await side.journal.forget(holder)
        async with other.connect() as connection:
            with pytest.raises(LockHeldError):
                await other.journal.forget(connection)
    async with side.connect() as connection:
        assert (await side.journal.remainder(connection)).rows == 2


async def test_forgotten_rows_are_gone(opened: Kind) -> None:
    side = opened.side
    await journalled(side, 1, 2)
    async with side.begin() as connection:
        await side.journal.forget(connection)
    async with side.connect() as connection:
        assert (await side.journal.depth(connection)).rows == 0


# Guard --------------------------------------------------------------------------------------------------------------


@pytest.mark.invariant("I3")
async def test_a_guard_refuses_what_is_older_or_as_old(closed: Kind) -> None:
    side = closed.side
    assert await apply(side, {1: 10}, at=5) == {key(1)}
    assert await apply(side, {1: 11}, at=5) == frozenset()
    assert await apply(side, {1: 12, 2: 2}, at=4) == {key(2)}
    assert await closed.stored(1) == 10
    assert await apply(side, {1: 13}, at=6) == {key(1)}
    assert await closed.stored(1) == 13
    async with side.connect() as connection:
        guards = await side.state.read_guards(connection, NOTE, keys=[key(1), key(2), key(3)])
    assert guards == {
        key(1): (1, Position(major=6, minor=0)),
        key(2): (1, Position(major=4, minor=0)),
    }


@pytest.mark.invariant("I2")
async def test_the_guard_of_a_deleted_key_is_its_tombstone(closed: Kind) -> None:
    side = closed.side
    await apply(side, {1: 10}, at=1)
    assert await apply(side, {1: None, 2: None}, at=3) == {key(1), key(2)}
    assert await closed.stored(1) is None
    assert await apply(side, {1: 10, 2: 20}, at=2) == frozenset()
    assert await closed.stored(1) is None
    assert await closed.stored(2) is None


@pytest.mark.invariant("I3")
async def test_of_two_applies_at_once_the_newer_stays(closed: Kind) -> None:
    side, other = closed.side, closed.again()

    async def carry(by: SideStore, at: int) -> None:
        while True:
            try:
                await apply(by, dict.fromkeys(range(5), at), at=at)
            except Exception as error:
                if not is_repeatable(error):
                    raise
            else:
                return

    for at in range(1, 20, 2):
        await asyncio.gather(carry(side, at + 1), carry(other, at))
        assert [await closed.stored(number) for number in range(5)] == [at + 1] * 5


async def test_nothing_is_carried_to_a_side_that_is_open_or_in_another_epoch(
    make_kind: MakeKind,
) -> None:
    side = (await make_kind(Phase.RAMPDOWN)).side
    with pytest.raises(FencedError):
        await apply(side, {1: 1}, at=1, epoch=2)
    async with side.begin() as connection:
        await side.marks.lock_alone(connection, timeout_ms=1000)
        assert await side.marks.open(connection, epoch=2, capture_token="t")
    with pytest.raises(FencedError):
        await apply(side, {1: 1}, at=1, epoch=2)
    async with side.connect() as connection:
        assert not await side.state.read_guards(connection, NOTE, keys=[key(1)])


async def test_what_was_carried_is_read_as_it_is_stored(closed: Kind) -> None:
    side = closed.side
    await apply(side, {1: 10, 2: 20}, at=5)
    async with side.connect() as connection:
        stored = await side.state.read_stored(
            connection, NOTE, Direction.TO_LEGACY, keys=[key(1), key(2), key(3)]
        )
        assert [json.loads(rows) for rows in stored.rows] == [
            [{"id": digits(1), "n": 10}, {"id": digits(2), "n": 20}]
        ]
        assert stored.present == (frozenset({key(1), key(2)}),)
        assert await side.state.keys_after(connection, NOTE, after=None, limit=1) == [key(1)]
        assert await side.state.keys_after(connection, NOTE, after=key(1), limit=5) == [key(2)]
        assert await side.state.count(connection, NOTE) == 2
        assert set(await side.state.stored_rows(connection, NOTE, [key(1), key(9)])) == {key(1)}


# Position -----------------------------------------------------------------------------------------------------------


@pytest.mark.invariant("I3")
async def test_positions_are_in_the_order_of_what_was_seen(opened: Kind) -> None:
    readers = [opened.side, opened.again(), opened.again()]
    seen: list[tuple[Position, int]] = []
    done = asyncio.Event()
    await written(opened, 1, 0)

    async def read(side: SideStore) -> None:
        while not done.is_set():
            async with side.reading() as connection:
                state = await side.state.read_state(connection, NOTE, Direction.TO_NEW, keys=[key(1)])
            seen.append((state.position, int(state.rows[0].rpartition(":")[2].strip("} ]"))))

    tasks = [asyncio.create_task(read(side)) for side in readers]
    for n in range(1, WRITES):
        await written(opened, 1, n)
    done.set()
    await asyncio.gather(*tasks)
    seen.sort(key=lambda one: (one[0], one[1]))
    values = [n for _, n in seen]
    assert values == sorted(values)
    assert len(set(values)) > 3


async def test_a_position_taken_later_is_greater_than_that_of_a_change_before(opened: Kind) -> None:
    side = opened.side
    async with side.reading() as connection:
        before = await side.state.position(connection)
        await written(opened, 1, 1)
        state = await side.state.read_state(connection, NOTE, Direction.TO_NEW, keys=[key(1), key(2)])
        await side.state.make_durable(connection)
        after = await side.state.position(connection)
    assert before < state.position <= after
    assert state.present == (frozenset({key(1)}),)
