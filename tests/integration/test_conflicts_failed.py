"""Keys that are FAILED when their side is closed become conflicts, with what both sides hold."""

from __future__ import annotations

import time

import pytest

from backend.shared import Phase, Side
from backend.shared.migration import failed_keys
from backend.shared.migration.cutover import ChangeGivenUpError
from backend.shared.testing.clusters import Databases
from tests.support.conflicts import Foreign, conflicts_on, opened, seeded, settled_all
from tests.support.fixtures import MakeManager, Sql
from tests.support.people import PeopleManager
from tests.support.state import assert_equal_sides


@pytest.fixture
def on(legacy_sql: Sql, new_sql: Sql) -> Foreign:
    return {Side.LEGACY: legacy_sql, Side.NEW: new_sql}


async def cut_over_with_failures(make_manager: MakeManager, on: Foreign) -> PeopleManager:
    manager = await seeded(make_manager, on, Phase.DUALWRITE, retry_attempts=1)
    await on[Side.LEGACY]("UPDATE folk SET cents = -500, nm = 'in debt' WHERE folk_no = 3")
    await on[Side.LEGACY]("UPDATE folk SET born = 'never' WHERE folk_no = 4")
    await on[Side.LEGACY]("INSERT INTO folk (folk_no, mail, cents) VALUES (77, 'poor@x', -1)")
    assert await manager.relay().drain(timeout_seconds=10)
    assert len(await manager.list_failures(limit=10)) == 3
    await opened(manager, Phase.LIVE)
    return manager


@pytest.mark.invariant("I8")
async def test_i8_failed_keys_become_conflicts_when_their_side_is_closed(
    make_manager: MakeManager, on: Foreign
) -> None:
    manager = await cut_over_with_failures(make_manager, on)
    found = {item.key: item for item in await conflicts_on(on[Side.LEGACY])}
    assert found.keys() == {"[3]", "[4]", "[77]"}
    debt = found["[3]"]
    assert (debt.operation, debt.source_table) == ("failed", "folk")
    assert debt.before["people"][0]["name"] == "name 3"
    assert debt.before["profiles"] == [{"person_id": 3, "city": "city 3"}]
    assert debt.after["folk"][0]["cents"] == -500
    assert "people_credit_check" in str(debt.detail)
    assert found["[77]"].before == {}
    rows = await on[Side.LEGACY]("SELECT state, closed_by FROM tandem_people.failure")
    assert {tuple(row) for row in rows} == {("closed", "cutover")}
    shown = {item.key: item for item in await manager.list_conflicts(limit=10, show_values=True)}
    fields = {item.field: (item.before, item.after) for item in shown["[3]"].fields}
    assert fields["folk.nm"] == (None, "in debt")
    assert fields["people.name"] == ("name 3", None)
    assert fields["people.credit"] == ("***", None)


async def test_settled_for_the_side_that_was_opened(
    make_manager: MakeManager, on: Foreign, people_databases: Databases
) -> None:
    manager = await cut_over_with_failures(make_manager, on)
    done = await settled_all(manager, Side.NEW)
    assert {item.outcome for item in done} == {"settled"}, done
    assert await manager.relay().drain(timeout_seconds=10)
    rows = await assert_equal_sides(people_databases)
    assert [row[0] for row in rows] == list(range(1, 13))
    assert rows[2][2] == "name 3"


async def test_settled_for_the_side_that_was_closed_once_the_other_one_takes_it(
    make_manager: MakeManager, on: Foreign, people_databases: Databases
) -> None:
    """The state that was kept, though carries have overwritten it since; and only what it changed."""
    manager = await cut_over_with_failures(make_manager, on)
    refused = {item.key: item for item in await settled_all(manager, Side.LEGACY)}
    assert {item.outcome for item in refused.values()} == {"refused"}
    assert "people_credit_check" in refused["[3]"].detail
    await on[Side.NEW]("UPDATE people SET email = 'newer@x' WHERE id = 3")
    assert await manager.relay().drain(timeout_seconds=10)
    await on[Side.NEW]("ALTER TABLE people DROP CONSTRAINT people_credit_check")
    done = {item.key: item.outcome for item in await settled_all(manager, Side.LEGACY)}
    assert done == {"[3]": "settled", "[77]": "settled", "[4]": "refused"}
    assert await manager.relay().drain(timeout_seconds=10)
    (row,) = await on[Side.NEW]("SELECT email, name, credit::text FROM people WHERE id = 3")
    assert tuple(row) == ("newer@x", "in debt", "-5.00")
    (row,) = await on[Side.LEGACY]("SELECT mail, nm, cents FROM folk WHERE folk_no = 3")
    assert tuple(row) == ("newer@x", "in debt", -500)
    await settled_all(manager, Side.NEW)
    assert len(await assert_equal_sides(people_databases)) == 13


@pytest.mark.parametrize("keep", list(Side))
async def test_settled_after_the_way_back(
    make_manager: MakeManager, on: Foreign, people_databases: Databases, *, keep: Side
) -> None:
    manager = await cut_over_with_failures(make_manager, on)
    await on[Side.NEW]("UPDATE people SET email = 'newer@x' WHERE id = 3")
    assert await manager.relay().drain(timeout_seconds=10)
    await on[Side.NEW]("ALTER TABLE people DROP CONSTRAINT people_credit_check")
    await opened(manager, Phase.SHADOW)
    await on[Side.LEGACY]("UPDATE tandem_people.conflict SET state = 'settled' WHERE key <> '[3]'")
    (done,) = await settled_all(manager, keep)
    assert done.settled, done
    assert await manager.relay().drain(timeout_seconds=10)
    (row,) = await on[Side.LEGACY]("SELECT nm, cents FROM folk WHERE folk_no = 3")
    assert tuple(row) == (("in debt", -500) if keep is Side.LEGACY else ("name 3", 300))
    (row,) = await on[Side.NEW]("SELECT name, credit::text FROM people WHERE id = 3")
    assert tuple(row) == (("in debt", "-5.00") if keep is Side.LEGACY else ("name 3", "3.00"))


async def test_thousands_are_kept_in_batches_and_too_many_stop_the_cutover(
    make_manager: MakeManager, on: Foreign, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = await make_manager(Phase.DUALWRITE, batch_size=1000)
    await on[Side.LEGACY](
        "INSERT INTO folk (folk_no, mail) SELECT n, n || '@x' FROM generate_series(1, 3000) AS n"
    )
    assert await manager.relay().drain(timeout_seconds=20)
    await on[Side.LEGACY](
        "INSERT INTO tandem_people.failure (entity, key, direction, attempts, reason, captured_at) "
        "SELECT 'person', '[' || n || ']', 'to_new', 3, 'refused', now() FROM generate_series(1, 3000) AS n"
    )
    monkeypatch.setattr(failed_keys, "MOST_KEYS", 2000)
    with pytest.raises(ChangeGivenUpError, match="more than 2000 keys could not be carried"):
        await opened(manager, Phase.LIVE)
    assert manager.phase is Phase.SHADOW
    assert await conflicts_on(on[Side.LEGACY]) == []
    monkeypatch.undo()
    started = time.perf_counter()
    await opened(manager, Phase.LIVE)
    assert time.perf_counter() - started < 10
    assert len(await conflicts_on(on[Side.LEGACY], state="open")) == 3000
    assert (await manager.overview()).conflicts_open == 3000
