"""Reads that the other side answers, because the authoritative one fails or has no such row."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from backend.shared import (
    FencedError,
    NotFoundError,
    Phase,
    Side,
    SideError,
    Unit,
    UnitOfWork,
    phase_follower,
)
from backend.shared.dual_write_config import ReadFallback
from backend.shared.testing.clusters import Cluster, Databases
from tests.support.fixtures import BOTH_AUTHORITIES, MakeManager, Sql
from tests.support.people import people
from tests.support.reading import Plant, add_ann, known_person, name_of, person, reads, renamed

DUAL = [phase for phase in Phase if phase.policy.dual]
KEY = (77,)


@pytest.mark.parametrize("fallback", list(ReadFallback))
@pytest.mark.parametrize("phase", list(Phase))
async def test_the_authoritative_side_fails(
    make_manager: MakeManager, plant: Plant, phase: Phase, fallback: ReadFallback
) -> None:
    manager = await make_manager(phase, dual_read_fallback=fallback, shadow_read_sample_rate=1.0)
    first = phase.policy.authoritative
    await plant.person(first.other, KEY, "there")
    await plant.breakage(first)
    if fallback is ReadFallback.OFF or not phase.policy.dual:
        with pytest.raises(SideError) as caught:
            await name_of(manager, KEY)
        assert caught.value.side is first
        assert reads(manager) == {first.value: {"failed": 1}}
    else:
        assert await name_of(manager, KEY) == "there"
        assert reads(manager) == {first.other.value: {"fallback_error": 1}}


async def test_the_authoritative_server_is_away(make_manager: MakeManager, legacy_cluster: Cluster) -> None:
    manager = await make_manager(Phase.DUALWRITE, dual_read_fallback=ReadFallback.ERROR)
    key = await add_ann(manager)
    legacy_cluster.stop()
    try:
        with capture_logs() as logs:
            for _ in range(10):
                assert await name_of(manager, key) == "Ann"
        (line,) = [line for line in logs if line["event"] == "read_fell_back"]
        assert line["asked"] == "new"
        assert "legacy side" in line["error"]
        assert reads(manager)["new"] == {"fallback_error": 10}
    finally:
        legacy_cluster.start()


@BOTH_AUTHORITIES
async def test_what_the_other_side_lacks_may_merely_not_have_arrived(
    make_manager: MakeManager, plant: Plant, *, phase: Phase
) -> None:
    """So the caller hears that nobody can tell, and not that there is no such thing."""
    manager = await make_manager(phase, dual_read_fallback=ReadFallback.ERROR)
    await plant.breakage(phase.policy.authoritative)
    for unit in (person(KEY), known_person(KEY)):
        with pytest.raises(SideError) as caught:
            await manager.read(unit, entity="person", key=KEY)
        assert caught.value.side is phase.policy.authoritative


async def test_both_sides_fail(make_manager: MakeManager, plant: Plant) -> None:
    manager = await make_manager(dual_read_fallback=ReadFallback.ERROR)
    for side in Side:
        await plant.breakage(side)
    with pytest.raises(SideError) as caught:
        await name_of(manager, KEY)
    assert caught.value.side is Side.LEGACY
    assert reads(manager) == {"legacy": {"failed": 1}}


async def test_a_refusal_is_no_failure_of_the_side(make_manager: MakeManager) -> None:
    manager = await make_manager(dual_read_fallback=ReadFallback.MISSING)

    async def unit(work: UnitOfWork) -> object:
        if work.side is Side.LEGACY:
            await work.execute(text("SELECT 1 / 0"))
        return "there"

    with pytest.raises(SideError) as caught:
        await manager.read(unit)
    assert not caught.value.unavailable


async def test_without_any_authority_nobody_is_believed(
    make_manager: MakeManager, plant: Plant, legacy_sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a cutover nobody knows which side is which."""
    monkeypatch.setattr(phase_follower, "FENCED_SECONDS", 0.1)
    manager = await make_manager(dual_read_fallback=ReadFallback.MISSING)
    await plant.person(Side.NEW, KEY, "there")
    await legacy_sql("UPDATE tandem_people.mark SET state = 'closed'")
    with pytest.raises(FencedError):
        await name_of(manager, KEY)


@pytest.mark.parametrize("unit", [person(KEY), known_person(KEY)], ids=["answers None", "raises"])
@pytest.mark.parametrize("fallback", list(ReadFallback))
@pytest.mark.parametrize("phase", list(Phase))
async def test_the_authoritative_side_has_no_such_row(
    make_manager: MakeManager, plant: Plant, phase: Phase, fallback: ReadFallback, unit: Unit[dict[str, Any]]
) -> None:
    manager = await make_manager(phase, dual_read_fallback=fallback, shadow_read_sample_rate=0.0)
    first = phase.policy.authoritative
    await plant.person(first.other, KEY, "there")
    if fallback is ReadFallback.MISSING and phase.policy.dual:
        found = await manager.read(unit, entity="person", key=KEY)
        assert found["name"] == "there"
        assert reads(manager) == {first.other.value: {"fallback_missing": 1}}
        return
    with suppress(NotFoundError):
        assert await manager.read(unit, entity="person", key=KEY) is None
    assert reads(manager) == {first.value: {"authoritative": 1}}


