"""Incremental runs look at what has changed and at nothing else, and at everything where they cannot know."""

from __future__ import annotations

import asyncio
import random

import pytest

from backend.shared import Phase, SyncValidator, ValidationError
from backend.shared.observability.labels import RunKind, Verdict
from backend.shared.stores.postgres.projection_sql import POSITION
from backend.shared.validation import entity_run
from backend.shared.validation.changes import Changes
from backend.shared.validation.report import MismatchKind, ValidationReport
from backend.shared.validation.sides import Sides
from tests.support.fixtures import BOTH_AUTHORITIES, MakeManager, Sql
from tests.support.people import PeopleManager
from tests.support.validating import FOLK, carried, kinds, watch

pytestmark = pytest.mark.invariant("I5")


async def validate(
    manager: PeopleManager, *, changed: bool = True, patience_seconds: float = 0.3, share: float = 1.0
) -> ValidationReport:
    return await SyncValidator(manager.runtime, chunk_rows=100).run(
        ["person"], changed=changed, share=share, patience_seconds=patience_seconds
    )


async def fully(manager: PeopleManager) -> None:
    assert (await validate(manager, changed=False)).verdict is Verdict.EQUAL


async def test_only_changed_keys_are_looked_at(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what shows them: a guard, a journal row, an open failure. What others did to the target is not seen."""
    manager = await carried(make_manager, legacy_sql)
    await fully(manager)
    await legacy_sql("UPDATE folk SET nm = 'carried' WHERE folk_no IN (3, 4)")
    await manager.relay().drain(timeout_seconds=5)
    strict = await make_manager(retry_attempts=1)
    await legacy_sql("UPDATE folk SET cents = -1 WHERE folk_no = 5")
    await strict.relay().drain(timeout_seconds=5)
    await legacy_sql("UPDATE folk SET nm = 'waits' WHERE folk_no = 6")
    await new_sql("UPDATE people SET name = 'spoilt' WHERE id IN (4, 900)")
    looked, asked = watch(monkeypatch), 0
    ask = Sides.ask

    async def counting(*arguments: object) -> object:
        nonlocal asked
        asked += 1
        return await ask(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Sides, "ask", counting)
    report = await validate(manager, patience_seconds=0)
    (entity,) = report.entities
    assert (sorted(looked.by_name), looked.began_behind) == (["[3]", "[4]", "[5]", "[6]"], [])
    assert kinds(entity) == {"[4]": MismatchKind.DIFFERENT, "[5]": MismatchKind.FAILED}
    assert (entity.moving, entity.keys_changed, entity.since_run) == (1, 4, 1)
    assert asked <= 12, "what it costs does not depend on what there is"
    assert report.verdict_text == "different in the 4 keys changed since the last full run"
    assert [note for note in report.notes if "full run only" in note]


@BOTH_AUTHORITIES
async def test_whichever_side_is_authoritative(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, *, phase: Phase
) -> None:
    manager = await make_manager(phase, batch_size=5000)
    to_new = phase is Phase.DUALWRITE
    await (legacy_sql if to_new else new_sql)(
        FOLK.format(30)
        if to_new
        else "INSERT INTO people (id, email, name) SELECT n, n || '@x', 'n' FROM generate_series(1, 30) AS n"
    )
    assert await manager.relay().drain(timeout_seconds=10)
    await fully(manager)
    assert (await validate(manager)).entities[0].keys_changed == 0
    await (legacy_sql if to_new else new_sql)(
        "UPDATE folk SET nm = 'c' WHERE folk_no = 7"
        if to_new
        else "UPDATE people SET name = 'c' WHERE id = 7"
    )
    assert await manager.relay().drain(timeout_seconds=10)
    await (new_sql if to_new else legacy_sql)(
        "UPDATE people SET name = 'x' WHERE id = 7"
        if to_new
        else "UPDATE folk SET nm = 'x' WHERE folk_no = 7"
    )
    (entity,) = (await validate(manager)).entities
    assert (entity.scope, kinds(entity)) == (RunKind.CHANGED, {"[7]": MismatchKind.DIFFERENT})


async def test_known_mismatch_is_looked_at_until_it_is_gone(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    manager = await carried(make_manager, legacy_sql)
    await new_sql("UPDATE people SET name = 'planted' WHERE id = 7")
    assert (await validate(manager, changed=False)).changes.new == 1
    again = await validate(manager)
    assert (kinds(again.entities[0]), again.changes.still) == ({"[7]": MismatchKind.DIFFERENT}, 1)
    await new_sql("UPDATE people SET name = 'n' WHERE id = 7")
    repaired = await validate(manager)
    assert (repaired.verdict, repaired.changes.gone) == (Verdict.EQUAL, 1)
    assert (await validate(manager)).entities[0].keys_changed == 0


FULL = "all keys are compared, since "


@pytest.mark.parametrize(
    ("happening", "reason"),
    [
        ("DELETE FROM tandem_people.validation_run", "there has been no full run of it"),
        (
            "UPDATE tandem_people.validation_run SET direction = 'to_legacy'",
            "the authority has moved since the last full run 1",
        ),
        (
            "UPDATE tandem_people.validation_run SET epoch = 0",
            "the authority has moved since the last full run 1",
        ),
        (
            "UPDATE tandem_people.validation_entity SET mapping = ''",
            "its mapping has changed since the last full run 1",
        ),
        (
            "UPDATE tandem_people.validation_entity SET overflowed = true",
            "the last full run 1 found more than is kept",
        ),
        (
            "INSERT INTO tandem_people.guard_floor VALUES ('person', 1, 2 ^ 40, 0)",
            "a backfill has copied to it after the last full run 1",
        ),
    ],
)
async def test_everything_is_compared_where_the_last_full_run_says_nothing(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, happening: str, reason: str
) -> None:
    manager = await carried(make_manager, legacy_sql)
    await fully(manager)
    await new_sql(happening)
    await new_sql("UPDATE people SET name = 'planted' WHERE id = 7")
    report = await validate(manager)
    assert f"person: {FULL}{reason}" in report.notes
    (entity,) = report.entities
    assert (report.kind, entity.scope, entity.rows_new) == (RunKind.CHANGED, RunKind.FULL, 1000)
    if "guard_floor" in happening:  # a floor that no read has reached yet
        assert (report.verdict, entity.moving) == (Verdict.INCOMPLETE, 1)
    else:
        assert kinds(entity) == {"[7]": MismatchKind.DIFFERENT}


async def test_gap_in_capture_voids_the_last_full_run(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    """A trigger was dropped, a row changed unseen, and the trigger put back as it had been."""
    manager = await carried(make_manager, legacy_sql)
    await fully(manager)
    (trigger,) = await legacy_sql(
        "SELECT tgname, pg_get_triggerdef(oid) AS made FROM pg_trigger "
        "WHERE tgrelid = 'folk'::regclass AND NOT tgisinternal AND tgtype & 16 > 0 AND tgname NOT LIKE '%fence%'"
    )
    await legacy_sql(f"DROP TRIGGER {trigger['tgname']} ON folk")
    await legacy_sql("UPDATE folk SET nm = 'unseen' WHERE folk_no = 7")
    await legacy_sql(trigger["made"])
    await legacy_sql(f"ALTER TABLE folk ENABLE ALWAYS TRIGGER {trigger['tgname']}")
    report = await validate(manager)
    assert f"person: {FULL}capture has had a gap since the last full run 1" in report.notes
    assert kinds(report.entities[0]) == {"[7]": MismatchKind.DIFFERENT}
    again = await validate(manager)
    assert (again.entities[0].scope, again.entities[0].since_run) == (RunKind.CHANGED, report.run_id)


async def test_too_many_changes_are_a_full_comparison(
    make_manager: MakeManager, legacy_sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = await carried(make_manager, legacy_sql)
    await fully(manager)
    monkeypatch.setattr(Changes.__init__, "__kwdefaults__", {"most_keys": 9})
    for count, scope in ((9, RunKind.CHANGED), (10, RunKind.FULL)):
        await legacy_sql(f"UPDATE folk SET nm = nm || '.' WHERE folk_no <= {count}")
        await manager.relay().drain(timeout_seconds=5)
        assert (await validate(manager)).entities[0].scope is scope


async def test_sampled_run_is_no_full_run(make_manager: MakeManager, legacy_sql: Sql) -> None:
    manager = await carried(make_manager, legacy_sql)
    await validate(manager, changed=False, share=0.5)
    report = await validate(manager)
    assert report.notes == (f"person: {FULL}there has been no full run of it",)


async def test_carry_that_read_before_the_full_run_and_wrote_after_it(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    """Its journal row was open when the full run began, so its guard, though older than that, counts as changed."""
    manager = await carried(make_manager, legacy_sql)
    await legacy_sql("UPDATE folk SET nm = 'n' WHERE folk_no = 7")
    (read_at,) = await legacy_sql(POSITION)
    await legacy_sql("CREATE TABLE something_else ()")
    await fully(manager)
    await legacy_sql("TRUNCATE tandem_people.journal")
    await new_sql(
        "UPDATE tandem_people.guard SET major = $1, minor = $2 WHERE key = '[7]'",
        read_at["major"],
        read_at["minor"],
    )
    await new_sql("UPDATE people SET name = 'written wrongly' WHERE id = 7")
    assert kinds((await validate(manager)).entities[0]) == {"[7]": MismatchKind.DIFFERENT}


async def test_copy_under_way_when_the_full_run_began(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    manager = await carried(make_manager, legacy_sql)
    (read_at,) = await legacy_sql(POSITION)
    await legacy_sql("CREATE TABLE something_else ()")
    await new_sql("INSERT INTO tandem_people.backfill_chunk (entity, locked_whole) VALUES ('person', false)")
    await fully(manager)
    await new_sql(
        "INSERT INTO tandem_people.guard_floor VALUES ('person', 1, $1, $2)",
        read_at["major"],
        read_at["minor"],
    )
    assert (await validate(manager)).entities[0].scope is RunKind.FULL


async def test_key_left_moving_by_the_full_run_is_looked_at(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    manager = await carried(make_manager, legacy_sql)
    await new_sql("UPDATE people SET name = 'planted' WHERE id = 7")
    await new_sql("UPDATE tandem_people.guard SET major = 2 ^ 40 WHERE key = '[7]'")
    assert (await validate(manager, changed=False)).verdict is Verdict.INCOMPLETE
    await new_sql("UPDATE tandem_people.guard SET major = 0 WHERE key = '[7]'")
    assert kinds((await validate(manager)).entities[0]) == {"[7]": MismatchKind.DIFFERENT}


async def test_phase_that_captures_nothing_is_compared_fully(
    make_manager: MakeManager, legacy_sql: Sql
) -> None:
    manager = await make_manager(Phase.OFF)
    await legacy_sql(FOLK.format(3))
    await validate(manager, changed=False)
    report = await validate(manager)
    assert f"person: {FULL}changes are not captured now" in report.notes


async def test_more_than_is_kept_is_counted_all_the_same(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = await carried(make_manager, legacy_sql)
    monkeypatch.setattr(entity_run, "MISMATCHES_KEPT", 5)
    await new_sql("UPDATE people SET name = 'planted' WHERE id <= 8")
    report = await validate(manager, changed=False)
    assert (report.entities[0].different, report.changes.new) == (8, 5)
    await new_sql("UPDATE people SET name = 'n' WHERE id <= 2")
    report = await validate(manager)
    assert f"person: {FULL}the last full run 1 found more than is kept" in report.notes
    assert (report.entities[0].different, report.changes.gone) == (6, 0), "who is gone cannot be told"


async def test_nothing_false_is_reported_beside_writers_and_a_relay(
    make_manager: MakeManager, legacy_sql: Sql
) -> None:
    """Full and incremental runs by turns, while rows come, change and go, and a relay carries them."""
    manager = await carried(make_manager, legacy_sql)
    stop = asyncio.Event()

    async def write() -> None:
        chosen = random.Random(1)
        while not stop.is_set():
            key = chosen.randrange(1000)
            await legacy_sql("UPDATE folk SET nm = nm || '.' WHERE folk_no BETWEEN $1 AND $1 + 20", key)
            await legacy_sql("DELETE FROM folk WHERE folk_no = $1", key)
            await legacy_sql(
                "INSERT INTO folk (folk_no, mail) VALUES ($1::integer, $1::integer || '@y') ON CONFLICT DO NOTHING",
                key,
            )

    async def carry() -> None:
        while not stop.is_set():
            await manager.relay().run_once()

    at_work = [asyncio.ensure_future(work()) for work in (write, carry)]
    for changed in (False, True, True, False, True, True):
        report = await validate(manager, changed=changed, patience_seconds=5.0)
        assert kinds(report.entities[0]) == {}
    stop.set()
    await asyncio.gather(*at_work)
    assert await manager.relay().drain(timeout_seconds=10)
    last = await validate(manager)
    assert (last.verdict, last.entities[0].scope) == (Verdict.EQUAL, RunKind.CHANGED)


@pytest.mark.parametrize(("share", "changed"), [(0.0, False), (-1.0, False), (1.5, False), (0.5, True)])
async def test_what_cannot_be_asked_for(make_manager: MakeManager, *, share: float, changed: bool) -> None:
    with pytest.raises(ValidationError):
        await validate(await make_manager(), share=share, changed=changed)
