"""Documents become rows and rows documents again, to the byte; what cannot be is refused by name."""

from __future__ import annotations

import json
import math
import random
import traceback
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import bson
import pytest
from bson import Code, DatetimeMS, Decimal128, Int64, ObjectId
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.shared.domain.mapping import UnfitError
from backend.task_service.app.mapping import CATALOG, CODEC, COLLECTIONS, Collection
from backend.task_service.app.mapping.collections import AUDIT_LOGS, LABELS, TASKS, USERS
from tests.support.documents import documents

EACH = pytest.mark.parametrize("collection", COLLECTIONS, ids=lambda collection: collection.name)
ID = ObjectId("0123456789abcdef01234567")
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def task(**fields: Any) -> dict[str, Any]:
    needed = {"_id": ID, "title": "t", "status": "todo", "priority": "low", "created_by": ID}
    return {**needed, "created_at": NOON, "updated_at": NOON} | fields


def round_trip(collection: Collection, document: dict[str, Any]) -> dict[str, Any]:
    return dict(collection.document_of(collection.rows_of(document)))


@EACH
@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_document_comes_back_to_the_byte(collection: Collection, data: st.DataObject) -> None:
    document = data.draw(documents(collection))
    rows = collection.rows_of(document)
    again = json.loads(json.dumps(rows), parse_float=Decimal)
    assert bson.encode(collection.document_of(again)) == bson.encode(document)
    assert collection.rows_of(collection.document_of(again)) == rows


@EACH
@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_rows_hold_every_column_and_nothing_else(collection: Collection, data: st.DataObject) -> None:
    rows = collection.rows_of(data.draw(documents(collection)))
    for projection in CATALOG[collection.name].to_new:
        wanted = {column.name for column in projection.columns}
        assert all(set(row) == wanted for row in rows[projection.table.name])
    assert len(rows) == len(CATALOG[collection.name].to_new)


def test_the_order_of_known_fields_does_not_count() -> None:
    items = list(task(source={"ticket": "1", "app": "jira"}, later=1).items())
    random.Random(1).shuffle(items)
    assert round_trip(TASKS, dict(items)) == dict(items)


@pytest.mark.parametrize(
    "fields",
    [
        {"labels": []},
        {"labels": None},
        {"labels": [ID, ID, ObjectId("f" * 24), ID]},
        {"checklist": [{"text": "a"}, {"text": "a", "done": None, "by": ID}, {"text": "", "done": False}]},
        {"source": None},
        {"source": {}},
        {"source": {"app": None}},
        {"source": {"app": "jira", "ticket": "1", "url": None}},
        {"source.app": "another field"},
        {"description": None, "due_at": None},
        {
            "due_at": datetime(1, 1, 1, tzinfo=UTC),
            "completed_at": datetime(9999, 12, 31, 23, 59, 59, 999000, UTC),
        },
        {"status": "In Progress", "priority": "URGENT"},
        {"status": "inProgress"},
        {"status": "canceled"},
        {"extra": {"unknown": 1}, "sync_status": "FAILED", "": 0},
    ],
)
def test_awkward_tasks_come_back(fields: dict[str, Any]) -> None:
    assert round_trip(TASKS, task(**fields)) == task(**fields)


@pytest.mark.parametrize(
    ("value", "column"),
    [
        (Decimal128("1.20"), "1.20"),
        (Decimal128("1E+6"), "1000000"),
        (Decimal128("-0.00"), "0.00"),
        (Decimal128("NaN"), "NaN"),
        (Decimal128("-Infinity"), "-Infinity"),
        (5, "5"),
        (Int64(5), "5"),
        (5.0, "5.0"),
        (0.1, "0.1"),
        (-0.0, "0.0"),
        (1e-300, "0." + "0" * 299 + "1"),
        (math.inf, "Infinity"),
    ],
)
def test_a_number_keeps_its_type_beside_the_column(value: Any, column: str) -> None:
    rows = TASKS.rows_of(task(estimate_hours=value))
    assert rows["tasks"][0]["estimate_hours"] == column
    found = TASKS.document_of(rows)["estimate_hours"]
    assert bson.encode({"v": found}) == bson.encode({"v": value})


