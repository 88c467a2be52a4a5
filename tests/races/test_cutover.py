"""I4, I6: the way over and back beside writers, relays and controllers that are late. Named for their interleavings."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from backend.shared import Key, Phase, Side
from backend.shared.journal.fence import FENCED
from backend.shared.testing.clusters import Databases
from tests.support.fixtures import MakeManager, Sql
from tests.support.people import PeopleManager
from tests.support.phases import SLOW_GATES, added, change, looked_at, named, removed
from tests.support.state import assert_equal_sides, both_sides

TIMES_UP_AND_BACK = 10


async def never_two_open(stop: asyncio.Event, databases: Databases) -> int:
    """Look at both marks again and again, legacy first and last; answers how often it looked.

    Two sides open at two times is nothing: so both looks at legacy have to find it open, in one epoch, with new open between.
    """
    legacy = await asyncpg.connect(databases.legacy_url)
    new = await asyncpg.connect(databases.new_url)
    query, looks = "SELECT state, epoch FROM tandem_people.mark", 0
    try:
        while not stop.is_set():
            before, between, after = [
                await connection.fetchrow(query) for connection in (legacy, new, legacy)
            ]
            assert before
            assert between
            assert after
            open_throughout = before == after and before["state"] == "open"
            assert not (open_throughout and between["state"] == "open")
            looks += 1
    finally:
        await legacy.close()
        await new.close()
    return looks


async def write_on(manager: PeopleManager, who: str, stop: asyncio.Event) -> dict[Key, str]:
    """Insert, change and delete until `stop`; every call has to succeed. Answers what has to be there in the end."""
    there: dict[Key, str] = {}
    number = 0
    while not stop.is_set():
        number += 1
        done = await manager.write("add", added(f"{who}-{number}@example.org", f"{number}"))
        assert done.success, done.error
        key = done.unwrap()
        assert key not in there
        there[key] = f"{number}"
        if number % 3 == 0:
            oldest = next(iter(there))
            changed = await manager.write("change", named(oldest, f"changed by {number}"))
            assert changed.unwrap(), oldest
            there[oldest] = f"changed by {number}"
        if number % 5 == 0:
            oldest = next(iter(there))
            assert (await manager.write("remove", removed(oldest))).unwrap()
            del there[oldest]
        seen = await manager.read(looked_at(key))
        assert (seen is not None) is (key in there)  # what was acknowledged is there at once (I1)
        await asyncio.sleep(0)
    return there


@pytest.mark.invariant("I4")
@pytest.mark.invariant("I6")
@pytest.mark.timeout(240)
async def test_i4_i6_two_replicas_under_load_all_the_way_up_and_half_way_back_ten_times(
    make_manager: MakeManager, people_databases: Databases
) -> None:
    operator = await make_manager(Phase.OFF)
    replicas = [await make_manager(Phase.OFF) for _ in range(2)]
    for replica in replicas:
        await replica.start(relay=True)
    stop = asyncio.Event()
    working = [asyncio.ensure_future(write_on(item, f"w{n}", stop)) for n, item in enumerate(replicas)]
    watching = asyncio.ensure_future(never_two_open(stop, people_databases))
    try:
        for _ in range(TIMES_UP_AND_BACK):
            await change(operator, Phase.RAMPDOWN)
            await change(operator, Phase.SHADOW)
        await change(operator, Phase.RAMPDOWN)
    finally:
        stop.set()
        done = await asyncio.gather(*working, watching, return_exceptions=True)
    failed = [item for item in done if isinstance(item, BaseException)]
    assert not failed, failed
    assert await operator.relay().drain(timeout_seconds=20)
    rows = await assert_equal_sides(people_databases)
    expected: dict[Key, str] = {}
    for item in done[:2]:
        assert isinstance(item, dict)
        expected |= item
    assert {(row[0],): row[2] for row in rows} == expected
    assert operator.runtime.control.epoch == 2 * TIMES_UP_AND_BACK + 2


@pytest.mark.invariant("I4")
async def test_i4_replica_that_has_heard_nothing_writes_after_the_cutover(
    make_manager: MakeManager, people_databases: Databases, *, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = await make_manager(Phase.SHADOW)
    deaf = await make_manager(Phase.SHADOW)
    refreshes = deaf.runtime.following.refresh
    heard: list[str] = []

    async def hears_only_when_fenced() -> None:
        heard.append("asked")
        await refreshes()

    async def hears_nothing() -> None:
        return

    monkeypatch.setattr(deaf.runtime.following, "follow", hears_nothing)
    monkeypatch.setattr(deaf.runtime.following, "refresh", hears_only_when_fenced)
    await deaf.runtime.replicas.leave(deaf.runtime.following.replica_id)  # its lease has run out
    await change(operator, Phase.LIVE, force=[*SLOW_GATES, "backfill"])
    assert deaf.phase is Phase.SHADOW
    done = await deaf.write("add", added("late@example.org"))
    assert done.success
    assert heard
    assert done.authoritative is Side.NEW
    legacy, new = await both_sides(people_databases)
    assert (len(legacy), len(new)) == (0, 1)


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
@pytest.mark.invariant("I4")
async def test_i4_snapshot_older_than_the_cutover_sees_no_old_mark(
    make_manager: MakeManager, people_databases: Databases, legacy_sql: Sql, isolation: str
) -> None:
    """The lock does not make an old snapshot new: above READ COMMITTED the row of the mark itself is locked."""
    operator = await make_manager(Phase.SHADOW)
    await legacy_sql("INSERT INTO folk (mail) VALUES ('x@example.org')")
    await operator.relay().drain(timeout_seconds=10)
    writer = await asyncpg.connect(people_databases.legacy_url)
    try:
        await writer.execute(f"BEGIN ISOLATION LEVEL {isolation}")
        await writer.fetch("SELECT nm FROM folk")  # takes the snapshot
        await writer.execute("SET LOCAL tandem.unit = 'people:late'")
        await change(operator, Phase.LIVE, force=[*SLOW_GATES, "backfill"])
        with pytest.raises(asyncpg.PostgresError) as refused:
            await writer.execute("UPDATE folk SET nm = 'from an old snapshot'")
    finally:
        await writer.close()
    assert refused.value.sqlstate == "40001"
    (row,) = await assert_equal_sides(people_databases)
    assert row[2] is None


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM notes WHERE note_no = 0", "TRUNCATE folk CASCADE", "UPDATE folk SET nm = 'x' WHERE false"],
)
@pytest.mark.invariant("I4")
async def test_i4_a_unit_that_touches_no_row_of_a_closed_side_is_refused_all_the_same(
    make_manager: MakeManager, people_databases: Databases, legacy_sql: Sql, statement: str
) -> None:
    await make_manager(Phase.LIVE)
    writer = await asyncpg.connect(people_databases.legacy_url)
    try:
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute("SET LOCAL tandem.unit = 'people:late'")
        with pytest.raises(asyncpg.PostgresError) as refused:
            await writer.execute(statement)
        await transaction.rollback()
    finally:
        await writer.close()
    assert refused.value.sqlstate == FENCED


async def test_a_unit_that_wrote_nothing_is_repeated_where_it_would_have_been_seen(
    make_manager: MakeManager, people_databases: Databases
) -> None:
    """It read on the side that was closed meanwhile: what it answers has to be of the side that is open."""
    operator = await make_manager(Phase.SHADOW)
    replica = await make_manager(Phase.SHADOW)
    key = (await operator.write("add", added("x@example.org"))).unwrap()
    read, go_on = asyncio.Event(), asyncio.Event()
    seen: list[Side] = []

    async def unit(work: object) -> object:
        seen.append(work.side)  # type: ignore[attr-defined]
        found = await work.get("person", key)  # type: ignore[attr-defined]
        read.set()
        await go_on.wait()
        return found

    reading = asyncio.ensure_future(replica.write("look", unit))
    await read.wait()
    await change(operator, Phase.LIVE, force=[*SLOW_GATES, "backfill"])
    go_on.set()
    done = await reading
    assert done.success
    assert seen == [Side.LEGACY, Side.NEW]
