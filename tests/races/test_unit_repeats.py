"""What of a unit of work is done again, and what of it fails alone. Named for their interleavings."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import asyncpg
import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError

from backend.shared import Isolation, Phase, Side, SideError, Unit, UnitOfWork
from backend.shared.domain.outages import Outage
from backend.shared.local_units import LocalUnits
from backend.shared.testing.clusters import Databases
from backend.shared.unit_repeats import MAX_RUNS
from tests.support.fixtures import BOTH_AUTHORITIES, MakeManager, Sql
from tests.support.people import people
from tests.support.state import both_sides

INSERT = text("INSERT INTO people (email) VALUES (:email)")


async def add_two(work: UnitOfWork) -> None:
    for email in ("ann", "bob"):
        await work.execute(INSERT, {"email": email})


class Crossing:
    """Each of two units holds a row, and then wants the other's; in their first runs, when both hold one."""

    def __init__(self) -> None:
        self._both_hold = asyncio.Barrier(2)
        self.run_count = 0

    def of(self, numbers: tuple[int, int]) -> Unit[None]:
        first = True

        async def unit(work: UnitOfWork) -> None:
            nonlocal first
            self.run_count += 1
            meets, first = first, False
            shape = people.c
            await work.execute(update(people).where(shape.id == numbers[0]).values(credit=shape.credit + 1))
            if meets:
                await self._both_hold.wait()
            await work.execute(update(people).where(shape.id == numbers[1]).values(credit=shape.credit + 1))

        return unit


async def crossed(units: LocalUnits) -> tuple[Crossing, tuple[BaseException | None, ...]]:
    await units("add", add_two)
    crossing = Crossing()
    done = await asyncio.gather(
        units("cross", crossing.of((1, 2))), units("cross", crossing.of((2, 1))), return_exceptions=True
    )
    return crossing, done


async def test_each_waits_for_the_other(local_units: LocalUnits, new_sql: Sql) -> None:
    crossing, done = await crossed(local_units)
    assert list(done) == [None, None]
    assert crossing.run_count == 3, "the one that was chosen has been run again"
    assert [row["credit"] for row in await new_sql("SELECT credit FROM people")] == [2, 2]


