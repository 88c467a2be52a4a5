"""`DUAL_WRITE_FOREIGN_WRITES`: what it says is what both marks say."""

from __future__ import annotations

import asyncpg
import pytest

from backend.shared import Phase, SideError
from backend.shared.dual_write_config import ForeignWrites
from backend.shared.testing.clusters import Cluster
from tests.support.conflicts import conflicts_on, mark_of
from tests.support.fixtures import MakeManager, Sql

REJECT = {"foreign_writes": ForeignWrites.REJECT}


async def test_both_marks_say_it_from_the_installation_on(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    await make_manager(Phase.RAMPDOWN, foreign_writes=ForeignWrites.REJECT)
    assert (await mark_of(legacy_sql), await mark_of(new_sql)) == ("reject", "reject")
    with pytest.raises(asyncpg.PostgresError, match="write to the other one"):
        await legacy_sql("INSERT INTO folk (mail) VALUES ('x')")
    await new_sql("INSERT INTO people (email) VALUES ('x')")


async def test_a_process_sets_it_to_what_its_settings_say_when_it_starts(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    manager = await make_manager(Phase.RAMPDOWN, foreign_writes=ForeignWrites.REJECT)
    await manager.close()
    for sql in (legacy_sql, new_sql):
        await sql("UPDATE tandem_people.mark SET foreign_writes = 'report'")
    manager.runtime.following.counted = False  # a command that only looks
    await manager.start()
    assert (await mark_of(legacy_sql), await mark_of(new_sql)) == ("report", "report")
    await manager.close()
    manager.runtime.following.counted = True
    await manager.start()
    assert (await mark_of(legacy_sql), await mark_of(new_sql)) == ("reject", "reject")


async def test_a_change_holds_at_once_on_both_sides_and_outlives_installation_and_start(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    manager = await make_manager(Phase.RAMPDOWN)
    await legacy_sql("INSERT INTO folk (folk_no, mail) VALUES (1, 'x')")
    assert len(await conflicts_on(legacy_sql)) == 1
    view = await manager.change_config(REJECT)
    assert view.changed == ("foreign_writes",)
    assert (await mark_of(legacy_sql), await mark_of(new_sql)) == ("reject", "reject")
    with pytest.raises(asyncpg.PostgresError, match="closed"):
        await legacy_sql("INSERT INTO folk (folk_no, mail) VALUES (2, 'y')")
    assert len(await conflicts_on(legacy_sql)) == 1
    other = await make_manager(Phase.RAMPDOWN, foreign_writes=ForeignWrites.REPORT)
    assert other.settings.foreign_writes is ForeignWrites.REJECT
    assert (await mark_of(legacy_sql), await mark_of(new_sql)) == ("reject", "reject")


@pytest.mark.parametrize("down", ["legacy", "new"])
async def test_with_a_side_down_nothing_is_changed(
    make_manager: MakeManager,
    legacy_sql: Sql,
    new_sql: Sql,
    legacy_cluster: Cluster,
    services_cluster: Cluster,
    down: str,
) -> None:
    manager = await make_manager(Phase.RAMPDOWN)
    cluster = legacy_cluster if down == "legacy" else services_cluster
    cluster.stop()
    try:
        with pytest.raises(SideError) as error:
            await manager.change_config(REJECT)
    finally:
        cluster.start()
    assert error.value.side.value == down
    assert (await mark_of(legacy_sql), await mark_of(new_sql)) == ("report", "report")
    assert await new_sql("SELECT 1 FROM tandem_people.control WHERE settings <> '{}'") == []
    assert manager.settings.foreign_writes is ForeignWrites.REPORT
