"""A run that was interrupted is gone on with, and says *equal* of no key that it cannot vouch for."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from backend.shared import SideError, SyncValidator
from backend.shared.observability.labels import RunKind, Verdict
from backend.shared.testing.clusters import Databases
from backend.shared.validation.report import MismatchKind, ValidationReport
from backend.shared.validation.run_records import RunTakenOverError
from tests.support.fixtures import MakeManager, Sql
from tests.support.people import PeopleManager
from tests.support.steps import Crash, PauseAt
from tests.support.validating import (
    COMPARED,
    DieAfter,
    carried,
    grow_silent,
    keep_after_each_chunk,
    watch,
)

pytestmark = pytest.mark.invariant("I5")


async def validate(manager: PeopleManager, *, share: float = 1.0, changed: bool = False) -> ValidationReport:
    return await SyncValidator(manager.runtime, chunk_rows=100).run(
        ["person"], share=share, changed=changed, patience_seconds=0.3
    )


async def die(
    make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch, *, chunks: int = 4, share: float = 1.0
) -> PeopleManager:
    """A process that dies while it validates, as by `kill -9`; answers the next process."""
    keep_after_each_chunk(monkeypatch)
    with pytest.raises(Crash):
        await validate(await make_manager(hook=DieAfter(chunks)), share=share)
    return await make_manager(batch_size=5000)


def found(report: ValidationReport) -> dict[str, MismatchKind]:
    return {item.key: item.kind for entity in report.entities for item in entity.mismatches}


@pytest.mark.invariant("I7")
async def test_i7_killed_run_goes_on_where_it_was(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    await carried(make_manager, legacy_sql)
    await new_sql("UPDATE people SET name = 'planted' WHERE id IN (50, 950)")
    manager = await die(make_manager, monkeypatch)
    (kept,) = await new_sql("SELECT resume_at, counts FROM tandem_people.validation_entity")
    await grow_silent(new_sql)
    looked = watch(monkeypatch)
    report = await validate(manager)
    assert looked.began_behind == [kept["resume_at"]]
    assert 0 < looked.source_rows < 1000, "only the rest is compared by chunk"
    assert looked.by_name == ["[50]"], "and the mismatch that it had found"
    assert found(report) == {"[50]": MismatchKind.DIFFERENT, "[950]": MismatchKind.DIFFERENT}
    assert (report.resumed, report.run_id, report.entities[0].rows_new) == (True, 1, 1000)
    assert f"person: resumed at {kept['resume_at']}" in report.notes
    assert [row["id"] for row in await new_sql("SELECT id FROM tandem_people.validation_run")] == [1]


async def test_mismatch_repaired_while_the_run_was_down_is_gone(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    await carried(make_manager, legacy_sql)
    await new_sql("UPDATE people SET name = 'planted' WHERE id = 50")
    manager = await die(make_manager, monkeypatch)
    await new_sql("UPDATE people SET name = 'n' WHERE id = 50")
    await grow_silent(new_sql)
    report = await validate(manager)
    assert (report.verdict, report.resumed, report.changes.gone) == (Verdict.EQUAL, True, 1)
    assert await SyncValidator(manager.runtime).open_mismatches(limit=10) == []


async def test_carry_behind_the_frontier_while_the_run_was_down(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key is changed, carried and spoilt where the run had been already: it is looked at again."""
    await carried(make_manager, legacy_sql)
    manager = await die(make_manager, monkeypatch)
    await legacy_sql("UPDATE folk SET nm = 'changed' WHERE folk_no = 7")
    assert await manager.relay().drain(timeout_seconds=5)
    await new_sql("UPDATE people SET name = 'spoilt' WHERE id = 7")
    await grow_silent(new_sql)
    report = await validate(manager)
    assert (report.resumed, found(report)) == (True, {"[7]": MismatchKind.DIFFERENT})