@pytest.mark.parametrize("phase", DUAL)
async def test_missing_on_both_sides_is_missing(make_manager: MakeManager, phase: Phase) -> None:
    manager = await make_manager(phase, dual_read_fallback=ReadFallback.MISSING)
    with pytest.raises(NotFoundError):
        await manager.read(known_person(KEY), entity="person", key=KEY)
    assert await name_of(manager, KEY) is None
    assert reads(manager)[phase.policy.authoritative.value] == {"authoritative": 2}


@BOTH_AUTHORITIES
@pytest.mark.parametrize(
    "subject", [{"entity": "person", "key": KEY}, {"entity": "person"}, {"key": "x"}, {}]
)
async def test_a_key_on_its_way_is_not_asked_for(
    make_manager: MakeManager, plant: Plant, subject: dict[str, Any], *, phase: Phase
) -> None:
    """It was deleted, and the other side has not heard of that."""
    manager = await make_manager(phase, dual_read_fallback=ReadFallback.MISSING)
    values = {people.c.id: KEY[0], people.c.email: "a@example.org"}
    await manager.write("add", lambda work: work.insert("person", values))
    assert await manager.relay().drain(timeout_seconds=10)
    await manager.write("remove", lambda work: work.delete("person", KEY))
    assert await manager.read(person(KEY), **subject) is None
    assert await manager.relay().drain(timeout_seconds=10)
    assert await manager.read(person(KEY), **subject) is None
    # Then it is known that it should not be there, and whoever put it there behind the engine's back is believed.
    await plant.person(phase.policy.authoritative.other, KEY, "there")
    assert await manager.read(person(KEY), **subject) is not None


async def test_another_key_on_its_way_does_not_matter_where_one_is_named(
    make_manager: MakeManager, plant: Plant
) -> None:
    manager = await make_manager(dual_read_fallback=ReadFallback.MISSING, shadow_read_sample_rate=0.0)
    await plant.person(Side.NEW, KEY, "there")
    await manager.write("add", lambda work: work.insert("person", {people.c.email: "b@example.org"}))
    assert await name_of(manager, KEY) == "there"
    assert await manager.read(person(KEY), entity="person") is None
    assert await manager.read(person(KEY), key="anything") is None
    assert await manager.read(person(KEY)) is None


async def test_a_unit_that_asks_past_the_shape_needs_an_empty_journal(
    make_manager: MakeManager, legacy_sql: Sql
) -> None:
    manager = await make_manager(dual_read_fallback=ReadFallback.MISSING)

    async def unit(work: UnitOfWork) -> object:
        return None if work.side is Side.LEGACY else "there"

    assert await manager.read(unit) == "there"
    await legacy_sql("INSERT INTO tandem_people.journal (entity, key) VALUES ('note', '[1]')")
    assert await manager.read(unit) is None
    assert await manager.read(unit, entity="person") is None
    assert await manager.read(unit, entity="person", key=KEY) == "there"


async def test_a_deletion_that_could_not_be_carried(
    make_manager: MakeManager, plant: Plant, new_sql: Sql
) -> None:
    manager = await make_manager(dual_read_fallback=ReadFallback.MISSING, retry_attempts=1)
    key = await add_ann(manager)
    await new_sql(
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$"
    )
    await new_sql("CREATE TRIGGER no BEFORE DELETE ON people FOR EACH ROW EXECUTE FUNCTION no()")
    await manager.write("remove", lambda work: work.delete("person", key))
    await manager.relay().run_once()
    status = await manager.status()
    assert (status.journal_rows, status.failures_open) == (0, 1)
    assert await name_of(manager, key) is None


@pytest.mark.parametrize("fallback", [ReadFallback.ERROR, ReadFallback.MISSING])
async def test_where_nothing_is_carried_nothing_is_asked(
    make_manager: MakeManager, plant: Plant, fallback: ReadFallback
) -> None:
    manager = await make_manager(dual_read_fallback=fallback, enabled=False)
    await plant.person(Side.NEW, KEY, "there")
    assert await name_of(manager, KEY) is None
    await plant.breakage(Side.LEGACY)
    with pytest.raises(SideError):
        await name_of(manager, KEY)


async def test_the_other_side_fails_too_where_the_row_is_missing(
    make_manager: MakeManager, plant: Plant
) -> None:
    manager = await make_manager(dual_read_fallback=ReadFallback.MISSING)
    await plant.breakage(Side.NEW)
    assert await name_of(manager, KEY) is None
    assert reads(manager) == {"legacy": {"authoritative": 1}}


@BOTH_AUTHORITIES
async def test_the_other_side_is_read_and_never_written(
    make_manager: MakeManager, plant: Plant, people_databases: Databases, *, phase: Phase
) -> None:
    """A unit that writes, by mistake: a carry's marks or a foreign program's way in are not open to it."""
    manager = await make_manager(phase, dual_read_fallback=ReadFallback.ERROR)
    first = phase.policy.authoritative
    await plant.person(first.other, KEY, "there")
    await plant.breakage(first)
    with pytest.raises(SideError):
        await manager.read(renamed(KEY, "written"), entity="person", key=KEY)
    async with manager.runtime.runners[first.other].transaction(
        request_id="x", only_reads=True, even_if_closed=True
    ) as transaction:
        with pytest.raises(Exception, match="read-only transaction"):
            await transaction.work.execute(text("UPDATE notes SET body = ''"))
