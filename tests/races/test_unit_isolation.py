"""Units of work at the isolation that they ask for, beside others and across a cutover (R7). Named for their interleavings."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import func, insert, select, update

from backend.shared import Isolation, Key, Phase, SecondWrite, Side, SideError, Unit, UnitOfWork
from backend.shared.domain.errors import ConfigurationError
from backend.shared.domain.phases import Capture
from backend.shared.dual_write_config import Availability
from backend.shared.local_units import LocalUnits
from backend.shared.testing.clusters import Databases
from tests.support.fixtures import BOTH_AUTHORITIES, MakeManager, Sql
from tests.support.note_service import EITHER_FIRST, ROWS_FIRST, MakeNotes, NoteDatabases, put
from tests.support.people import PeopleManager, notes, people
from tests.support.phases import added, change
from tests.support.state import both_sides

LEAST = 100
"""What all people together are to have at the least."""
WRITE_SKEW = pytest.mark.parametrize(
    ("isolation", "spent", "run_count"), [(Isolation.READ_COMMITTED, 2, 2), (Isolation.SERIALIZABLE, 1, 3)]
)
"""Who is refused reads again, and finds that there is not enough left."""
ABOVE_READ_COMMITTED = pytest.mark.parametrize(
    "isolation", [Isolation.REPEATABLE_READ, Isolation.SERIALIZABLE]
)


class Spender:
    """Takes all from one of two who have 100 each, if enough is left. In their first runs both read before either writes."""

    def __init__(self, take: Callable[[UnitOfWork, int], Awaitable[Any]]) -> None:
        self._take = take
        self._both_have_read = asyncio.Barrier(2)
        self.run_count = 0

    def of(self, number: int) -> Unit[bool]:
        first = True

        async def unit(work: UnitOfWork) -> bool:
            nonlocal first
            self.run_count += 1
            (row,) = await work.rows(select(func.sum(work.shape(people).c.credit).label("credit")))
            if first:
                first = False
                await self._both_have_read.wait()
            if row["credit"] - 100 < LEAST:
                return False
            await self._take(work, number)
            return True

        return unit


@WRITE_SKEW
async def test_two_read_the_sum_before_either_writes_in_one_database(
    local_units: LocalUnits, *, isolation: Isolation, spent: int, run_count: int
) -> None:
    async def two(work: UnitOfWork) -> None:
        for number in (1, 2):
            await work.execute(insert(people).values(id=number, email=f"{number}@example.org", credit=100))

    async def take(work: UnitOfWork, number: int) -> None:
        await work.execute(update(people).where(people.c.id == number).values(credit=0))

    await local_units("add", two)
    spender = Spender(take)
    units = (local_units("spend", spender.of(number), isolation=isolation) for number in (1, 2))
    assert sum(await asyncio.gather(*units)) == spent
    assert spender.run_count == run_count


@BOTH_AUTHORITIES
@pytest.mark.parametrize("async_legacy", [True, False])
@WRITE_SKEW
async def test_two_read_the_sum_before_either_writes_on_two_sides(
    make_manager: MakeManager,
    *,
    phase: Phase,
    async_legacy: bool,
    isolation: Isolation,
    spent: int,
    run_count: int,
) -> None:
    manager = await make_manager(phase, async_legacy=async_legacy)

    async def two(work: UnitOfWork) -> list[int]:
        values = ({people.c.email: f"{name}@example.org", people.c.credit: 100} for name in ("ann", "bob"))
        return [(await work.insert("person", row))[0] for row in values]

    async def take(work: UnitOfWork, number: int) -> None:
        await work.update("person", (number,), {people.c.credit: 0})

    numbers = (await manager.write("add", two)).unwrap()
    spender = Spender(take)
    units = (manager.write("spend", spender.of(number), isolation=isolation) for number in numbers)
    assert sum(result.unwrap() for result in await asyncio.gather(*units)) == spent
    assert spender.run_count == run_count


class AcrossCutover:
    """A unit that has looked at one moment when the authority moves, and goes on after that. `on`: the side of each run."""

    def __init__(self, operator: PeopleManager, *, writes: bool) -> None:
        self._operator = operator
        self._writes = writes
        self.on: list[Side] = []

    async def __call__(self, work: UnitOfWork) -> list[str]:
        self.on.append(work.side)
        shape = work.shape(people)
        query = select(shape.c.email).order_by(shape.c.email)
        seen = [row["email"] for row in await work.rows(query)]
        if len(self.on) == 1:
            await change(self._operator, Phase.LIVE)
            (await self._operator.write("add", added("bea@example.org"))).unwrap()
            assert [row["email"] for row in await work.rows(query)] == seen, "it looks at one moment"
        if self._writes:
            await work.insert("person", {people.c.email: "cid@example.org"})
        return seen


@ABOVE_READ_COMMITTED
@pytest.mark.parametrize("writes", [True, False], ids=["that writes", "that only reads"])
async def test_unit_goes_on_after_a_cutover_with_a_snapshot_from_before(
    make_manager: MakeManager, people_databases: Databases, *, isolation: Isolation, writes: bool
) -> None:
    """Refused by 40001, for its snapshot shows the old side open; then closed; then it runs on the other side."""
    operator, writer = [await make_manager() for _ in range(2)]
    await change(operator, Phase.SHADOW)
    (await operator.write("add", added("ann@example.org"))).unwrap()
    unit = AcrossCutover(operator, writes=writes)
    result = await writer.write("add", unit, isolation=isolation)
    assert result.unwrap() == ["ann@example.org", "bea@example.org"]
    assert unit.on[0] is Side.LEGACY
    assert (unit.on[-1], result.authoritative) == (Side.NEW, Side.NEW)
    assert await operator.relay().drain(timeout_seconds=10)
    old, new = await both_sides(people_databases)
    assert old == new
    assert len(new) == (3 if writes else 2)


@ABOVE_READ_COMMITTED
async def test_side_is_closed_while_a_unit_waits_to_be_let_in(
    make_manager: MakeManager, legacy_sql: Sql, *, monkeypatch: pytest.MonkeyPatch, isolation: Isolation
) -> None:
    """Where no trigger is the fence: the unit's snapshot is from before it waited, and shows the side open."""
    monkeypatch.setattr(PeopleManager, "capture", Capture.UNIT)
    manager = await make_manager(Phase.SHADOW)
    runtime, ran_on = manager.runtime, list[Side]()

    async def unit(work: UnitOfWork) -> Key:
        ran_on.append(work.side)
        return await work.insert("person", {people.c.email: "ann@example.org"})

    legacy, new = runtime.stores[Side.LEGACY], runtime.stores[Side.NEW]
    async with legacy.begin() as closing:
        await legacy.marks.lock_alone(closing, timeout_ms=1000)
        writing = asyncio.ensure_future(manager.write("add", unit, isolation=isolation))
        await legacy_sql.until("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        assert await legacy.marks.close(closing, epoch=2)
    async with new.begin() as opening:
        await new.marks.lock_alone(opening, timeout_ms=1000)
        assert await new.marks.open(opening, epoch=2, capture_token="")
    async with new.begin() as telling:
        await telling.exec_driver_sql(f"UPDATE {runtime.names.control} SET phase = 'live', epoch = 2")
    assert (await writing).success
    assert ran_on == [Side.NEW]


@BOTH_AUTHORITIES
async def test_something_is_written_between_two_reads_of_one_unit(
    make_manager: MakeManager, *, phase: Phase
) -> None:
    manager = await make_manager(phase)

    async def with_note(work: UnitOfWork) -> None:
        (number,) = await work.insert("person", {people.c.email: "ann@example.org"})
        await work.insert("note", {notes.c.person_id: number, notes.c.body: "hello"})

    async def counted(work: UnitOfWork) -> tuple[int, int]:
        found = []
        for table in (people, notes):
            query = select(func.count().label("count")).select_from(work.shape(table))
            found.append((await work.rows(query))[0]["count"])
            if table is people:
                (await manager.write("add", with_note)).unwrap()
        return found[0], found[1]

    assert await manager.read(counted) == (0, 0)


@BOTH_AUTHORITIES
async def test_read_writes_nothing(make_manager: MakeManager, *, phase: Phase) -> None:
    manager = await make_manager(phase)
    with pytest.raises(SideError, match="SQLSTATE 25006"):
        await manager.read(added("ann@example.org"))


@pytest.mark.parametrize(
    ("isolation", "second"),
    [(Isolation.READ_COMMITTED, SecondWrite.STRANDED), (Isolation.SERIALIZABLE, SecondWrite.FAILED)],
)
async def test_authority_is_away_and_the_copy_would_do(
    make_notes: MakeNotes, *, isolation: Isolation, second: SecondWrite
) -> None:
    """A copy cannot say what else goes on at the same time: so a unit that has to know is not run there."""
    manager = await make_notes(ROWS_FIRST, availability=Availability.ANY)
    breaker = manager.runtime.breakers[Side.NEW]
    while not breaker.is_open:
        breaker.failed()
    result = await manager.write("put", put(1, 5), isolation=isolation)
    assert result.second_write is second
    assert result.success is (second is SecondWrite.STRANDED)
    assert result.new_db_error is not None


@EITHER_FIRST
async def test_isolation_where_one_side_holds_documents(
    make_notes: MakeNotes, note_databases: NoteDatabases, *, phase: Phase
) -> None:
    manager = await make_notes(phase)
    assert (await manager.write("put", put(1, 5), isolation=Isolation.REPEATABLE_READ)).success
    assert await note_databases.both() == ({1: 5}, {1: 5})
    if phase is ROWS_FIRST:
        assert (await manager.write("put", put(2, 5), isolation=Isolation.SERIALIZABLE)).success
    else:
        with pytest.raises(ConfigurationError, match="SERIALIZABLE"):
            await manager.write("put", put(2, 5), isolation=Isolation.SERIALIZABLE)