async def test_key_on_its_way_when_the_run_died_is_not_forgotten(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was in the journal when last seen. Its row ended, and no guard moved: only the run knows that it was open."""
    await carried(make_manager, legacy_sql)
    await new_sql("UPDATE people SET name = 'planted' WHERE id = 7")
    await legacy_sql("UPDATE folk SET cents = 0 WHERE folk_no = 7")
    manager = await die(make_manager, monkeypatch)
    await legacy_sql("TRUNCATE tandem_people.journal")
    await grow_silent(new_sql)
    report = await validate(manager)
    assert (report.resumed, found(report)) == (True, {"[7]": MismatchKind.DIFFERENT})


async def test_backfill_while_the_run_was_down_begins_it_anew(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    await carried(make_manager, legacy_sql)
    manager = await die(make_manager, monkeypatch)
    await new_sql("INSERT INTO tandem_people.guard_floor VALUES ('person', 1, 2 ^ 40, 0)")
    await grow_silent(new_sql)
    looked = watch(monkeypatch)
    report = await validate(manager)
    assert looked.began_behind == [None]
    assert [note for note in report.notes if "not resumed, since a backfill" in note]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE tandem_people.validation_run SET epoch = 0",
        "UPDATE tandem_people.validation_run SET direction = 'to_legacy'",
        "UPDATE tandem_people.validation_run SET capture = 'of another trigger'",
        "UPDATE tandem_people.validation_run SET started_at = started_at - interval '25 hours'",
        "UPDATE tandem_people.validation_entity SET mapping = 'another'",
        "UPDATE tandem_people.validation_entity SET overflowed = true",
        "UPDATE tandem_people.validation_run SET heartbeat_at = clock_timestamp()",
    ],
)
async def test_run_of_other_circumstances_is_not_gone_on_with(
    make_manager: MakeManager,
    legacy_sql: Sql,
    new_sql: Sql,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    await carried(make_manager, legacy_sql)
    manager = await die(make_manager, monkeypatch)
    await grow_silent(new_sql)
    await new_sql(change)
    looked = watch(monkeypatch)
    assert (await validate(manager)).verdict is Verdict.EQUAL
    assert (looked.began_behind, looked.source_rows) == ([None], 1000)


@pytest.mark.parametrize(("share", "changed"), [(0.5, False), (1.0, True)])
async def test_run_of_another_kind_is_not_gone_on_with(
    make_manager: MakeManager,
    legacy_sql: Sql,
    new_sql: Sql,
    monkeypatch: pytest.MonkeyPatch,
    *,
    share: float,
    changed: bool,
) -> None:
    await carried(make_manager, legacy_sql)
    manager = await die(make_manager, monkeypatch)
    await grow_silent(new_sql)
    report = await validate(manager, share=share, changed=changed)
    assert (report.run_id, report.resumed) == (2, False)


async def test_side_that_went_away_leaves_a_run_to_go_on_with_at_once(
    make_manager: MakeManager,
    legacy_sql: Sql,
    people_databases: Databases,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await carried(make_manager, legacy_sql)
    keep_after_each_chunk(monkeypatch)
    name = people_databases.legacy_url.rpartition("/")[2]
    admin = await asyncpg.connect(people_databases.legacy_url.removesuffix(name) + "postgres")
    chunks = 0

    async def go_away(step: str) -> None:
        nonlocal chunks
        chunks += step == COMPARED
        if chunks == 3:
            await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name
            )

    manager = await make_manager(hook=go_away)
    with pytest.raises(SideError, match="legacy side"):
        await validate(manager)
    await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    await admin.close()
    report = await validate(await make_manager())
    assert (report.verdict, report.resumed, report.entities[0].rows_legacy) == (Verdict.EQUAL, True, 1000)


async def test_two_runs_at_once_each_end_by_themselves(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second begins and ends inside the first, which has passed a key before it is spoilt."""
    await carried(make_manager, legacy_sql)
    pause = PauseAt(COMPARED)
    first = await make_manager(hook=pause)
    running = asyncio.ensure_future(validate(first))
    await asyncio.wait_for(pause.reached.wait(), timeout=10)
    await new_sql("UPDATE people SET name = 'planted' WHERE id = 1")
    second = await validate(await make_manager())
    pause.resume.set()
    report = await running
    assert (report.run_id, second.run_id, second.resumed) == (1, 2, False)
    assert (report.verdict, found(second)) == (Verdict.EQUAL, {"[1]": MismatchKind.DIFFERENT})
    still_open = await SyncValidator(first.runtime).open_mismatches(limit=10)
    assert [(item.key, item.last_run) for item in still_open] == [("[1]", 2)], "the first one did not see it"


async def test_run_that_was_taken_up_by_another_process_writes_no_more(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was stopped for long (SIGSTOP) wakes up while another one goes on with its run."""
    await carried(make_manager, legacy_sql)
    keep_after_each_chunk(monkeypatch)
    pause, later = PauseAt(COMPARED), PauseAt(COMPARED)
    stopped = asyncio.ensure_future(validate(await make_manager(hook=pause)))
    await asyncio.wait_for(pause.reached.wait(), timeout=10)
    await grow_silent(new_sql)
    taken_up = asyncio.ensure_future(validate(await make_manager(hook=later)))
    await asyncio.wait_for(later.reached.wait(), timeout=10)
    pause.resume.set()
    with pytest.raises(RunTakenOverError):
        await stopped
    later.resume.set()
    report = await taken_up
    assert (report.resumed, report.verdict, report.kind) == (True, Verdict.EQUAL, RunKind.FULL)
    (run,) = await new_sql("SELECT state, verdict FROM tandem_people.validation_run")
    assert tuple(run) == ("finished", "equal")


async def test_sampled_run_goes_on_with_the_same_sample(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    await carried(make_manager, legacy_sql, 5000)
    manager = await die(make_manager, monkeypatch, chunks=1, share=0.4)
    (before,) = await new_sql("SELECT seed FROM tandem_people.validation_run")
    await grow_silent(new_sql)
    report = await validate(manager, share=0.4)
    (after,) = await new_sql("SELECT seed FROM tandem_people.validation_run")
    assert (report.resumed, before["seed"]) == (True, after["seed"])
    assert 0 < report.entities[0].rows_new < 5000
