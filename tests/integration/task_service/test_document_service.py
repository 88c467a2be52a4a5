"""`DocumentDualWriteService` on both sides of the task service, under both authorities."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from bson import ObjectId
from structlog.testing import capture_logs

from backend.shared import (
    ConfigurationError,
    ConflictError,
    DocumentAction,
    DocumentDualWriteService,
    DocumentOperation,
    DualWriteManager,
    NotFoundError,
    Phase,
    UnitOfWork,
    ValidationError,
)
from backend.shared.documents import Documents
from backend.task_service.app.core.dual_write_manager import TaskDualWriteManager
from tests.integration.task_service.conftest import MakePair
from tests.support.fixtures import BOTH_AUTHORITIES
from tests.support.people import PeopleManager
from tests.support.task_pair import ANN, BOB, TaskPair, user

TASK = ObjectId("65f000000000000000000010")
MOMENT = datetime(2026, 3, 1, 12, 30, 15, 123000, tzinfo=UTC)


def task(**fields: Any) -> dict[str, Any]:
    return {
        "_id": TASK,
        "title": "mow the lawn",
        "description": None,
        "status": "todo",
        "priority": "low",
        "created_by": ANN,
        "labels": [],
        "checklist": [{"text": "find the mower", "done": False, "why": "lost"}],
        "created_at": MOMENT,
        "updated_at": MOMENT,
        "unknown": {"kept": [1, 2.5, None]},
    } | fields


async def held(manager: DualWriteManager, entity: str, number: ObjectId) -> dict[str, Any] | None:
    """The document that the authoritative side holds."""

    async def unit(work: UnitOfWork) -> dict[str, Any] | None:
        documents = Documents(work, catalog=manager.runtime.catalog, names=manager.runtime.names)
        return await documents.get(entity, (str(number),))

    return await manager.read(unit)


async def audited(pair: TaskPair) -> list[tuple[str, str, Any]]:
    """The audit records, as both sides have them once they are carried."""
    await pair.carry()
    found = [
        (row["action"], row["collection"], row["document"])
        async for row in pair.documents.audit_logs.find().sort("_id", 1)
    ]
    rows = await pair.sql("SELECT action, collection FROM audit_logs ORDER BY mongo_id")
    assert [tuple(row) for row in rows] == [record[:2] for record in found]
    return found


@BOTH_AUTHORITIES
async def test_a_document_is_created_changed_and_deleted_on_both_sides(
    make_pair: MakePair, phase: Phase
) -> None:
    pair = await make_pair(phase)
    service = DocumentDualWriteService(pair.manager)
    assert (await service.create_document("users", user())).unwrap() == str(ANN)
    assert (await service.create_document("tasks", task())).unwrap() == str(TASK)
    assert await held(pair.manager, "tasks", TASK) == task()
    await pair.carry()
    assert await pair.documents.tasks.find_one({"_id": TASK}) == task()
    assert (await pair.row("tasks", TASK) or {})["title"] == "mow the lawn"

    (
        await service.update_document(
            "tasks", str(TASK), {"title": "sleep", "checklist": []}, remove=["unknown"]
        )
    ).unwrap()
    wanted = task(title="sleep", checklist=[])
    del wanted["unknown"]
    assert await held(pair.manager, "tasks", TASK) == wanted
    await pair.carry()
    assert await pair.documents.tasks.find_one({"_id": TASK}) == wanted
    assert await pair.sql("SELECT FROM task_checklist") == []

    assert (await service.delete_document("tasks", str(TASK))).unwrap() == str(TASK)
    await pair.carry()
    assert await pair.documents.tasks.find_one({"_id": TASK}) is None
    assert await pair.row("tasks", TASK) is None


@BOTH_AUTHORITIES
async def test_every_operation_leaves_an_audit_record_with_it(make_pair: MakePair, phase: Phase) -> None:
    pair = await make_pair(phase)
    service = DocumentDualWriteService(pair.manager)
    await service.create_document("users", user())
    await service.update_document("users", str(ANN), {"name": "Anna"}, remove=["google_id"])
    await service.delete_document("users", str(ANN))
    last = user(name="Anna")
    del last["google_id"]
    assert await audited(pair) == [
        ("create", "users", user()),
        ("update", "users", {"_id": ANN, "set": {"name": "Anna"}, "removed": ["google_id"]}),
        ("delete", "users", last),
    ]


@BOTH_AUTHORITIES
async def test_a_batch_is_done_as_a_whole(make_pair: MakePair, phase: Phase) -> None:
    pair = await make_pair(phase)
    service = DocumentDualWriteService(pair.manager)
    result = await service.batch_operations(
        [
            {"action": "create", "collection_name": "users", "document": user()},
            DocumentOperation(
                action=DocumentAction.CREATE,
                collection_name="users",
                mongo_id=str(BOB),
                document={"email_id": "b@x.org"},
            ),
            {
                "action": "update",
                "collection_name": "users",
                "mongo_id": str(ANN),
                "changes": {"name": "Anna"},
            },
            {"action": "delete", "collection_name": "users", "mongo_id": str(BOB)},
        ]
    )
    assert result.unwrap() == [str(ANN), str(BOB), str(ANN), str(BOB)]
    assert await held(pair.manager, "users", ANN) == user(name="Anna")
    assert await held(pair.manager, "users", BOB) is None
    assert [action for action, _, _ in await audited(pair)] == ["create", "create", "update", "delete"]


@BOTH_AUTHORITIES
@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (
            {"action": "create", "collection_name": "users", "document": user(BOB, email_id=5)},
            ValidationError,
        ),
        ({"action": "create", "collection_name": "users", "document": user()}, ConflictError),
        (
            {
                "action": "update",
                "collection_name": "users",
                "mongo_id": str(BOB),
                "changes": {"name": "x"},
            },
            NotFoundError,
        ),
        ({"action": "delete", "collection_name": "users", "mongo_id": str(BOB)}, NotFoundError),
    ],
    ids=["a document that does not fit", "one that is there", "changing nothing", "deleting nothing"],
)
async def test_nothing_of_a_batch_is_kept_if_one_of_it_cannot_be(
    make_pair: MakePair, phase: Phase, bad: dict[str, Any], kind: type[ValidationError]
) -> None:
    pair = await make_pair(phase)
    service = DocumentDualWriteService(pair.manager)
    first = {"action": "create", "collection_name": "users", "document": user()}
    with pytest.raises(kind) as raised:
        await service.batch_operations([first, bad])
    assert type(raised.value) is kind
    assert await held(pair.manager, "users", ANN) is None
    assert await audited(pair) == []


@BOTH_AUTHORITIES
async def test_nothing_of_a_batch_is_kept_if_the_database_refuses_one(
    make_pair: MakePair, phase: Phase
) -> None:
    """On MongoDB nothing asks for an assignment's task; so it is an id that is there already, behind the unit's back."""
    pair = await make_pair(phase)
    service = DocumentDualWriteService(pair.manager)
    await service.create_document("users", user(BOB, email_id="taken@example.org"))
    if phase is Phase.DUALWRITE:
        await pair.documents.users.create_index("email_id", unique=True)
    with capture_logs() as logs:
        result = await service.batch_operations(
            [
                {"action": "create", "collection_name": "users", "document": user()},
                {
                    "action": "create",
                    "collection_name": "users",
                    "document": user(TASK, email_id="taken@example.org"),
                },
            ]
        )
    assert not result.success
    assert await held(pair.manager, "users", ANN) is None
    failed = [entry for entry in logs if entry["event"] == "document_write_failed"]
    assert [(entry["log_level"], entry["mongo_id"]) for entry in failed] == [
        ("error", str(ANN)),
        ("error", str(TASK)),
    ]
    assert "taken@" not in json.dumps(logs, default=str), "no value of a document"
    if phase is Phase.DUALWRITE:
        await pair.documents.users.drop_indexes()


@pytest.mark.parametrize(
    ("collection", "number", "changes", "remove"),
    [
        ("nonsense", str(ANN), {"name": "x"}, []),
        ("tandem_task_journal", str(ANN), {"name": "x"}, []),
        (5, str(ANN), {"name": "x"}, []),
        ("users", "nonsense", {"name": "x"}, []),
        ("users", str(ANN)[:-1], {"name": "x"}, []),
        ("users", "Z" * 24, {"name": "x"}, []),
        ("users", None, {"name": "x"}, []),
        ("users", 12, {"name": "x"}, []),
        ("users", str(ANN), {}, []),
        ("users", str(ANN), None, []),
        ("users", str(ANN), [("name", "x")], []),
        ("users", str(ANN), {1: "x"}, []),
        ("users", str(ANN), {"_id": BOB, "name": "x"}, []),
        ("users", str(ANN), {"_id": "other", "name": "x"}, []),
        ("users", str(ANN), {"name": {1, 2}}, []),
        ("users", str(ANN), {"name": object()}, []),
        ("users", str(ANN), {"name": 2**70}, []),
        ("users", str(ANN), {"na\0me": "x"}, []),
        ("users", str(ANN), {"name": "x"}, ["name"]),
        ("users", str(ANN), {}, ["_id"]),
        ("users", str(ANN), {}, "name"),
        ("users", str(ANN), {"email_id": None}, []),
        ("users", str(ANN), {}, ["email_id"]),
    ],
)
async def test_bad_input_changes_nothing(
    shared_pair: TaskPair, collection: Any, number: Any, changes: Any, remove: Any
) -> None:
    service = DocumentDualWriteService(shared_pair.manager)
    with pytest.raises(ValidationError):
        await service.update_document(collection, number, changes, remove=remove)
    assert await held(shared_pair.manager, "users", ANN) == user()
    assert await shared_pair.documents.audit_logs.count_documents({}) == 1


@pytest.fixture
async def shared_pair(make_pair: MakePair) -> TaskPair:
    pair = await make_pair()
    (await DocumentDualWriteService(pair.manager).create_document("users", user())).unwrap()
    return pair


@pytest.mark.parametrize(
    "operation",
    [
        5,
        {},
        {"action": "nonsense", "collection_name": "users"},
        {"action": ["create"], "collection_name": "users", "document": {}},
        {"action": "create", "collection_name": "users", "document": user(), "more": 1},
        {"action": "update", "collection_name": "users", "document": {}, "changes": {}},
        {"action": "delete", "collection_name": "users", "mongo_id": str(ANN), "document": user()},
        {"action": "create", "collection_name": "users", "document": user(), "remove": ["name"]},
        {"action": "create", "collection_name": "users", "document": user(), "mongo_id": str(BOB)},
    ],
)
async def test_a_batch_with_what_is_no_operation_is_refused(operation: Any) -> None:
    """Before anything is asked of a database: this manager could not even connect."""
    service = DocumentDualWriteService(
        TaskDualWriteManager("postgresql://x@localhost:1/x", "mongodb://localhost:1/x")
    )
    with pytest.raises(ValidationError):
        await service.batch_operations([operation])
    with pytest.raises(ValidationError):
        await service.batch_operations([])


def test_audit_records_need_a_place() -> None:
    manager = PeopleManager("postgresql://x@localhost:1/x", "postgresql://x@localhost:1/y")
    with pytest.raises(ConfigurationError):
        DocumentDualWriteService(manager)


@BOTH_AUTHORITIES
async def test_what_is_written_is_what_bson_can_say(make_pair: MakePair, phase: Phase) -> None:
    """Microseconds and zones are no part of a date there; both sides say so alike."""
    pair = await make_pair(phase)
    service = DocumentDualWriteService(pair.manager)
    await service.create_document("users", user())
    precise = datetime(2026, 3, 1, 13, 30, 15, 123456, tzinfo=UTC).astimezone()
    await service.create_document("tasks", task(due_at=precise))
    found = await held(pair.manager, "tasks", TASK)
    assert found is not None
    assert found["due_at"] == precise.replace(microsecond=123000)


async def test_two_that_create_the_same_document(make_pair: MakePair) -> None:
    """Where rows stand for documents nothing but a lock keeps the second from overwriting the first."""
    pair = await make_pair(Phase.LIVE)
    second = DocumentDualWriteService(await pair.make_manager())
    first = DocumentDualWriteService(pair.manager)

    async def inside(work: UnitOfWork) -> str:
        documents = Documents(work, catalog=pair.manager.runtime.catalog, names=pair.manager.runtime.names)
        await documents.insert("users", user())
        waiting = asyncio.ensure_future(second.create_document("users", user(name="Bea")))
        await blocked(pair)
        racing.append(waiting)
        return ""

    racing: list[asyncio.Future[Any]] = []
    (await pair.manager.write("create", inside)).unwrap()
    with pytest.raises(ConflictError):
        await racing[0]
    assert await held(pair.manager, "users", ANN) == user()
    with pytest.raises(ConflictError):
        await first.create_document("users", user(name="Cid"))


async def blocked(pair: TaskPair) -> None:
    """Until somebody waits for a lock."""
    query = (
        "SELECT count(*) AS n FROM pg_stat_activity "
        "WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    async with asyncio.timeout(10):
        while not (await pair.sql(query))[0]["n"]:
            pass
