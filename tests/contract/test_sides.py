"""What every kind of side keeps (backend/shared/stores/side.py): the same cases on each."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy.exc import DBAPIError

from backend.shared.domain.errors import FencedError
from backend.shared.domain.phases import Direction, Phase, Side
from backend.shared.journal.conflict_records import ConflictOperation, FailedKey
from backend.shared.journal.records import Claim, ClaimedKey
from backend.shared.stores.errors import is_repeatable
from backend.shared.stores.protocol import Position
from backend.shared.stores.side import Connection, LockHeldError, SideStore
from tests.contract.conftest import Kind, MakeKind, batch
from tests.support.notes import NOTE, digits, key

WRITES = 60


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


def failed(number: int) -> ClaimedKey:
    """A note that was claimed and refused."""
    return ClaimedKey(
        entity="note",
        key=key(number),
        captured_at=datetime(2026, 1, 1, tzinfo=UTC),
        attempts=3,
        waits=0,
        request_id="r",
    )


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
    await _record(side, 3, at=1)
    assert not await touched(3)
    assert await touched(3, with_failures=True)
    async with side.begin() as connection:
        await side.marks.lock_alone(connection, timeout_ms=1000)
        await side.marks.close(connection, epoch=2)
    found = await side.on_the_way(entity="note", key=key(9), with_failures=False, most=10)
    assert found.is_unknown


# Failures and conflicts ---------------------------------------------------------------------------------------------


async def _record(side: SideStore, number: int, *, at: int, epoch: int = 1, reason: str = "no") -> None:
    async with side.begin() as connection:
        await side.failures.record(
            connection,
            failed(number),
            direction=Direction.TO_NEW,
            epoch=epoch,
            position=Position(major=at, minor=0),
            reason=reason,
            sqlstate=None,
        )


@pytest.mark.invariant("I8")
async def test_a_failure_is_kept_once_and_closed_by_what_is_as_new(opened: Kind) -> None:
    side = opened.side
    await _record(side, 1, at=5, reason="first")
    await _record(side, 1, at=7, reason="second")
    await _record(side, 2, at=5)
    async with side.connect() as connection:
        one, two = await side.failures.page(connection)
        assert (one.key, one.attempts, one.reason, one.state) == (key(1), 6, "second", "open")
        assert one.first_failed_at < one.last_failed_at
        assert one.captured_at == failed(1).captured_at
        assert one.id < two.id
        assert await side.failures.page(connection, after_id=one.id) == [two]
        assert await side.failures.page(connection, entity="board") == []
        assert await side.failures.count_by_entity(connection) == {"note": 2}
        assert await side.failures.get(connection, two.id) == two
        assert await side.failures.get(connection, 999) is None
        assert await side.failures.failed_keys(connection, "note", [key(1), key(3)]) == {key(1)}
    async with side.begin() as connection:
        carried = {("note", key(1)): Position(major=6, minor=0), ("note", key(2)): Position(major=5, minor=0)}
        assert await side.failures.close(connection, carried, epoch=1, by="relay") == 1
    async with side.begin() as connection:
        assert await side.failures.retry(connection, entity="note") == 1
    async with side.journal.claiming(limit=10) as (_, claim):
        assert set(claim.keys) == {("note", key(1))}
    async with side.begin() as connection:
        assert await side.failures.close(connection, carried, epoch=2, by="relay") == 1
    async with side.connect() as connection:
        assert await side.failures.page(connection) == []
        assert len(await side.failures.page(connection, state="closed")) == 2
    await _record(side, 1, at=9)
    async with side.connect() as connection:
        (again,) = await side.failures.page(connection)
        assert again.id > two.id


@pytest.mark.invariant("I8")
async def test_what_fails_while_the_lock_is_held_is_seen_by_its_holder(opened: Kind) -> None:
    side = opened.side
    async with side.connect() as connection:
        await side.marks.lock_alone(connection, timeout_ms=1000)
        assert (await side.marks.read(connection)).is_open
        assert await side.capture_token(connection, phase=Phase.DUALWRITE)
        assert not await side.conflicts.open_failures(connection, after_id=0, limit=10)
        await _record(opened.again(), 1, at=5)
        (found,) = await side.conflicts.open_failures(connection, after_id=0, limit=10)
        assert found.key == key(1)
        assert await side.marks.close(connection, epoch=2)
        await connection.commit()


@pytest.mark.invariant("I8")
async def test_a_failed_key_becomes_a_conflict_that_one_may_settle(opened: Kind) -> None:
    side = opened.side
    await _record(side, 1, at=5, reason="does not fit")
    async with side.begin() as connection:
        (found,) = await side.conflicts.open_failures(connection, after_id=0, limit=10)
        kept = FailedKey(
            failure_id=found.id,
            entity=found.entity,
            key=found.key,
            source_table="notes",
            reason=found.reason,
            there={"notes": "[]"},
            here={"notes": '[{"n": 1}]'},
        )
        await side.conflicts.keep_failed(connection, [kept], side=Side.LEGACY, by="cutover")
        await side.conflicts.keep_failed(connection, [kept], side=Side.LEGACY, by="again")
    async with side.connect() as connection:
        assert await side.failures.page(connection) == []
        assert await side.conflicts.count(connection) == 1
        (conflict,) = await side.conflicts.page(connection)
    assert conflict.identity == ("note", key(1))
    assert conflict.operation is ConflictOperation.FAILED
    assert (conflict.before, conflict.after) == ('{"notes": []}', '{"notes": [{"n": 1}]}')
    assert (conflict.detail, conflict.written_by, conflict.side) == ("does not fit", "cutover", Side.LEGACY)
    async with side.connect() as connection, opened.again().connect() as other:
        assert await side.conflicts.hold(connection, conflict.id) == conflict
        with pytest.raises((LockHeldError, DBAPIError)):
            await side.conflicts.hold(other, conflict.id)
        await side.conflicts.note(connection, conflict.id, "not yet")
        await side.conflicts.settle(connection, [conflict.id], kept=Side.NEW, by="me", detail="")
        await connection.commit()
    async with side.connect() as connection:
        assert await side.conflicts.page(connection) == []
        settled = await side.conflicts.get(connection, conflict.id)
        assert settled is not None
        assert (settled.state, settled.kept, settled.settled_by) == ("settled", Side.NEW, "me")


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
