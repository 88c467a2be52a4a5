"""Settling beside carries, writers, cutovers, crashes and other operators. Each test is named for its interleaving."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from backend.shared import ConflictError, FencedError, Phase, Side, Unit
from backend.shared.observability.admin_views import SettlementView
from backend.shared.testing.clusters import Databases
from tests.support.conflicts import Foreign, conflicts_on, opened, seeded
from tests.support.fixtures import MakeManager, Sql
from tests.support.people import PeopleManager, people
from tests.support.state import assert_equal_sides, both_sides
from tests.support.steps import Crash, CrashAt, PauseAt

FOREIGN = "UPDATE folk SET nm = 'foreign' WHERE folk_no = 3"


@pytest.fixture
def on(legacy_sql: Sql, new_sql: Sql) -> Foreign:
    return {Side.LEGACY: legacy_sql, Side.NEW: new_sql}


async def held_at(
    step: str,
    make_manager: MakeManager,
    on: Foreign,
    act: Callable[[], Awaitable[Any]],
    *,
    keep: Side,
) -> tuple[SettlementView, PeopleManager]:
    """A foreign write of person 3 is settled; `act` is run while that stands at `step`."""
    await seeded(make_manager, on, Phase.RAMPDOWN)
    await on[Side.LEGACY](FOREIGN)
    pause = PauseAt(step)
    manager = await make_manager(Phase.RAMPDOWN, hook=pause)
    (conflict,) = await manager.list_conflicts(limit=10)
    settling = asyncio.ensure_future(manager.settle_conflict(conflict.id, keep=keep, by="ada"))
    await asyncio.wait_for(pause.reached.wait(), timeout=10)
    try:
        await act()
    finally:
        pause.resume.set()
    return await settling, manager


@pytest.mark.parametrize("step", ["conflict_tried", "conflict_compared"])
async def test_write_of_another_field_between_trial_and_write(
    make_manager: MakeManager, on: Foreign, people_databases: Databases, step: str
) -> None:
    """The authoritative row is tried again as it is then: neither write is lost."""

    async def write() -> None:
        await on[Side.NEW]("UPDATE people SET email = 'newer@x' WHERE id = 3")

    done, manager = await held_at(step, make_manager, on, write, keep=Side.LEGACY)
    assert done.settled, done
    assert await manager.relay().drain(timeout_seconds=10)
    assert (await assert_equal_sides(people_databases))[2][1:3] == ("newer@x", "foreign")


async def test_delete_between_trial_and_write(
    make_manager: MakeManager, on: Foreign, people_databases: Databases
) -> None:
    async def delete() -> None:
        await on[Side.NEW]("DELETE FROM people WHERE id = 3")

    done, manager = await held_at("conflict_tried", make_manager, on, delete, keep=Side.LEGACY)
    assert done.settled, done
    assert await manager.relay().drain(timeout_seconds=10)
    assert (await assert_equal_sides(people_databases))[2][:3] == (3, "3@x", "foreign")


@pytest.mark.invariant("I4")
@pytest.mark.parametrize("and_back", [False, True], ids=["there", "there_and_back"])
@pytest.mark.parametrize("keep", list(Side))
async def test_i4_cutover_between_trial_and_write(
    make_manager: MakeManager, on: Foreign, people_databases: Databases, *, keep: Side, and_back: bool
) -> None:
    """The write is asserted against the epoch in which it was decided: not made on a side that is, or was, closed since."""
    other: list[PeopleManager] = []

    async def cut_over() -> None:
        other.append(await make_manager(Phase.RAMPDOWN))
        await opened(other[0], Phase.SHADOW)
        if and_back:
            await opened(other[0], Phase.LIVE)

    step = "conflict_tried" if keep is Side.LEGACY else "conflict_settling"
    with pytest.raises(FencedError):
        await held_at(step, make_manager, on, cut_over, keep=keep)
    (kept,) = await conflicts_on(on[Side.LEGACY])
    assert kept.state == "open"
    assert await on[Side.NEW]("SELECT 1 FROM people WHERE name = 'foreign'") == []
    assert await on[Side.NEW]("SELECT 1 FROM tandem_people.journal") == []
    done = await other[0].settle_conflict(f"people-legacy-{kept.id}", keep=keep)
    assert done.settled, done
    assert await other[0].relay().drain(timeout_seconds=10)
    expected = "foreign" if keep is Side.LEGACY else "name 3"
    assert (await assert_equal_sides(people_databases))[2][2] == expected


async def test_two_operators_at_once(
    make_manager: MakeManager, on: Foreign, people_databases: Databases
) -> None:
    """One wins; the other is told so at once, and later that it was settled the other way."""
    refusals: list[str] = []

    async def settle_too() -> None:
        other = await make_manager(Phase.RAMPDOWN)
        (conflict,) = await other.list_conflicts(limit=10)
        with pytest.raises(ConflictError, match="somebody else settles") as refused:
            await other.settle_conflict(conflict.id, keep=Side.NEW, by="bob")
        refusals.append(str(refused.value))

    done, manager = await held_at("conflict_compared", make_manager, on, settle_too, keep=Side.LEGACY)
    assert done.settled
    assert refusals == [f"somebody else settles {done.id} just now"]
    with pytest.raises(ConflictError, match="was settled by ada: kept legacy"):
        await manager.settle_conflict(done.id, keep=Side.NEW, by="bob")
    assert await manager.relay().drain(timeout_seconds=10)
    assert (await assert_equal_sides(people_databases))[2][2] == "foreign"


@pytest.mark.invariant("I7")
@pytest.mark.parametrize(
    ("step", "keep"),
    [
        ("conflict_held", Side.LEGACY),
        ("conflict_tried", Side.LEGACY),
        ("conflict_compared", Side.LEGACY),
        ("conflict_written", Side.LEGACY),
        ("conflict_done", Side.LEGACY),
        ("conflict_journalled", Side.NEW),
        ("conflict_done", Side.NEW),
    ],
)
async def test_i7_crash_while_it_is_settled_and_once_more(
    make_manager: MakeManager, on: Foreign, people_databases: Databases, *, step: str, keep: Side
) -> None:
    """It stays open; what the authority wrote since is not overwritten by settling it again."""
    await seeded(make_manager, on, Phase.RAMPDOWN)
    await on[Side.LEGACY](FOREIGN)
    crash = CrashAt(step)
    manager = await make_manager(Phase.RAMPDOWN, hook=crash)
    (conflict,) = await manager.list_conflicts(limit=10)
    with pytest.raises(Crash):
        await manager.settle_conflict(conflict.id, keep=keep, by="ada")
    assert crash.reached
    (kept,) = await conflicts_on(on[Side.LEGACY])
    assert kept.state == "open"
    was_written = step in ("conflict_written", "conflict_done") and keep is Side.LEGACY
    if was_written:
        await on[Side.NEW]("UPDATE people SET name = 'newer' WHERE id = 3")
    again = await make_manager(Phase.RAMPDOWN)
    assert (await again.settle_conflict(conflict.id, keep=keep, by="ada")).settled
    assert await again.relay().drain(timeout_seconds=10)
    expected = "newer" if was_written else "foreign" if keep is Side.LEGACY else "name 3"
    assert (await assert_equal_sides(people_databases))[2][2] == expected


async def test_foreign_write_between_read_and_apply_of_a_carry(
    make_manager: MakeManager, on: Foreign, people_databases: Databases
) -> None:
    """The carry overwrites it, and its images are kept."""
    pause = PauseAt("after_read")
    await seeded(make_manager, on, Phase.RAMPDOWN)
    manager = await make_manager(Phase.RAMPDOWN, hook=pause)
    await on[Side.NEW]("UPDATE people SET credit = 8 WHERE id = 3")
    carrying = asyncio.ensure_future(manager.relay().run_once())
    await asyncio.wait_for(pause.reached.wait(), timeout=10)
    await on[Side.LEGACY](FOREIGN)
    pause.resume.set()
    assert (await carrying).carried == 1
    assert (await assert_equal_sides(people_databases))[2][2] == "name 3"
    (kept,) = await conflicts_on(on[Side.LEGACY], state="open")
    assert (kept.before["nm"], kept.before["cents"], kept.after["nm"]) == ("name 3", 300, "foreign")


async def test_foreign_write_waits_for_the_row_of_a_carry(
    make_manager: MakeManager, on: Foreign, people_databases: Databases
) -> None:
    """What it changes is what the carry has left: that is the image before."""
    pause = PauseAt("before_target_commit")
    await seeded(make_manager, on, Phase.RAMPDOWN)
    manager = await make_manager(Phase.RAMPDOWN, hook=pause)
    await on[Side.NEW]("UPDATE people SET credit = 8, name = 'carried' WHERE id = 3")
    carrying = asyncio.ensure_future(manager.relay().run_once())
    await asyncio.wait_for(pause.reached.wait(), timeout=10)
    writing = asyncio.ensure_future(on[Side.LEGACY](FOREIGN))
    await _until_somebody_waits(people_databases.legacy_url)
    pause.resume.set()
    await carrying
    await writing
    (kept,) = await conflicts_on(on[Side.LEGACY], state="open")
    assert (kept.before["nm"], kept.before["cents"], kept.after["nm"]) == ("carried", 800, "foreign")
    legacy, _ = await both_sides(people_databases)
    assert legacy[2][2] == "foreign"


async def test_foreign_write_while_its_key_is_carried_to_settle_an_older_one(
    make_manager: MakeManager, on: Foreign, people_databases: Databases
) -> None:
    """The older one is settled, the newer one is a conflict of its own."""

    async def write_again() -> None:
        await manager_of_relay.relay().drain(timeout_seconds=10)
        await on[Side.LEGACY]("UPDATE folk SET nm = 'foreign again' WHERE folk_no = 3")

    manager_of_relay = await make_manager(Phase.RAMPDOWN)
    done, manager = await held_at("conflict_journalled", make_manager, on, write_again, keep=Side.NEW)
    assert done.settled, done
    (left,) = await conflicts_on(on[Side.LEGACY], state="open")
    assert (left.before["nm"], left.after["nm"]) == ("name 3", "foreign again")
    assert (await manager.settle_conflict(f"people-legacy-{left.id}", keep=Side.NEW)).settled
    assert (await assert_equal_sides(people_databases))[2][2] == "name 3"


async def test_unit_and_settling_of_the_same_key_under_load(
    make_manager: MakeManager, on: Foreign, people_databases: Databases
) -> None:
    """Neither field is ever lost, whoever comes first."""
    manager = await seeded(make_manager, on, Phase.RAMPDOWN)
    for number in range(5):
        await on[Side.LEGACY](f"UPDATE folk SET nm = 'foreign {number}' WHERE folk_no = 3")
        conflict = (await manager.list_conflicts(limit=1))[0]
        settled, written = await asyncio.gather(
            manager.settle_conflict(conflict.id, keep=Side.LEGACY),
            manager.write("mail", mailed(f"{number}@y")),
        )
        assert settled.settled, settled
        assert written.success, written.error
        assert await manager.relay().drain(timeout_seconds=10)
        row = (await assert_equal_sides(people_databases))[2]
        assert row[1:3] == (f"{number}@y", f"foreign {number}")


def mailed(mail: str) -> Unit[bool]:
    return lambda work: work.update("person", (3,), {people.c.email: mail})


async def _until_somebody_waits(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for _ in range(1000):
            if await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            ):
                return
            await asyncio.sleep(0.01)
        raise AssertionError("nobody waits")
    finally:
        await connection.close()
