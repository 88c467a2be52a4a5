"""I5: the validator reports no row that is merely on its way, and misses none that truly differs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from backend.shared import Phase, SyncValidator, ValidationError
from backend.shared.observability.labels import Verdict
from backend.shared.sync_validator import parse_key
from backend.shared.validation.report import EntityReport, MismatchKind, ValidationReport
from tests.support.fixtures import BOTH_AUTHORITIES, MakeManager, Sql
from tests.support.people import NOTE, PERSON, PeopleManager
from tests.support.steps import PauseAt

MANY = (
    "INSERT INTO folk (folk_no, mail, nm, cents, born) SELECT n, n || '@example.org', 'n' || n, n, '2001-02-03' "
    "FROM generate_series(1, 2500) AS n"
)


async def filled(make_manager: MakeManager, legacy_sql: Sql, phase: Phase = Phase.DUALWRITE) -> PeopleManager:
    """2,500 equal people with cities and notes on both sides."""
    loader = await make_manager(Phase.DUALWRITE, batch_size=5000)
    await legacy_sql(MANY)
    await legacy_sql("INSERT INTO folk_extra SELECT folk_no, 'Ulm' FROM folk")
    await legacy_sql(
        "INSERT INTO notes (folk_no, body) SELECT folk_no, 'note' FROM folk WHERE folk_no % 5 = 0"
    )
    assert await loader.relay().drain(timeout_seconds=30)
    return loader


async def validate(manager: PeopleManager, *, patience_seconds: float = 0.5) -> ValidationReport:
    return await SyncValidator(manager.runtime, chunk_rows=500).run(patience_seconds=patience_seconds)


def found(reports: Iterable[EntityReport]) -> set[tuple[str, str, MismatchKind, tuple[str, ...]]]:
    return {
        (report.entity, item.key, item.kind, tuple(field.field for field in item.fields))
        for report in reports
        for item in report.mismatches
    }


async def test_equal_sides_are_equal_and_counted(make_manager: MakeManager, legacy_sql: Sql) -> None:
    report = await validate(await filled(make_manager, legacy_sql))
    assert report.verdict is Verdict.EQUAL
    assert [(r.entity, r.rows_legacy, r.rows_new) for r in report.entities] == [
        ("person", 2500, 2500),
        ("note", 500, 500),
    ]
    assert report.to_dict()["summary"] == {
        "entities": 2,
        "equal": 2,
        "different": 0,
        "incomplete": 0,
        "rows_compared": 3000,
        "mismatches": 0,
    }


@pytest.mark.invariant("I5")
@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        ("UPDATE people SET credit = credit + 0.01 WHERE id = 7", ("[7]", "different", ("people.credit",))),
        ("UPDATE people SET name = name || ' ' WHERE id = 2500", ("[2500]", "different", ("people.name",))),
        ("UPDATE people SET name = NULL WHERE id = 1", ("[1]", "different", ("people.name",))),
        ("UPDATE people SET name = '' WHERE id = 1", ("[1]", "different", ("people.name",))),
        ("UPDATE people SET born = born + 1 WHERE id = 1250", ("[1250]", "different", ("people.born",))),
        (
            "UPDATE profiles SET city = 'ulm' WHERE person_id = 499",
            ("[499]", "different", ("profiles.city",)),
        ),
        (
            "DELETE FROM profiles WHERE person_id = 500",
            ("[500]", "different", ("profiles.city", "profiles.person_id")),
        ),
        (
            "DELETE FROM people WHERE id = 501",
            (
                "[501]",
                "missing_in_new",
                *[
                    [
                        "people.born",
                        "people.credit",
                        "people.email",
                        "people.id",
                        "people.name",
                        "profiles.city",
                        "profiles.person_id",
                    ]
                ],
            ),
        ),
        (
            "INSERT INTO people (id, email) VALUES (9999, 'extra')",
            (
                "[9999]",
                "missing_in_legacy",
                ["people.born", "people.credit", "people.email", "people.id", "people.name"],
            ),
        ),
        (
            "INSERT INTO people (id, email) VALUES (-5, 'extra')",
            (
                "[-5]",
                "missing_in_legacy",
                ["people.born", "people.credit", "people.email", "people.id", "people.name"],
            ),
        ),
    ],
)
async def test_i5_planted_corruption_is_found_exactly(
    make_manager: MakeManager,
    legacy_sql: Sql,
    new_sql: Sql,
    damage: str,
    expected: tuple[str, str, tuple[str, ...]],
) -> None:
    manager = await filled(make_manager, legacy_sql)
    await new_sql(damage)
    report = await validate(manager)
    key, kind, fields = expected
    assert found(report.entities) == {("person", key, MismatchKind(kind), tuple(fields))}
    assert report.verdict is Verdict.DIFFERENT
    assert [r.verdict for r in report.entities] == [Verdict.DIFFERENT, Verdict.EQUAL]


@pytest.mark.invariant("I5")
async def test_i5_swapped_rows_are_found(make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql) -> None:
    manager = await filled(make_manager, legacy_sql)
    await new_sql(
        "UPDATE notes SET person_id = CASE person_id WHEN 5 THEN 10 ELSE 5 END WHERE person_id IN (5, 10)"
    )
    report = await validate(manager)
    kinds = {(entity, kind, fields) for entity, _, kind, fields in found(report.entities)}
    assert kinds == {("note", MismatchKind.DIFFERENT, ("notes.person_id",))}
    assert report.entities[1].different == 2


@pytest.mark.invariant("I5")
async def test_i5_row_with_an_open_journal_row_is_on_its_way(
    make_manager: MakeManager, legacy_sql: Sql
) -> None:
    manager = await filled(make_manager, legacy_sql)
    await legacy_sql("UPDATE folk SET nm = 'moved' WHERE folk_no IN (1, 1000)")
    report = await validate(manager)
    assert report.verdict is Verdict.INCOMPLETE, "unfinished is never equal"
    assert found(report.entities) == set()
    assert report.entities[0].moving == 2
    await manager.relay().drain(timeout_seconds=10)
    assert (await validate(manager)).verdict is Verdict.EQUAL


@pytest.mark.invariant("I5")
async def test_i5_row_between_apply_and_end_is_not_reported(
    make_manager: MakeManager, legacy_sql: Sql
) -> None:
    """The relay reads, the row changes again and waits; the target is behind the source all the while."""
    manager = await filled(make_manager, legacy_sql)
    pause = PauseAt("after_read")
    slow = await make_manager(hook=pause)
    await legacy_sql("UPDATE folk SET nm = 'one' WHERE folk_no = 3")
    carrying = asyncio.ensure_future(slow.relay().run_once())
    await pause.reached.wait()
    report = await validate(manager)
    assert (found(report.entities), report.entities[0].moving) == (set(), 1)
    pause.resume.set()
    await carrying
    assert (await validate(manager)).verdict is Verdict.EQUAL


@pytest.mark.invariant("I5")
async def test_i5_guard_newer_than_the_source_snapshot_is_looked_at_again(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    """The target was carried after the source was read: nothing can be said from these two looks."""
    manager = await filled(make_manager, legacy_sql)
    await new_sql("UPDATE people SET name = 'newer' WHERE id = 3")
    await new_sql(
        "UPDATE tandem_people.guard SET major = major + 1000000 WHERE entity = 'person' AND key = '[3]'"
    )
    report = await validate(manager)
    assert (found(report.entities), report.verdict) == (set(), Verdict.INCOMPLETE)


@pytest.mark.invariant("I5")
async def test_i5_failed_is_different(make_manager: MakeManager, legacy_sql: Sql) -> None:
    manager = await filled(make_manager, legacy_sql)
    strict = await make_manager(retry_attempts=1)
    await legacy_sql("UPDATE folk SET cents = -1 WHERE folk_no = 4")
    await legacy_sql("UPDATE folk SET born = 'no date' WHERE folk_no = 6")
    await strict.relay().drain(timeout_seconds=10)
    report = await validate(manager)
    assert {(key, kind) for _, key, kind, _ in found(report.entities)} == {
        ("[4]", MismatchKind.FAILED),
        ("[6]", MismatchKind.FAILED),
    }
    assert (report.entities[0].different, report.entities[0].rows_legacy) == (2, 2500)


@BOTH_AUTHORITIES
async def test_one_key(make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql, *, phase: Phase) -> None:
    manager = await make_manager(phase)
    view = await manager.validate_key("1", entity="person", show_values=True)
    assert (view.verdict, view.in_legacy, view.in_new) == (Verdict.EQUAL, False, False)
    probe = await manager.test_operation()
    assert (probe.success, probe.cleaned_up) == (True, True), probe
    other = new_sql if phase is Phase.DUALWRITE else legacy_sql
    table = "people (id, email, name)" if phase is Phase.DUALWRITE else "folk (folk_no, mail, nm)"
    await other(f"INSERT INTO {table} VALUES (1, 'x', 'planted')")
    view = await manager.validate_key("[1]", entity="person", show_values=True)
    assert view.verdict is Verdict.DIFFERENT
    assert (view.in_legacy, view.in_new) == (phase is Phase.RAMPDOWN, phase is Phase.DUALWRITE)
    shown = {item.field.rpartition(".")[2]: item for item in view.differences}
    assert "planted" in {shown.get("name", shown.get("nm")).new, shown.get("name", shown.get("nm")).legacy}  # type: ignore[union-attr]
    secret = shown.get("credit", shown.get("cents"))
    assert secret is not None
    assert (secret.new, secret.legacy) == (None, None)


@pytest.mark.parametrize(
    "text", ["", "x", "1.5", "[1, 2]", "[]", "99999999999", "[true]", "[[1]]", "{}", "²", "-", "\0"]
)
def test_bad_keys_are_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        parse_key(NOTE, text)


def test_good_keys_are_read() -> None:
    assert parse_key(PERSON, "7") == parse_key(PERSON, "[7]") == (7,)
    assert parse_key(PERSON, "-7") == (-7,)
