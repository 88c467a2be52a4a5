"""I5, the first half: what is merely on its way is not reported, and what is unfinished is never called equal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg
import pytest

from backend.shared import Direction, Phase, SideError, SyncValidator
from backend.shared.background_validation import validate_periodically
from backend.shared.observability.labels import Verdict
from backend.shared.stores.postgres.projection_sql import POSITION
from backend.shared.testing.clusters import Databases
from backend.shared.validation.recheck import Look, Recheck
from backend.shared.validation.report import MismatchKind, ValidationReport
from backend.shared.validation.sides import Sides
from tests.support.fixtures import BOTH_AUTHORITIES, MakeManager, Sql
from tests.support.people import PeopleManager
from tests.support.validating import FOLK, carried, kinds

pytestmark = pytest.mark.invariant("I5")


async def validate(manager: PeopleManager, *, patience_seconds: float = 0.3) -> ValidationReport:
    return await SyncValidator(manager.runtime, chunk_rows=20).run(
        ["person"], patience_seconds=patience_seconds
    )


def between_the_looks(
    monkeypatch: pytest.MonkeyPatch, act: Callable[[], Awaitable[object]], *, times: int = 1
) -> list[str]:
    """Run `act` after a second look has read the source and before it reads the target; answers what was asked."""
    ask_target = Sides.ask_target
    done: list[str] = []

    async def wrapped(sides: Sides, statement: str, *parameters: Any) -> list[Any]:
        if "AS guards" in statement and len(done) < times:
            done.append(statement)
            await act()
        return await ask_target(sides, statement, *parameters)

    monkeypatch.setattr(Sides, "ask_target", wrapped)
    return done


async def test_carry_between_read_of_source_and_read_of_target(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source is read as it was, the target as it is now: only the guard tells that they are not of one time."""
    manager = await carried(make_manager, legacy_sql, 50)
    await new_sql("UPDATE people SET name = 'planted' WHERE id = 7")

    async def change_and_carry() -> None:
        await legacy_sql("UPDATE folk SET nm = 'changed' WHERE folk_no = 7")
        await manager.relay().drain(timeout_seconds=5)

    done = between_the_looks(monkeypatch, change_and_carry)
    report = await validate(manager, patience_seconds=5.0)
    assert done
    assert report.verdict is Verdict.EQUAL, kinds(report.entities[0])


