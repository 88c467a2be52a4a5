"""What runs leave behind: mismatches from the first to the last time they were seen, verdicts, and nothing for ever."""

from __future__ import annotations

import pytest

from backend.shared import SyncValidator
from backend.shared.observability.labels import RunKind, Verdict
from backend.shared.validation import keeper, runs
from backend.shared.validation.report import MismatchChanges, MismatchKind, ValidationReport
from tests.support.fixtures import MakeManager, Sql
from tests.support.people import PeopleManager
from tests.support.validating import carried

MISMATCHES = (
    "SELECT key, kind, fields, state, first_run, last_run, ended_run FROM tandem_people.mismatch ORDER BY id"
)


async def validate(manager: PeopleManager, *, share: float = 1.0) -> ValidationReport:
    return await SyncValidator(manager.runtime, chunk_rows=100).run(
        ["person"], share=share, patience_seconds=0.3
    )


@pytest.mark.invariant("I5")
async def test_mismatch_is_kept_until_it_is_gone_and_anew_when_it_comes_back(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    manager = await carried(make_manager, legacy_sql)
    await new_sql("UPDATE people SET credit = 12.34, name = 'geheim' WHERE id = 7")
    await new_sql("DELETE FROM people WHERE id = 8")
    assert (await validate(manager)).changes == MismatchChanges(new=2)
    await new_sql("UPDATE people SET credit = 0 WHERE id = 7")
    assert (await validate(manager)).changes == MismatchChanges(still=2)
    await new_sql("UPDATE people SET name = 'n' WHERE id = 7")
    assert (await validate(manager)).changes == MismatchChanges(still=1, gone=1)
    await new_sql("UPDATE people SET name = 'geheim' WHERE id = 7")
    assert (await validate(manager)).changes == MismatchChanges(new=1, still=1)
    everything = sorted(f"people.{name}" for name in ("born", "credit", "email", "id", "name"))
    assert [tuple(row) for row in await new_sql(MISMATCHES)] == [
        ("[7]", "different", ["people.name"], "gone", 1, 2, 3),
        ("[8]", "missing_in_new", everything, "open", 1, 4, None),
        ("[7]", "different", ["people.name"], "open", 4, 4, None),
    ]
    first, second = await SyncValidator(manager.runtime).open_mismatches(limit=10)
    assert (first.key, first.kind, second.key) == ("[8]", MismatchKind.MISSING_IN_NEW, "[7]")
    assert [item.key for item in await SyncValidator(manager.runtime).open_mismatches(limit=1)] == ["[8]"]
    (view,) = await manager.list_mismatches(limit=10, after_id=first.id, entity="person")
    assert (view.key, view.fields, view.first_run) == ("[7]", ("people.name",), 4)
    kept = str(await new_sql("SELECT v::text FROM tandem_people.mismatch AS v"))
    assert "geheim" not in kept
    assert "12.34" not in kept


@pytest.mark.invariant("I5")
async def test_mismatch_of_a_key_on_its_way_stays_open(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    manager = await carried(make_manager, legacy_sql)
    await new_sql("UPDATE people SET name = 'planted' WHERE id = 7")
    await validate(manager)
    await legacy_sql("UPDATE folk SET nm = 'on its way' WHERE folk_no = 7")
    report = await validate(manager)
    assert (report.verdict, report.changes) == (Verdict.INCOMPLETE, MismatchChanges())
    assert [item.last_run for item in await SyncValidator(manager.runtime).open_mismatches(limit=9)] == [1]


@pytest.mark.invariant("I5")
async def test_sample_says_what_it_rests_upon_and_ends_nothing(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    manager = await carried(make_manager, legacy_sql, 5000)
    await legacy_sql("ANALYZE folk")
    await new_sql("UPDATE people SET name = 'planted' WHERE id = 7")
    await validate(manager)
    await new_sql("UPDATE people SET name = 'n' WHERE id = 7")
    report = await validate(manager, share=0.25)
    (entity,) = report.entities
    assert (report.kind, report.share, entity.scope, report.verdict) == (
        RunKind.SAMPLE,
        0.25,
        RunKind.SAMPLE,
        Verdict.EQUAL,
    )
    assert 0 < entity.rows < 5000
    assert report.verdict_text == f"equal in a sample of 25 %: {entity.rows:,} of about 5,000 rows"
    assert report.to_dict()["verdict_text"] == report.verdict_text
    assert len(await SyncValidator(manager.runtime).open_mismatches(limit=10)) == 1
    await new_sql("UPDATE people SET name = 'planted'")
    assert (await validate(manager, share=0.25)).verdict_text.startswith("different in a sample of 25 %: ")


async def test_runs_are_listed_newest_first(make_manager: MakeManager, legacy_sql: Sql) -> None:
    manager = await carried(make_manager, legacy_sql, 10)
    await validate(manager)
    await SyncValidator(manager.runtime).run(changed=True)
    latest, first = await SyncValidator(manager.runtime).latest_runs()
    assert (latest.kind, latest.chosen, latest.state, latest.verdict) == (
        RunKind.CHANGED,
        ("person", "note"),
        "finished",
        Verdict.EQUAL,
    )
    assert {name: found.scope for name, found in latest.entities.items()} == {
        "person": RunKind.CHANGED,
        "note": RunKind.FULL,
    }
    assert (first.kind, first.entities["person"].counts["rows_new"], first.finished_at is not None) == (
        RunKind.FULL,
        10,
        True,
    )


async def test_old_runs_go_but_for_what_incremental_ones_rest_upon(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = await carried(make_manager, legacy_sql, 10)
    monkeypatch.setattr(keeper, "PRUNED_EVERY_RUNS", 1)
    monkeypatch.setattr(runs, "FINISHED_RUNS_KEPT", 2)
    await SyncValidator(manager.runtime).run()
    for _ in range(4):
        await validate(manager)
    for _ in range(3):
        await SyncValidator(manager.runtime).run(changed=True)
    kept = [
        (row["id"], row["kind"])
        for row in await new_sql("SELECT id, kind FROM tandem_people.validation_run ORDER BY 1")
    ]
    assert kept == [(1, "full"), (4, "full"), (5, "full"), (7, "changed"), (8, "changed")]
    last = await SyncValidator(manager.runtime).run(changed=True)
    assert [(entity.entity, entity.since_run) for entity in last.entities] == [("person", 5), ("note", 1)]


async def test_interrupted_run_is_given_up_by_the_next_that_cannot_go_on_with_it(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    manager = await carried(make_manager, legacy_sql, 10)
    await validate(manager)
    await new_sql("UPDATE tandem_people.validation_run SET state = 'interrupted', epoch = 0")
    await validate(manager)
    assert [
        row["state"] for row in await new_sql("SELECT state FROM tandem_people.validation_run ORDER BY id")
    ] == [
        "given_up",
        "finished",
    ]
