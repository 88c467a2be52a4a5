"""Repair beside writers, relays and other repairs: a newer write always wins. Each test is named for its interleaving."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from backend.shared import FencedError, Phase, Side
from backend.shared.observability.labels import Verdict
from backend.shared.testing.clusters import Databases
from tests.support.fixtures import BOTH_AUTHORITIES, MakeManager, Sql
from tests.support.people import people
from tests.support.repairs import Told, keep_mismatches, repaired, stocked, verdict
from tests.support.state import assert_equal_sides
from tests.support.steps import PauseAt

SECONDARY = {Phase.DUALWRITE: Side.NEW, Phase.RAMPDOWN: Side.LEGACY}
WRONG = {
    Side.NEW: "UPDATE people SET name = 'wrong' WHERE id = 3",
    Side.LEGACY: "UPDATE folk SET nm = 'wrong' WHERE folk_no = 3",
}
RIGHT = {
    Side.NEW: "UPDATE people SET name = 'newer' WHERE id = 3",
    Side.LEGACY: "UPDATE folk SET nm = 'newer' WHERE folk_no = 3",
}
DELETE = {
    Side.NEW: "DELETE FROM people WHERE id = 3",
    Side.LEGACY: "DELETE FROM folk WHERE folk_no = 3",
}


@pytest.fixture
def on(legacy_sql: Sql, new_sql: Sql) -> dict[Side, Sql]:
    return {Side.LEGACY: legacy_sql, Side.NEW: new_sql}


NAME_ON = {
    Side.NEW: "SELECT name FROM people WHERE id = 3",
    Side.LEGACY: "SELECT nm AS name FROM folk WHERE folk_no = 3",
}


class PauseAndSee(PauseAt):
    """Notes, after each carry, what the target then has of person 3: a repair would put an older state right again."""

    def __init__(self, step: str, target: Sql, side: Side) -> None:
        super().__init__(step)
        self.seen: list[list[str]] = []
        self._target, self._query = target, NAME_ON[side]

    async def __call__(self, step: str) -> None:
        await super().__call__(step)
        if step == "after_target_commit":
            self.seen.append([row["name"] for row in await self._target(self._query)])


async def held_at(
    step: str,
    make_manager: MakeManager,
    phase: Phase,
    act: Callable[[], Awaitable[object]],
    *,
    source: Side | None = None,
    pause: PauseAt | None = None,
) -> Told:
    """Repair person 3, and run `act` while the repair stands at `step`."""
    pause = pause or PauseAt(step)
    manager = await make_manager(phase, hook=pause, batch_size=1000)
    repairing = asyncio.ensure_future(repaired(manager, keys=["3"], source=source))
    await asyncio.wait_for(pause.reached.wait(), timeout=10)
    await act()
    pause.resume.set()
    return await repairing


@pytest.mark.invariant("I3")
@BOTH_AUTHORITIES
@pytest.mark.parametrize("step", ["repair_looked", "after_read"])
async def test_i3_write_between_look_and_repair(
    make_manager: MakeManager,
    on: dict[Side, Sql],
    people_databases: Databases,
    *,
    phase: Phase,
    step: str,
) -> None:
    """The write is carried while the repair holds the older state: the newer one stays."""
    manager = await stocked(make_manager, on[Side.LEGACY], on[Side.NEW], phase)
    await on[SECONDARY[phase]](WRONG[SECONDARY[phase]])

    async def write_and_carry() -> None:
        await on[SECONDARY[phase].other](RIGHT[SECONDARY[phase].other])
        assert await manager.relay().drain(timeout_seconds=10)

    pause = PauseAndSee(step, on[SECONDARY[phase]], SECONDARY[phase])
    told = await held_at(step, make_manager, phase, write_and_carry, pause=pause)
    assert told.outcomes == {"[3]": "repaired"}
    assert pause.seen == [["newer"]]
    assert (await assert_equal_sides(people_databases))[2][2] == "newer"


@pytest.mark.invariant("I2")
@BOTH_AUTHORITIES
@pytest.mark.parametrize("step", ["repair_looked", "after_read"])
async def test_i2_delete_between_look_and_repair(
    make_manager: MakeManager,
    on: dict[Side, Sql],
    people_databases: Databases,
    *,
    phase: Phase,
    step: str,
) -> None:
    manager = await stocked(make_manager, on[Side.LEGACY], on[Side.NEW], phase)
    await on[SECONDARY[phase]](WRONG[SECONDARY[phase]])

    async def delete_and_carry() -> None:
        await on[SECONDARY[phase].other](DELETE[SECONDARY[phase].other])
        assert await manager.relay().drain(timeout_seconds=10)

    pause = PauseAndSee(step, on[SECONDARY[phase]], SECONDARY[phase])
    await held_at(step, make_manager, phase, delete_and_carry, pause=pause)
    assert pause.seen == [[]]
    assert len(await assert_equal_sides(people_databases)) == 11


@pytest.mark.invariant("I3")
@BOTH_AUTHORITIES
@pytest.mark.parametrize("step", ["repair_looked", "repair_read", "repair_confirmed", "repair_compared"])
@pytest.mark.parametrize("change", ["update", "delete"])
async def test_i3_write_between_look_and_repair_from_the_secondary(
    make_manager: MakeManager,
    on: dict[Side, Sql],
    people_databases: Databases,
    *,
    phase: Phase,
    step: str,
    change: str,
) -> None:
    """What somebody writes to the authoritative side is not undone by the secondary's older state."""
    manager = await stocked(make_manager, on[Side.LEGACY], on[Side.NEW], phase)
    secondary = SECONDARY[phase]
    await on[secondary](WRONG[secondary])
    statement = (RIGHT if change == "update" else DELETE)[secondary.other]
    told = await held_at(step, make_manager, phase, lambda: on[secondary.other](statement), source=secondary)
    assert told.outcomes == {"[3]": "changed meanwhile"}
    assert not told.complete
    await manager.relay().drain(timeout_seconds=10)
    rows = await assert_equal_sides(people_databases)
    assert len(rows) == 11 if change == "delete" else rows[2][2] == "newer"