@pytest.mark.parametrize(
    ("changed", "field", "expected"),
    [
        ({"estimate_hours": Decimal("7.5")}, "estimate_hours", Decimal128("7.5")),
        ({"estimate_hours": 5}, "estimate_hours", 5),
        ({"status": "done"}, "status", "done"),
        ({"status": "in_progress"}, "status", "In Progress"),
        ({"description": "now there"}, "description", "now there"),
        ({"source_app": "mail"}, "source", {"app": "mail"}),
    ],
)
def test_a_column_that_was_changed_has_the_last_word(
    changed: dict[str, Any], field: str, expected: Any
) -> None:
    before = task(estimate_hours=5, status="In Progress", description=None, source=None)
    rows = TASKS.rows_of(before)
    row = {**rows["tasks"][0], **changed}
    found = TASKS.document_of({**rows, "tasks": [row]})
    assert found[field] == expected
    assert type(found[field]) is type(expected)


def test_rows_of_an_array_have_the_last_word_over_null() -> None:
    rows = TASKS.rows_of(task(labels=None))
    row = {"task_id": str(ID), "position": 3, "label_id": "a" * 24}
    assert TASKS.document_of({**rows, "task_labels": [row]})["labels"] == [ObjectId("a" * 24)]


def test_a_row_that_the_service_wrote_by_itself() -> None:
    row = {"mongo_id": str(ID), "email_id": "a@example.com", "google_id": None, "name": "Ann", "extra": "{}"}
    assert USERS.document_of({"users": [row]}) == {"_id": ID, "email_id": "a@example.com", "name": "Ann"}


def test_moments_as_postgresql_prints_them() -> None:
    rows = TASKS.rows_of(task())
    for text, moment in {
        "2026-01-02T03:04:05.12+00:00": datetime(2026, 1, 2, 3, 4, 5, 120000, UTC),
        "2026-01-02T03:04:05+00:00": datetime(2026, 1, 2, 3, 4, 5, 0, UTC),
        "2026-01-02T08:34:05.5+05:30": datetime(2026, 1, 2, 3, 4, 5, 500000, UTC),
    }.items():
        row = {**rows["tasks"][0], "created_at": text}
        assert TASKS.document_of({**rows, "tasks": [row]})["created_at"] == moment


def test_a_date_without_a_time_zone_is_utc_and_finer_digits_are_cut_off_as_the_driver_does() -> None:
    for given_, kept in (
        (NOON.replace(tzinfo=None, microsecond=999999), "2026-01-02T12:00:00.999+00:00"),
        (datetime(1, 1, 1, tzinfo=timezone(-timedelta(hours=1))), "0001-01-01T01:00:00.000+00:00"),
    ):
        assert TASKS.rows_of(task(due_at=given_))["tasks"][0]["due_at"] == kept