async def test_backfill_between_read_of_source_and_read_of_target(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk copied in between leaves no guard of the key: only the entity's floor tells that the row is newer."""
    manager = await carried(make_manager, legacy_sql, 50)
    await new_sql("UPDATE people SET name = 'planted' WHERE id = 7")

    async def change_and_copy() -> None:
        await legacy_sql("UPDATE folk SET nm = 'changed' WHERE folk_no = 7")
        await legacy_sql("TRUNCATE tandem_people.journal")
        await new_sql("UPDATE people SET name = 'changed' WHERE id = 7")
        (position,) = await legacy_sql(POSITION)
        await new_sql(
            "INSERT INTO tandem_people.guard_floor VALUES ('person', 1, $1, $2)",
            position["major"],
            position["minor"],
        )

    done = between_the_looks(monkeypatch, change_and_copy)
    report = await validate(manager, patience_seconds=5.0)
    assert done
    assert report.verdict is Verdict.EQUAL, kinds(report.entities[0])


async def test_write_between_hash_of_source_and_second_look(
    make_manager: MakeManager, legacy_sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row is journalled when it is looked at, and carried while the validator is patient: it is not reported."""
    manager = await carried(make_manager, legacy_sql, 50)
    await legacy_sql("UPDATE folk SET nm = 'changed' WHERE folk_no IN (1, 20, 21, 50)")

    late: list[asyncio.Task[object]] = []
    looked, look = asyncio.Event(), Recheck.look

    async def carry_later() -> None:
        await looked.wait()
        await manager.relay().run_once()

    async def set_off() -> None:
        late.append(asyncio.ensure_future(carry_later()))

    async def noting(recheck: Recheck, keys: Sequence[str]) -> list[Look]:
        found = await look(recheck, keys)
        looked.set()
        return found

    monkeypatch.setattr(Recheck, "look", noting)
    done = between_the_looks(monkeypatch, set_off)
    began = time.monotonic()
    report = await validate(manager, patience_seconds=10.0)
    await asyncio.gather(*late)
    assert done
    assert report.verdict is Verdict.EQUAL
    assert time.monotonic() - began < 5, "it stops waiting when there is nothing left to wait for"


async def test_patience_is_bounded_in_all(make_manager: MakeManager, legacy_sql: Sql) -> None:
    manager = await carried(make_manager, legacy_sql, 400)
    await legacy_sql("UPDATE folk SET nm = 'on its way'")
    began = time.monotonic()
    report = await validate(manager, patience_seconds=1.0)
    assert time.monotonic() - began < 12, "twenty chunks with keys on their way do not wait twenty times"
    assert (report.verdict, report.entities[0].moving, kinds(report.entities[0])) == (
        Verdict.INCOMPLETE,
        400,
        {},
    )
    summary = report.to_dict()["summary"]
    assert (summary["equal"], summary["different"], summary["incomplete"]) == (0, 0, 1)


async def test_what_differs_is_told_beside_what_moves(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    manager = await carried(make_manager, legacy_sql, 50)
    await legacy_sql("UPDATE folk SET nm = 'on its way' WHERE folk_no = 1")
    await new_sql("UPDATE people SET name = 'planted' WHERE id = 2")
    (report,) = (await validate(manager)).entities
    assert (kinds(report), report.moving, report.verdict) == (
        {"[2]": MismatchKind.DIFFERENT},
        1,
        Verdict.DIFFERENT,
    )


async def test_delete_and_insert_on_their_way(make_manager: MakeManager, legacy_sql: Sql) -> None:
    manager = await carried(make_manager, legacy_sql, 50)
    await legacy_sql("DELETE FROM folk WHERE folk_no = 50")
    await legacy_sql("INSERT INTO folk (folk_no, mail) VALUES (999, 'fresh')")
    assert (await validate(manager)).verdict is Verdict.INCOMPLETE
    await manager.relay().drain(timeout_seconds=5)
    assert (await validate(manager)).verdict is Verdict.EQUAL


async def test_row_that_cannot_be_read_is_judged_only_when_the_relay_has_tried(
    make_manager: MakeManager, legacy_sql: Sql
) -> None:
    manager = await carried(make_manager, legacy_sql, 50)
    await legacy_sql("UPDATE folk SET born = 'no date' WHERE folk_no = 6")
    report = await validate(manager)
    assert (kinds(report.entities[0]), report.verdict) == ({}, Verdict.INCOMPLETE)
    strict = await make_manager(retry_attempts=1)
    await strict.relay().drain(timeout_seconds=5)
    (entity,) = (await validate(manager)).entities
    assert kinds(entity) == {"[6]": MismatchKind.FAILED}
    assert (entity.different, entity.rows_legacy, entity.rows_new) == (1, 50, 50)


async def test_row_that_cannot_be_read_and_was_never_captured_is_different(
    make_manager: MakeManager, legacy_sql: Sql
) -> None:
    manager = await carried(make_manager, legacy_sql, 50)
    await legacy_sql("UPDATE folk SET born = 'no date' WHERE folk_no = 6")
    await legacy_sql("DELETE FROM tandem_people.journal")
    (entity,) = (await validate(manager)).entities
    assert (kinds(entity), entity.different) == ({"[6]": MismatchKind.UNREADABLE}, 1)
    view = await manager.validate_key("6", entity="person")
    assert (view.verdict, view.in_legacy, view.in_new) == (Verdict.DIFFERENT, None, True)


async def test_failed_is_different_though_rows_are_equal_or_tried_again(
    make_manager: MakeManager, legacy_sql: Sql
) -> None:
    manager = await carried(make_manager, legacy_sql, 50)
    strict = await make_manager(retry_attempts=1)
    await legacy_sql("UPDATE folk SET cents = -1 WHERE folk_no IN (4, 5)")
    await strict.relay().drain(timeout_seconds=5)
    await legacy_sql("UPDATE folk SET cents = 0 WHERE folk_no = 4")
    await legacy_sql("DELETE FROM tandem_people.journal")
    await legacy_sql("INSERT INTO tandem_people.journal (entity, key) VALUES ('person', '[5]')")
    (entity,) = (await validate(manager)).entities
    assert kinds(entity) == {"[4]": MismatchKind.FAILED, "[5]": MismatchKind.FAILED}
    assert (entity.different, entity.moving) == (2, 0)


@pytest.mark.parametrize("cutover", ["state = 'open', epoch = 2", "epoch = 2"])
async def test_cutover_while_it_runs(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, cutover: str
) -> None:
    """The target was opened, or closed anew: what is on it now is no copy of what was read, nor wrong for that."""
    manager = await carried(make_manager, legacy_sql, 50)
    await new_sql(f"UPDATE tandem_people.mark SET {cutover}")
    await new_sql("UPDATE people SET name = 'written by the new authority' WHERE id = 3")
    report = await validate(manager)
    assert (kinds(report.entities[0]), report.verdict) == ({}, Verdict.INCOMPLETE)


@pytest.mark.parametrize(("phase", "source"), [(Phase.OFF, "legacy"), (Phase.COMPLETE, "new")])
async def test_phase_without_second_writes_is_compared_and_says_so(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, phase: Phase, source: str
) -> None:
    manager = await make_manager(phase)
    await legacy_sql(FOLK.format(3))
    await new_sql(
        "INSERT INTO people (id, email, name, born) SELECT n, n || '@x', 'n', '2001-02-03' FROM generate_series(2, 4) AS n"
    )
    validator = SyncValidator(manager.runtime)
    assert validator.direction.source == source
    report = await validator.run(["person"])
    assert kinds(report.entities[0]) == {
        "[1]": MismatchKind.MISSING_IN_NEW,
        "[4]": MismatchKind.MISSING_IN_LEGACY,
    }
    assert [note for note in report.notes if phase.value in note and source in note]


@BOTH_AUTHORITIES
async def test_corruption_of_the_secondary_whichever_it_is(
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
    assert (await validate(manager)).verdict is Verdict.EQUAL
    if to_new:
        await new_sql("UPDATE people SET credit = 0.01 WHERE id = 30")
    else:
        await legacy_sql("UPDATE folk SET cents = 1 WHERE folk_no = 30")
    (entity,) = (await validate(manager)).entities
    assert [(m.key, [f.field for f in m.fields]) for m in entity.mismatches] == [
        ("[30]", ["people.credit" if to_new else "folk.cents"])
    ]
    direction = Direction.TO_NEW if to_new else Direction.TO_LEGACY
    assert SyncValidator(manager.runtime).direction is direction


async def test_values_only_when_asked_and_never_of_secret_fields(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    manager = await carried(make_manager, legacy_sql, 50)
    await new_sql("UPDATE people SET credit = 77.77, name = NULL, email = 'other' WHERE id = 30")
    for show in (False, True):
        report = await SyncValidator(manager.runtime).run(["person"], show_values=show)
        assert "mismatches" not in report.to_dict()["entities"][0]
        (mismatch,) = report.to_dict(mismatches=True)["entities"][0]["mismatches"]
        shown = {
            "people.email": {"legacy": "30@x", "new": "other"},
            "people.name": {"legacy": "n", "new": "NULL"},
        }
        hidden: dict[str, dict[str, str]] = {"people.email": {}, "people.name": {}}
        assert mismatch["fields"] == (shown if show else hidden) | {"people.credit": {}}


async def test_side_that_goes_away_is_no_verdict(
    make_manager: MakeManager, legacy_sql: Sql, people_databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = await carried(make_manager, legacy_sql, 50)
    name = people_databases.new_url.rpartition("/")[2]
    admin = await asyncpg.connect(people_databases.new_url.removesuffix(name) + "postgres")

    async def go_away() -> None:
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)

    between_the_looks(monkeypatch, go_away)
    await legacy_sql("UPDATE folk SET nm = 'on its way' WHERE folk_no = 1")
    with pytest.raises(SideError, match="new side"):
        await validate(manager)
    await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    await admin.close()


async def test_background_run_counts_its_verdicts_and_heeds_new_settings(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = await carried(make_manager, legacy_sql, 50)
    metrics, seen, stop = manager.runtime.metrics, asyncio.Event(), asyncio.Event()
    count = metrics.entity_validated

    def note(*, service: str, entity: str, kind: str, verdict: Verdict | str) -> None:
        count(service=service, entity=entity, kind=kind, verdict=verdict)
        if verdict is Verdict.DIFFERENT:
            seen.set()

    monkeypatch.setattr(metrics, "entity_validated", note)
    running = asyncio.ensure_future(validate_periodically(manager.runtime, stop))
    await new_sql("UPDATE people SET name = 'planted' WHERE id = 2")
    await manager.change_config({"sync_interval": 0.1})
    await asyncio.wait_for(seen.wait(), timeout=10)
    assert (
        b'dualwrite_validations_total{entity="person",kind="full",service="people",verdict="different"}'
        in metrics.render()
    )
    stop.set()
    await asyncio.wait_for(running, timeout=2)


async def test_stop_ends_a_background_run_in_hand(
    make_manager: MakeManager, legacy_sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = await carried(make_manager, legacy_sql, 50)
    looked, stop = asyncio.Event(), asyncio.Event()

    async def note() -> None:
        looked.set()

    between_the_looks(monkeypatch, note)
    await legacy_sql("UPDATE folk SET nm = 'on its way'")
    await manager.change_config({"sync_interval": 0.1})
    running = asyncio.ensure_future(validate_periodically(manager.runtime, stop))
    await asyncio.wait_for(looked.wait(), timeout=10)  # from here on it is patient, for ten seconds
    stop.set()
    await asyncio.wait_for(running, timeout=2)