@pytest.mark.invariant("I3")
@BOTH_AUTHORITIES
@pytest.mark.parametrize("step", ["repair_read", "repair_confirmed", "repair_compared"])
async def test_i3_insert_between_look_and_repair_of_a_missing_row(
    make_manager: MakeManager, on: dict[Side, Sql], people_databases: Databases, *, phase: Phase, step: str
) -> None:
    """A row that was missing cannot be locked: the insert that comes in between is seen all the same."""
    manager = await stocked(make_manager, on[Side.LEGACY], on[Side.NEW], phase)
    secondary = SECONDARY[phase]
    await on[secondary.other]("DELETE FROM notes")  # they would go with the person
    assert await manager.relay().drain(timeout_seconds=10)
    await on[secondary.other](DELETE[secondary.other])
    await on[secondary.other]("DELETE FROM tandem_people.journal")
    insert = {
        Side.LEGACY: "INSERT INTO folk (folk_no, mail, nm) VALUES (3, '3@x', 'newer')",
        Side.NEW: "INSERT INTO people (id, email, name) VALUES (3, '3@x', 'newer')",
    }[secondary.other]
    told = await held_at(step, make_manager, phase, lambda: on[secondary.other](insert), source=secondary)
    assert told.outcomes == {"[3]": "changed meanwhile"}
    await manager.relay().drain(timeout_seconds=10)
    rows = await assert_equal_sides(people_databases)
    assert rows[2][2] == "newer"


@pytest.mark.invariant("I3")
@BOTH_AUTHORITIES
async def test_i3_change_of_the_secondary_between_look_and_repair_from_it(
    make_manager: MakeManager, on: dict[Side, Sql], *, phase: Phase
) -> None:
    """What is written is what was looked at, not what stands there a moment later."""
    await stocked(make_manager, on[Side.LEGACY], on[Side.NEW], phase)
    secondary = SECONDARY[phase]
    await on[secondary](WRONG[secondary])
    told = await held_at(
        "repair_looked", make_manager, phase, lambda: on[secondary](RIGHT[secondary]), source=secondary
    )
    assert told.outcomes == {"[3]": "changed meanwhile"}
    assert await on[secondary.other]("SELECT * FROM tandem_people.journal") == []


@pytest.mark.invariant("I4")
@BOTH_AUTHORITIES
@pytest.mark.parametrize(("source", "step"), [("first", "after_read"), ("second", "repair_confirmed")])
async def test_i4_cutover_between_look_and_repair(
    make_manager: MakeManager, on: dict[Side, Sql], *, phase: Phase, source: str, step: str
) -> None:
    await stocked(make_manager, on[Side.LEGACY], on[Side.NEW], phase)
    secondary = SECONDARY[phase]
    await on[secondary](WRONG[secondary])
    before = [await _state(sql) for sql in on.values()]

    async def cut_over() -> None:
        await on[secondary.other]("UPDATE tandem_people.mark SET state = 'closed', epoch = 2")
        await on[secondary]("UPDATE tandem_people.mark SET state = 'open', epoch = 2")

    with pytest.raises(FencedError):
        await held_at(
            step,
            make_manager,
            phase,
            cut_over,
            source=secondary if source == "second" else secondary.other,
        )
    assert [await _state(sql) for sql in on.values()] == before
    (row,) = await on[Side.NEW]("SELECT outcome FROM tandem_people.repair")
    assert row["outcome"] == "begun"