UNFIT_TASKS: list[tuple[dict[str, Any], str]] = [
    ({"_id": "0123456789abcdef01234567"}, "_id: string where objectId is expected"),
    ({"title": 5}, "title: int where string is expected"),
    ({"title": None}, "title: null, but needed"),
    ({"title": Code("t")}, "title: javascript where string is expected"),
    ({"title": "a\0b"}, "title: a text with a NUL character"),
    ({"title": "a\udcff"}, "title: a text that is not UTF-8"),
    ({"status": "someday"}, "status: a string that is none of todo, in_progress, done, cancelled"),
    ({"status": 1}, "status: int where string is expected"),
    ({"created_by": "0123456789abcdef01234567"}, "created_by: string where objectId is expected"),
    ({"due_at": DatetimeMS(2**62)}, "due_at: a date outside of the years 1 to 9999"),
    ({"due_at": "2026-01-02"}, "due_at: string where date is expected"),
    ({"due_at": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))}, "due_at: a date outside"),
    ({"estimate_hours": "5"}, "estimate_hours: string where decimal is expected"),
    ({"estimate_hours": True}, "estimate_hours: bool where decimal is expected"),
    ({"estimate_hours": Decimal128("1E+6111")}, "estimate_hours: decimal of more than 1000 digits"),
    ({"estimate_hours": Decimal128("-NaN")}, "estimate_hours: a NaN with a sign or a payload"),
    ({"estimate_hours": Decimal128("sNaN")}, "estimate_hours: a NaN with a sign or a payload"),
    ({"source": "jira"}, "source: string where object is expected"),
    ({"source": {"ticket": 7}}, "source.ticket: int where string is expected"),
    ({"source": {"x": "\0"}}, "source.x: holds a text with a NUL character"),
    ({"labels": ID}, "labels: objectId where array is expected"),
    ({"labels": [ID, None]}, "labels.1: null where objectId is expected"),
    ({"checklist": ["buy"]}, "checklist.0: string where object is expected"),
    ({"checklist": [{"done": True}]}, "checklist.0.text: missing"),
    ({"checklist": [{"text": "", "done": 1}]}, "checklist.0.done: int where bool is expected"),
    ({"checklist": [{"text": "", "x": "\0"}]}, "checklist.0.x: holds a text with a NUL character"),
    ({"x": "a\0"}, "x: holds a text with a NUL character"),
    ({"fine": "\\u0000", "x": {"y": ["\\\0"]}}, "x: holds a text with a NUL character"),
    ({"x": {"deep": "\ud800"}}, "x: holds a text that is not UTF-8"),
    ({"x": {"$numberInt": "5"}}, "x: holds what extended JSON cannot say"),
    ({"x": {"$oid": "5"}}, "x: holds what extended JSON cannot say"),
    ({"x": Decimal128("sNaN")}, "x: holds what extended JSON cannot say"),
    ({"na\nme\ud800": 1}, r"'na\nme\ud800': holds a text that is not UTF-8"),
]


@pytest.mark.parametrize(("fields", "message"), UNFIT_TASKS, ids=[message for _, message in UNFIT_TASKS])
def test_what_does_not_fit_is_refused_by_field_and_type(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UnfitError) as caught:
        TASKS.rows_of(task(**fields))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name", ["title", "status", "created_by", "updated_at", "_id"])
def test_a_needed_field_that_is_missing_is_refused(name: str) -> None:
    document = task()
    del document[name]
    with pytest.raises(UnfitError, match=rf"^{name}: (missing|null)"):
        TASKS.rows_of(document)


def test_other_fields_have_their_limits_too() -> None:
    with pytest.raises(UnfitError, match=r"^email_id: a text of more than 2000 bytes$"):
        USERS.rows_of({"_id": ID, "email_id": "é" * 1001})
    with pytest.raises(UnfitError, match=r"^color: a string that is no colour"):
        LABELS.rows_of({"_id": ID, "name": "", "color": "#12345g"})
    entry = {"_id": ID, "action": "", "collection": "", "created_at": NOON}
    others: tuple[Any, ...] = ([], "text", 5)
    for document in others:
        with pytest.raises(UnfitError, match=r"^document: \w+ where object is expected$"):
            AUDIT_LOGS.rows_of({**entry, "document": document})
    with pytest.raises(UnfitError, match=r"^document: holds a text with a NUL character$"):
        AUDIT_LOGS.rows_of({**entry, "document": {"a": [{"b\\": "\0"}]}})


