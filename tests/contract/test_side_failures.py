"""Failures of a side, whatever kind of database keeps them: found by key, known to be repeated, forgotten once settled."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from backend.shared.domain.phases import Direction
from backend.shared.journal.records import ClaimedKey
from backend.shared.stores.protocol import Position
from tests.contract.conftest import Kind
from tests.support.notes import key


async def fail(kind: Kind, number: int, *, at: int = 1, reason: str = "does not fit") -> bool:
    """Keep a note as FAILED with the state of position `at`; answers whether it was already."""
    claimed = ClaimedKey(
        entity="note", key=key(number), captured_at=datetime.now(UTC), attempts=1, waits=0, request_id=None
    )
    async with kind.side.begin() as connection:
        return await kind.side.failures.record(
            connection,
            claimed,
            direction=Direction.TO_NEW,
            epoch=1,
            position=Position(major=at, minor=0),
            reason=reason,
            sqlstate=None,
        )


async def settle(kind: Kind, number: int) -> None:
    """The note has gone over."""
    async with kind.side.begin() as connection:
        gone = {("note", key(number)): Position(major=2, minor=0)}
        assert await kind.side.failures.close(connection, gone, epoch=1, by="test") == 1


async def test_a_key_that_fails_again_is_known(opened: Kind) -> None:
    assert not await fail(opened, 1)
    assert await fail(opened, 1)
    assert not await fail(opened, 2)
    await settle(opened, 1)
    assert not await fail(opened, 1), "what was settled is over"


@pytest.mark.invariant("I8")
async def test_whoever_is_slow_to_tell_of_an_older_state_hides_no_newer_failure(opened: Kind) -> None:
    """A success in between, which was of neither, would close it: the key would be carried nowhere, and listed nowhere."""
    await fail(opened, 1, at=3, reason="newer")
    assert await fail(opened, 1, at=1, reason="older")
    async with opened.side.begin() as connection:
        between = {("note", key(1)): Position(major=2, minor=0)}
        assert await opened.side.failures.close(connection, between, epoch=1, by="test") == 0
        found = await opened.side.failures.find(connection, "note", key(1))
    assert found is not None
    assert found.reason == "newer"
    await fail(opened, 1, at=4, reason="newest")
    async with opened.side.begin() as connection:
        found = await opened.side.failures.find(connection, "note", key(1))
        assert found is not None
        assert found.reason == "newest"
        after = {("note", key(1)): Position(major=4, minor=0)}
        assert await opened.side.failures.close(connection, after, epoch=1, by="test") == 1


async def test_the_open_failure_of_a_key_is_found(opened: Kind) -> None:
    await fail(opened, 1)
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
        await fail(opened, number)
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