async def test_each_waits_for_the_other_and_nothing_is_repeated(
    local_units: LocalUnits, new_sql: Sql, *, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.shared.unit_repeats.MAX_RUNS", 1)
    crossing, done = await crossed(local_units)
    (error,) = [item for item in done if item is not None]
    assert isinstance(error, SideError)
    assert (error.unavailable, error.outage) == (True, Outage.CONTENDED)
    assert crossing.run_count == 2
    assert [row["credit"] for row in await new_sql("SELECT credit FROM people")] == [1, 1]


@BOTH_AUTHORITIES
async def test_each_waits_for_the_other_on_two_sides(
    make_manager: MakeManager, people_databases: Databases, *, phase: Phase
) -> None:
    manager = await make_manager(phase)
    both_hold, run_count = asyncio.Barrier(2), 0

    def crossing(numbers: tuple[int, int]) -> Unit[None]:
        first = True

        async def unit(work: UnitOfWork) -> None:
            nonlocal first, run_count
            run_count += 1
            meets, first = first, False
            await work.update("person", (numbers[0],), {people.c.name: f"{numbers[0]}"})
            if meets:
                await both_hold.wait()
            await work.update("person", (numbers[1],), {people.c.name: f"{numbers[1]}"})

        return unit

    async def two(work: UnitOfWork) -> list[int]:
        return [(await work.insert("person", {people.c.email: email}))[0] for email in ("ann", "bob")]

    one, other = (await manager.write("add", two)).unwrap()
    done = await asyncio.gather(
        manager.write("cross", crossing((one, other))), manager.write("cross", crossing((other, one)))
    )
    assert [result.success for result in done] == [True, True]
    assert run_count == 3
    assert await manager.relay().drain(timeout_seconds=10)
    old, new = await both_sides(people_databases)
    assert old == new
    assert [row[2] for row in new] == [f"{one}", f"{other}"]


@pytest.mark.parametrize("state", ["40001", "40P01"])
async def test_conflict_each_time(local_units: LocalUnits, state: str) -> None:
    """Tried a bounded number of times; then the caller is told that it is contended, and may come again."""
    run_count = 0

    async def unit(work: UnitOfWork) -> None:
        nonlocal run_count
        run_count += 1
        await work.execute(text(f"DO $$ BEGIN RAISE SQLSTATE '{state}'; END $$"))

    with pytest.raises(SideError) as caught:
        await local_units("contend", unit, isolation=Isolation.SERIALIZABLE)
    assert run_count == MAX_RUNS
    assert (caught.value.unavailable, caught.value.outage) == (True, Outage.CONTENDED)


# Savepoints ------------------------------------------------------------------------------------------------------------


@BOTH_AUTHORITIES
@pytest.mark.parametrize("async_legacy", [True, False])
async def test_step_is_refused_and_the_rest_is_kept(
    make_manager: MakeManager, people_databases: Databases, *, phase: Phase, async_legacy: bool
) -> None:
    manager = await make_manager(phase, async_legacy=async_legacy)
    ann = {people.c.email: "ann", people.c.name: "Ann"}

    async def unit(work: UnitOfWork) -> str | None:
        async def step() -> None:
            await work.insert("person", {people.c.email: "bob"})
            await work.insert("person", ann)

        await work.insert("person", ann)
        refused = await work.optional(step)
        await work.insert("person", {people.c.email: "cid"})
        return None if refused is None else refused.sqlstate

    assert (await manager.write("add", unit)).unwrap() == "23505"
    assert await manager.relay().drain(timeout_seconds=10)
    old, new = await both_sides(people_databases)
    assert old == new
    assert [row[1] for row in new] == ["ann", "cid"]


async def test_step_fails_by_itself_and_is_not_excused(local_units: LocalUnits, new_sql: Sql) -> None:
    async def step() -> None:
        raise KeyError("a mistake")

    async def unit(work: UnitOfWork) -> None:
        await work.execute(INSERT, {"email": "ann"})
        await work.optional(step)

    with pytest.raises(KeyError):
        await local_units("add", unit)
    assert await new_sql("SELECT 1 FROM people") == []


async def cut(work: UnitOfWork, url: str) -> None:
    """The server ends the connection of this unit."""
    (row,) = await work.rows(select(text("pg_backend_pid() AS pid")))
    connection = await asyncpg.connect(url)
    try:
        assert await connection.fetchval("SELECT pg_terminate_backend($1, 5000)", row["pid"])
    finally:
        await connection.close()


class Trouble:
    """A unit whose step meets, the first time, something that is no failure of the step, and catches it."""

    def __init__(self, url: str, *, lost: bool) -> None:
        self._url = url
        self._lost = lost
        self.caught: list[DBAPIError] = []

    async def __call__(self, work: UnitOfWork) -> None:
        await work.execute(text("SELECT 1"))
        with suppress(DBAPIError):
            async with work.savepoint():
                try:
                    await self._step(work)
                except DBAPIError as error:
                    self.caught.append(error)
                    raise

    async def _step(self, work: UnitOfWork) -> None:
        if not self.caught and self._lost:
            await cut(work, self._url)
        elif not self.caught:
            await work.execute(text("DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$"))
        await work.execute(text("SELECT 1"))


@pytest.mark.parametrize("lost", [True, False], ids=["connection lost", "deadlock"])
async def test_trouble_of_the_whole_unit_within_a_step_is_caught(
    local_units: LocalUnits, people_databases: Databases, new_sql: Sql, *, lost: bool
) -> None:
    """As if nobody had caught it: the unit is run again, and what it wrote before and after the step is kept once."""
    trouble = Trouble(people_databases.new_url, lost=lost)
    run_count = 0

    async def unit(work: UnitOfWork) -> None:
        nonlocal run_count
        run_count += 1
        await work.execute(INSERT, {"email": f"{run_count}"})
        await trouble(work)

    await local_units("add", unit)
    assert len(trouble.caught) == 1
    assert [row["email"] for row in await new_sql("SELECT email FROM people")] == ["2"]


@BOTH_AUTHORITIES
@pytest.mark.parametrize("lost", [True, False], ids=["connection lost", "deadlock"])
async def test_trouble_of_the_whole_unit_within_a_step_is_caught_on_two_sides(
    make_manager: MakeManager, people_databases: Databases, *, phase: Phase, lost: bool
) -> None:
    manager = await make_manager(phase)
    side = phase.policy.authoritative
    url = people_databases.new_url if side is Side.NEW else people_databases.legacy_url
    trouble = Trouble(url, lost=lost)
    run_count = 0

    async def unit(work: UnitOfWork) -> None:
        nonlocal run_count
        run_count += 1
        await work.insert("person", {people.c.email: f"{run_count}"})
        await trouble(work)

    assert (await manager.write("add", unit)).success
    assert len(trouble.caught) == 1
    assert await manager.relay().drain(timeout_seconds=10)
    old, new = await both_sides(people_databases)
    assert old == new
    assert [row[1] for row in new] == ["2"]