@pytest.mark.invariant("I8")
async def test_i8_key_that_fails_anew_between_carry_and_close_stays_failed(
    make_manager: MakeManager, on: dict[Side, Sql]
) -> None:
    strict = await stocked(make_manager, on[Side.LEGACY], on[Side.NEW], retry_attempts=1)
    await on[Side.LEGACY]("UPDATE folk SET cents = -1 WHERE folk_no = 3")
    await strict.relay().drain(timeout_seconds=10)
    await on[Side.LEGACY]("UPDATE folk SET cents = 5 WHERE folk_no = 3")
    await on[Side.LEGACY]("DELETE FROM tandem_people.journal")

    async def fail_anew() -> None:
        await on[Side.LEGACY]("UPDATE folk SET cents = -2 WHERE folk_no = 3")
        await strict.relay().drain(timeout_seconds=10)

    told = await held_at("after_target_commit", make_manager, Phase.DUALWRITE, fail_anew)
    assert told.outcomes == {"[3]": "refused"}
    assert [failure.key for failure in await strict.list_failures(limit=10)] == ["[3]"]


@BOTH_AUTHORITIES
async def test_two_repairs_at_once(
    make_manager: MakeManager, on: dict[Side, Sql], people_databases: Databases, *, phase: Phase
) -> None:
    manager = await stocked(make_manager, on[Side.LEGACY], on[Side.NEW], phase)
    before = await assert_equal_sides(people_databases)
    secondary = SECONDARY[phase]
    await on[secondary](WRONG[secondary])

    async def repair_too() -> None:
        assert (await repaired(manager, keys=["3"])).complete

    told = await held_at("after_read", make_manager, phase, repair_too)
    assert told.complete
    assert await assert_equal_sides(people_databases) == before
    assert await verdict(manager) is Verdict.EQUAL


@BOTH_AUTHORITIES
async def test_corruption_after_a_newer_carry_that_stopped_the_repairs_own(
    make_manager: MakeManager, on: dict[Side, Sql], people_databases: Databases, *, phase: Phase
) -> None:
    """The repair's apply is a no-op behind the guard, and yet the key is wrong: it is carried once more."""
    manager = await stocked(make_manager, on[Side.LEGACY], on[Side.NEW], phase)
    before = await assert_equal_sides(people_databases)
    secondary = SECONDARY[phase]
    await on[secondary](WRONG[secondary])

    async def repair_and_spoil() -> None:
        assert (await repaired(manager, keys=["3"])).complete
        await on[secondary](WRONG[secondary])

    told = await held_at("after_read", make_manager, phase, repair_and_spoil)
    assert told.outcomes == {"[3]": "repaired"}
    assert await assert_equal_sides(people_databases) == before


@pytest.mark.invariant("I1")
@BOTH_AUTHORITIES
async def test_i1_repair_beside_writers_and_relay_loses_no_write(
    make_manager: MakeManager, on: dict[Side, Sql], people_databases: Databases, *, phase: Phase
) -> None:
    """Writers, relay and repairs from both sides at once: each writer's last write is there in the end, on both."""
    manager = await stocked(make_manager, on[Side.LEGACY], on[Side.NEW], phase)
    repairing = await make_manager(phase, batch_size=1000)
    secondary = SECONDARY[phase]
    await keep_mismatches(on[Side.NEW], *[("person", n) for n in range(1, 13)])
    ended = asyncio.Event()

    async def write(number: int) -> None:
        for turn in range(25):
            done = await manager.write(
                "change",
                lambda work: work.update("person", (number,), {people.c.name: f"{number}-{turn}"}),  # noqa: B023
            )
            assert done.success, done.error

    async def carry() -> None:
        while not ended.is_set():
            await manager.relay().run_once()
            await asyncio.sleep(0)

    async def repair(source: Side) -> None:
        while not ended.is_set():
            await on[secondary](WRONG[secondary].replace("= 3", "= 1 + floor(random() * 12)::int"))
            keys = [str(n) for n in range(1, 13)]
            await repaired(repairing, keys=keys, source=source, patience_seconds=0.05)

    others = [asyncio.ensure_future(work) for work in (carry(), repair(secondary.other), repair(secondary))]
    await asyncio.gather(*(write(number) for number in range(1, 7)))
    ended.set()
    await asyncio.gather(*others)
    await manager.relay().drain(timeout_seconds=20)
    await repaired(repairing, keys=[str(n) for n in range(1, 13)])
    rows = await assert_equal_sides(people_databases)
    assert [row[2] for row in rows[:6]] == [f"{number}-24" for number in range(1, 7)]
    assert await verdict(manager) is Verdict.EQUAL


async def _state(sql: Sql) -> list[object]:
    tables = await sql("SELECT relname FROM pg_class WHERE relname IN ('folk', 'people') AND relkind = 'r'")
    return [await sql(f"SELECT * FROM {row['relname']} ORDER BY 1") for row in tables]