@pytest.mark.parametrize(
    "secret",
    ["swordfish", Code("swordfish"), {"$oid": "swordfish"}, {"a": "swordfish\0"}, ["swordfish\ud800"]],
)
@pytest.mark.parametrize("field", ["_id", "status", "created_by", "due_at", "labels", "source", "x"])
def test_an_error_never_tells_a_value(field: str, secret: Any) -> None:
    value = [secret] if field == "x" else secret
    with pytest.raises(UnfitError) as caught:
        TASKS.rows_of(task(**{field: value, "y": "\0"}))
    # Nor does what was raised before it.
    shown = "".join(traceback.format_exception(caught.value, limit=0))
    assert "swordfish" not in shown


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mongo_id": "A" * 24}, "_id: the column holds no 24 digits"),
        ({"status": "lost"}, "status: the column holds none of"),
        ({"title": None}, "title: the column is NULL"),
        ({"created_at": "infinity"}, "created_at: the column holds no date"),
        ({"created_at": "0044-03-15T00:00:00+00:00 BC"}, "created_at: the column holds no date"),
        (
            {"created_at": "2026-01-02T03:04:05.123456+00:00"},
            "created_at: the column holds parts of a millisecond",
        ),
        (
            {"estimate_hours": "1." + "3" * 40},
            "estimate_hours: the column holds a number that Decimal128 cannot",
        ),
        ({"estimate_hours": 0.1}, "estimate_hours: the column holds no exact number"),
        ({"extra": "[]"}, "extra: is no extended JSON of an object"),
        ({"extra": "{"}, "extra: is no extended JSON of an object"),
        (
            {"extra": '{"unknown": {"title": "another"}}'},
            "title: extra has a field that has a column of its own",
        ),
    ],
)
def test_rows_that_no_document_can_hold_are_refused(changed: dict[str, Any], message: str) -> None:
    rows = TASKS.rows_of(task())
    with pytest.raises(UnfitError) as caught:
        TASKS.document_of({**rows, "tasks": [{**rows["tasks"][0], **changed}]})
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "extra",
    [
        '{"null": 5}',
        '{"null": "title"}',
        '{"hints": []}',
        '{"nested": {"source": 3}}',
        '{"missing": {"labels": 1}}',
    ],
)
def test_an_extra_that_somebody_spoiled_says_nothing(extra: str) -> None:
    rows = TASKS.rows_of(task(labels=[], checklist=[]))
    found = TASKS.document_of({**rows, "tasks": [{**rows["tasks"][0], "extra": extra}]})
    assert {name: found[name] for name in task()} == task()


def test_a_changed_embedded_document_forgets_the_order_it_had() -> None:
    entry = {
        "_id": ID,
        "action": "",
        "collection": "",
        "created_at": NOON,
        "document": {"b": 1, "a": {"d": 1, "c": 2}},
    }
    rows = AUDIT_LOGS.rows_of(entry)
    row = dict(rows["audit_logs"][0])
    as_jsonb = '{"a": {"c": {"$numberInt": "2"}, "d": {"$numberInt": "1"}}, "b": {"$numberInt": "1"}}'
    found = AUDIT_LOGS.document_of({"audit_logs": [{**row, "document": as_jsonb}]})
    assert bson.encode(found) == bson.encode(AUDIT_LOGS.document_of(rows))
    assert list(found["document"]) == ["b", "a"]
    found = AUDIT_LOGS.document_of({"audit_logs": [{**row, "document": '{"a": "x", "b": "y", "c": "z"}'}]})
    assert found["document"] == {"a": "x", "b": "y", "c": "z"}


def test_the_order_inside_of_code_and_references_outlives_jsonb_until_somebody_changes_it() -> None:
    scoped = Code("f()", {"b": 1, "a": 2})
    entry = {
        "_id": ID,
        "action": "",
        "collection": "",
        "created_at": NOON,
        "document": {"z": scoped, "a": scoped},
    }
    row = AUDIT_LOGS.rows_of(entry)["audit_logs"][0]
    as_jsonb = json.dumps(json.loads(row["document"]), sort_keys=True)
    found = AUDIT_LOGS.document_of({"audit_logs": [{**row, "document": as_jsonb}]})
    assert bson.encode({"v": found["document"]}) == bson.encode({"v": entry["document"]})
    found = AUDIT_LOGS.document_of({"audit_logs": [{**row, "document": '{"a": "changed"}'}]})
    assert found["document"] == {"a": "changed"}


def test_a_text_that_is_no_utf_8_and_a_date_out_of_range_reach_the_mapping() -> None:
    raw = bytearray(bson.encode(task(title="abcd", due_at=DatetimeMS(2**62))))
    raw[raw.index(b"abcd")] = 0xFF
    document = bson.decode(bytes(raw), CODEC)
    with pytest.raises(UnfitError, match=r"^title: a text that is not UTF-8$"):
        TASKS.rows_of(document)
    with pytest.raises(UnfitError, match=r"^due_at: a date outside"):
        TASKS.rows_of({**document, "title": ""})


def test_parents_come_first() -> None:
    names = [entity.name for entity in CATALOG.ordered]
    assert (
        names.index("users") < names.index("teams") < names.index("tasks") < names.index("task_assignments")
    )
    for collection in COLLECTIONS:
        referred = {key.column.table.name for key in collection.root.foreign_keys}
        assert referred <= set(collection.parents)
