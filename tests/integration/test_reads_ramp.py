"""Reads that move to the new side for a share of the keys, before the cutover."""

from __future__ import annotations

from typing import Any

import pytest

from backend.shared import ConfigurationError, Key, Phase, Side, UnitOfWork
from backend.shared.read_sides import OPEN_ROWS_MOST, Subject
from backend.shared.reads import is_ramped
from backend.shared.testing.clusters import Databases
from tests.support.fixtures import MakeManager, Sql
from tests.support.people import PeopleManager, notes, people
from tests.support.reading import Plant, add_ann, name_of, person, reads, renamed

KEYS = [(number,) for number in range(1, 101)]
MADE = (
    "INSERT INTO folk (folk_no, mail, nm) SELECT n, n || '@example.org', 'n' FROM generate_series(1, 100) n"
)


async def answered_by_new(manager: PeopleManager) -> set[Key]:
    """The keys that are read from the new side, where every name was changed by hand."""
    return {key for key in KEYS if await name_of(manager, key) == "planted"}


async def test_a_share_of_the_keys_stable_and_growing(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    found: dict[float, set[Key]] = {}
    for share in (0.0, 0.3, 0.6, 1.0):
        manager = await make_manager(Phase.SHADOW, new_read_share=share, shadow_read_sample_rate=0.0)
        if share == 0.0:
            await legacy_sql(MADE)
            assert await manager.relay().drain(timeout_seconds=10)
            await new_sql("UPDATE people SET name = 'planted'")
        found[share] = await answered_by_new(manager)
        assert found[share] == await answered_by_new(manager)
        counted = reads(manager)
        assert counted.get("new", {}).get("ramped", 0) == 2 * len(found[share])
        assert counted.get("legacy", {}).get("authoritative", 0) == 2 * (100 - len(found[share]))
    assert found[0.0] == set()
    assert found[0.0] < found[0.3] < found[0.6] < found[1.0] == set(KEYS)
    assert 15 <= len(found[0.3]) <= 45


def test_the_share_goes_by_entity_and_key() -> None:
    subjects = [Subject(entity="person", key=f"[{n}]", is_entity_key=True) for n in range(10_000)]
    share = sum(is_ramped(subject, share=0.1) for subject in subjects) / len(subjects)
    assert 0.08 < share < 0.12
    others = [Subject(entity="note", key=f"[{n}]", is_entity_key=True) for n in range(10_000)]
    assert [is_ramped(one, share=0.1) for one in subjects] != [is_ramped(one, share=0.1) for one in others]
    # Every replica, of every version, has to choose the same keys.
    assert [n for n in range(100) if is_ramped(subjects[n], share=0.05)] == [7, 17, 23, 33, 39, 53, 90]
    assert not is_ramped(Subject(entity="person"), share=1.0)


async def test_without_a_key_never(make_manager: MakeManager, people_databases: Databases) -> None:
    manager = await make_manager(Phase.SHADOW, new_read_share=1.0, shadow_read_sample_rate=0.0)
    key = await add_ann(manager)
    await Plant(people_databases).name(Side.NEW, key, "planted")
    for subject in ({}, {"entity": "person"}):
        found = await manager.read(person(key), **subject)
        assert found is not None
        assert found["name"] == "Ann"
    assert reads(manager) == {"legacy": {"authoritative": 2}}


async def test_by_a_text_that_is_no_key_of_an_entity(
    make_manager: MakeManager, people_databases: Databases
) -> None:
    manager = await make_manager(Phase.SHADOW, new_read_share=1.0, shadow_read_sample_rate=0.0)
    key = await add_ann(manager)
    await Plant(people_databases).name(Side.NEW, key, "planted")
    for subject in ({"key": "ann"}, {"entity": "person", "key": "ann"}):
        found = await manager.read(person(key), **subject)
        assert found is not None
        assert found["name"] == "planted"
    await manager.write("add", lambda work: work.insert("person", {people.c.email: "bea@example.org"}))
    for subject in ({"key": "ann"}, {"entity": "person", "key": "ann"}):
        found = await manager.read(person(key), **subject)
        assert found is not None
        assert found["name"] == "Ann"  # any person may be meant
    assert reads(manager) == {"new": {"ramped": 2}, "legacy": {"ramp_pending": 2}}


@pytest.mark.parametrize("phase", list(Phase))
async def test_in_the_phase_shadow_only(
    make_manager: MakeManager, people_databases: Databases, phase: Phase
) -> None:
    manager = await make_manager(phase, new_read_share=1.0, shadow_read_sample_rate=0.0)
    side = phase.policy.authoritative
    await Plant(people_databases).person(side, (7,), "here")
    await Plant(people_databases).person(side.other, (7,), "there")
    if phase.policy.dual:
        for at in Side:  # what was planted is not to be carried
            await Sql(people_databases.new_url if at is Side.NEW else people_databases.legacy_url)(
                "DELETE FROM tandem_people.journal"
            )
    assert await name_of(manager, (7,)) == ("there" if phase is Phase.SHADOW else "here")


async def test_own_writes_are_read(make_manager: MakeManager) -> None:
    manager = await make_manager(Phase.SHADOW, new_read_share=1.0, shadow_read_sample_rate=0.0)
    key = await add_ann(manager)
    for number in range(5):
        await manager.write("change", renamed(key, f"n{number}"))
        assert await name_of(manager, key) == f"n{number}"
    assert reads(manager) == {"legacy": {"ramp_pending": 5}}
    assert await manager.relay().drain(timeout_seconds=10)
    assert await name_of(manager, key) == "n4"
    assert reads(manager)["new"] == {"ramped": 1}


async def test_what_else_the_unit_reads_counts_too(make_manager: MakeManager) -> None:
    """A person with her notes: a note that is on its way has a key that nobody has named."""
    manager = await make_manager(Phase.SHADOW, new_read_share=1.0, shadow_read_sample_rate=0.0)
    key = await add_ann(manager)

    async def with_notes(work: UnitOfWork) -> tuple[dict[str, Any] | None, int]:
        relation = work.shape(notes)
        found = await work.rows(relation.select().where(relation.c.person_id == key[0]))
        return await work.get("person", key), len(found)

    await manager.write(
        "note", lambda work: work.insert("note", {notes.c.person_id: key[0], notes.c.body: "x"})
    )
    assert (await manager.read(with_notes, entity="person", key=key))[1] == 1
    assert reads(manager) == {"legacy": {"ramp_pending": 1}}
    assert await name_of(manager, key) == "Ann"
    assert reads(manager)["new"] == {"ramped": 1}  # she alone is not on her way


async def test_a_key_that_could_not_be_carried(make_manager: MakeManager, legacy_sql: Sql) -> None:
    manager = await make_manager(Phase.SHADOW, new_read_share=1.0, retry_attempts=1)
    key = await add_ann(manager)
    await legacy_sql("UPDATE folk SET nm = 'refused', cents = -1")
    await manager.relay().run_once()
    assert (await manager.status()).failures_open == 1
    assert await name_of(manager, key) == "refused"
    assert reads(manager) == {"legacy": {"ramp_pending": 1}}


async def test_behind_a_long_journal_nothing_is_believed(make_manager: MakeManager, legacy_sql: Sql) -> None:
    manager = await make_manager(Phase.SHADOW, new_read_share=1.0, shadow_read_sample_rate=0.0)
    key = await add_ann(manager)
    rows = "INSERT INTO tandem_people.journal (entity, key) SELECT 'note', '[1]' FROM generate_series(1, $1)"
    await legacy_sql(rows, OPEN_ROWS_MOST)
    await name_of(manager, key)
    assert reads(manager) == {"new": {"ramped": 1}}
    await legacy_sql(rows, 1)
    await name_of(manager, key)
    assert reads(manager) == {"new": {"ramped": 1}, "legacy": {"ramp_pending": 1}}


async def test_an_error_of_the_new_side_is_nobodys_trouble(
    make_manager: MakeManager, people_databases: Databases
) -> None:
    manager = await make_manager(Phase.SHADOW, new_read_share=1.0, shadow_read_sample_rate=0.0)
    key = await add_ann(manager)
    await Plant(people_databases).breakage(Side.NEW)
    assert await name_of(manager, key) == "Ann"
    assert reads(manager) == {"legacy": {"ramp_failed": 1}}


async def test_rows_that_the_unit_cannot_read(make_manager: MakeManager, people_databases: Databases) -> None:
    manager = await make_manager(Phase.SHADOW, new_read_share=1.0, shadow_read_sample_rate=0.0)
    key = await add_ann(manager)
    await Plant(people_databases).name(Side.NEW, key, "12")

    async def unit(work: UnitOfWork) -> int:
        found = await work.get("person", key)
        assert found is not None
        return {"Ann": 1}[found["name"]]

    assert await manager.read(unit, entity="person", key=key) == 1
    assert reads(manager) == {"legacy": {"ramp_failed": 1}}


async def test_what_the_new_side_lacks_is_asked_again(
    make_manager: MakeManager, people_databases: Databases
) -> None:
    manager = await make_manager(Phase.SHADOW, new_read_share=1.0, shadow_read_sample_rate=0.0)
    key = await add_ann(manager)
    await Plant(people_databases).remove(Side.NEW, key)
    assert await name_of(manager, key) == "Ann"
    assert reads(manager) == {"legacy": {"ramp_failed": 1}}


async def test_where_nothing_is_carried_nothing_is_read(
    make_manager: MakeManager, people_databases: Databases
) -> None:
    manager = await make_manager(Phase.SHADOW, new_read_share=1.0, enabled=False)
    key = (await manager.write("add", lambda work: work.insert("person", {people.c.email: "a@x"}))).unwrap()
    await Plant(people_databases).person(Side.NEW, key, "planted")
    assert await name_of(manager, key) is None
    assert reads(manager) == {"legacy": {"authoritative": 1}}


async def test_a_replica_that_has_slept_through_off(
    make_manager: MakeManager, people_databases: Databases, legacy_sql: Sql
) -> None:
    """It believes in `shadow`. Nothing is journalled any more, so an empty journal says nothing."""
    manager = await make_manager(Phase.SHADOW, new_read_share=1.0, shadow_read_sample_rate=0.0)
    key = await add_ann(manager)
    await legacy_sql("UPDATE tandem_people.mark SET captures = false")
    await legacy_sql("ALTER TABLE folk DISABLE TRIGGER USER")
    await legacy_sql("UPDATE folk SET nm = 'later'")
    assert await name_of(manager, key) == "later"
    assert reads(manager) == {"legacy": {"ramp_pending": 1}}


async def test_a_read_that_is_about_nothing_known_is_a_mistake(make_manager: MakeManager) -> None:
    manager = await make_manager(Phase.SHADOW)
    with pytest.raises(ConfigurationError, match="unknown entity 'persn'; known: note, person"):
        await manager.read(person((1,)), entity="persn", key=(1,))
    with pytest.raises(ConfigurationError, match="the key \\[1\\] needs its entity"):
        await manager.read(person((1,)), key=(1,))
