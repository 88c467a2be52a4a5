"""Failures of a side, whatever kind of database keeps them: found by key, known to be repeated, forgotten once settled."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy.exc import DBAPIError

from backend.shared.domain.phases import Phase, Side
from backend.shared.journal.conflict_records import ConflictOperation, FailedKey
from backend.shared.stores.protocol import Position
from backend.shared.stores.side import LockHeldError
from tests.contract.conftest import Kind
from tests.support.notes import key
from tests.support.side_work import CAPTURED_AT, record


async def settle(kind: Kind, number: int) -> None:
    """The note has gone over."""
    async with kind.side.begin() as connection:
        gone = {("note", key(number)): Position(major=2, minor=0)}
        assert await kind.side.failures.close(connection, gone, epoch=1, by="test") == 1


async def test_a_key_that_fails_again_is_known(opened: Kind) -> None:
    assert not await record(opened.side, 1)
    assert await record(opened.side, 1)
    assert not await record(opened.side, 2)
    await settle(opened, 1)
    assert not await record(opened.side, 1), "what was settled is over"


@pytest.mark.invariant("I8")
async def test_whoever_is_slow_to_tell_of_an_older_state_hides_no_newer_failure(opened: Kind) -> None:
    """A success in between, which was of neither, would close it: the key would be carried nowhere, and listed nowhere."""
    await record(opened.side, 1, at=3, reason="newer")
    assert await record(opened.side, 1, at=1, reason="older")
    async with opened.side.begin() as connection:
        between = {("note", key(1)): Position(major=2, minor=0)}
        assert await opened.side.failures.close(connection, between, epoch=1, by="test") == 0
        found = await opened.side.failures.find(connection, "note", key(1))
    assert found is not None
    assert found.reason == "newer"
    await record(opened.side, 1, at=4, reason="newest")
    async with opened.side.begin() as connection:
        found = await opened.side.failures.find(connection, "note", key(1))
        assert found is not None
        assert found.reason == "newest"
        after = {("note", key(1)): Position(major=4, minor=0)}
        assert await opened.side.failures.close(connection, after, epoch=1, by="test") == 1


async def test_the_open_failure_of_a_key_is_found(opened: Kind) -> None:
    await record(opened.side, 1)
    async with opened.side.connect() as connection:
        found = await opened.side.failures.find(connection, "note", key(1))
        assert found is not None
        assert (found.key, found.reason) == (key(1), "does not fit")
        assert await opened.side.failures.find(connection, "note", key(2)) is None
        assert await opened.side.failures.find(connection, "board", key(1)) is None
    await settle(opened, 1)
    async with opened.side.connect() as connection:
        assert await opened.side.failures.find(connection, "note", key(1)) is None


async def test_only_what_was_settled_before_is_forgotten(opened: Kind) -> None:
    for number in (1, 2, 3):
        await record(opened.side, number)
    await settle(opened, 1)
    await settle(opened, 2)
    failures, now = opened.side.failures, await opened.side.now()
    async with opened.side.begin() as connection:
        early = now - timedelta(hours=1)
        assert await failures.delete_closed(connection, closed_before=early, limit=10) == 0
    late = now + timedelta(hours=1)
    for left in (1, 1, 0):
        async with opened.side.begin() as connection:
            assert await failures.delete_closed(connection, closed_before=late, limit=1) == left
    async with opened.side.connect() as connection:
        assert [failure.key for failure in await failures.page(connection)] == [key(3)]
        assert await failures.page(connection, state="closed") == []


@pytest.mark.invariant("I8")
async def test_a_failure_is_kept_once_and_closed_by_what_is_as_new(opened: Kind) -> None:
    side = opened.side
    await record(side, 1, at=5, reason="first")
    await record(side, 1, at=7, reason="second")
    await record(side, 2, at=5)
    async with side.connect() as connection:
        one, two = await side.failures.page(connection)
        assert (one.key, one.attempts, one.reason, one.state) == (key(1), 6, "second", "open")
        assert one.first_failed_at < one.last_failed_at
        assert one.captured_at == CAPTURED_AT
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
    await record(side, 1, at=9)
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
        await record(opened.again(), 1, at=5)
        (found,) = await side.conflicts.open_failures(connection, after_id=0, limit=10)
        assert found.key == key(1)
        assert await side.marks.close(connection, epoch=2)
        await connection.commit()


@pytest.mark.invariant("I8")
async def test_a_failed_key_becomes_a_conflict_that_one_may_settle(opened: Kind) -> None:
    side = opened.side
    await record(side, 1, at=5, reason="does not fit")
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
