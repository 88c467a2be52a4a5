"""What MongoDB's refusals and silences are taken for, on a real server, and what a caller is told of each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import bson
import pytest
from bson import DatetimeMS
from prometheus_client import CollectorRegistry
from pymongo.errors import PyMongoError

from backend.shared import DualWriteSettings
from backend.shared.domain.outages import Outage
from backend.shared.domain.phases import Side
from backend.shared.journal.on_sides import count_open_conflicts
from backend.shared.observability.metrics import Metrics
from backend.shared.stores.errors import (
    classify,
    constraint_of,
    describe,
    is_connection_loss,
    is_database_error,
    is_repeatable,
    is_unreachable,
    sqlstate_of,
    to_side_error,
)
from backend.shared.stores.mongo.collections import Client
from backend.shared.stores.protocol import Trouble
from backend.shared.testing.document_servers import DocumentServer
from backend.shared.testing.ports import free_port
from backend.task_service.app.core.dual_write_manager import TaskDualWriteManager
from tests.support.document_clients import TakenWatch, connected, direct, told_of
from tests.support.proxy import cuttable_wire

SECRET = "hunter2-Zx81"


@asynccontextmanager
async def held_document(url: str) -> AsyncIterator[None]:
    """A transaction of somebody else's holds the document 1 of `things`."""
    async with connected(url) as other, other.start_session() as session:
        things = other.get_default_database().things
        await things.insert_one({"_id": 1})
        await session.start_transaction()
        await things.update_one({"_id": 1}, {"$set": {"held": True}}, session=session)
        try:
            yield
        finally:
            await session.abort_transaction()


async def error_of(operation: Any) -> BaseException:
    with pytest.raises(PyMongoError) as caught:
        await operation
    return caught.value


async def assert_told(error: BaseException, outage: Outage) -> None:
    """A caller is told of `outage`, with the status of its kind, and when to come again."""
    told = await told_of(error)
    assert told.outage is outage
    assert (told.status, told.kind) == (
        (504, "side-timeout") if outage.is_timeout else (503, "side-unavailable")
    )
    assert told.retry_after is not None
    assert classify(error) is Trouble.UNAVAILABLE
    assert is_database_error(error)
    assert to_side_error(error, Side.NEW).unavailable


async def test_full_pool(document_url: str) -> None:
    watch = TakenWatch()
    async with (
        held_document(document_url),
        connected(document_url, watch=watch, max_pool_size=1, wait_queue_timeout_ms=100) as client,
    ):
        things = client.get_default_database().things
        waiting = asyncio.create_task(things.update_one({"_id": 1}, {"$set": {"a": 1}}))
        await watch.taken.wait()
        error = await error_of(things.find_one())
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    await assert_told(error, Outage.POOL_FULL)
    assert describe(error) == "no connection free in time"
    assert not is_unreachable(error)
    assert not is_repeatable(error)


@pytest.mark.parametrize("command", ["find", "update"])
async def test_server_gives_up_an_operation(document_url: str, command: str) -> None:
    async with held_document(document_url), connected(document_url) as client:
        database = client.get_default_database()
        await database.things.insert_many([{"n": n} for n in range(2000)])
        every_pair = {"$lookup": {"from": "things", "pipeline": [], "as": "others"}}
        if command == "find":
            asked: Awaitable[Any] = database.things.aggregate([every_pair, {"$count": "n"}], maxTimeMS=1)
        else:
            update = {"q": {"_id": 1}, "u": {"$set": {"a": 1}}}
            asked = database.command("update", "things", updates=[update], maxTimeMS=50)
        error = await error_of(asked)
    await assert_told(error, Outage.STATEMENT_TIMEOUT)
    assert not is_connection_loss(error)
    assert not is_unreachable(error), "the server has answered"
    assert not is_repeatable(error)


async def test_frozen_server(document_server: DocumentServer, document_url: str) -> None:
    async with connected(document_url, socket_timeout_ms=200) as client:
        things = client.get_default_database().things
        await things.find_one()
        document_server.suspend()
        try:
            error = await error_of(things.find_one())
        finally:
            document_server.resume()
    await assert_told(error, Outage.NO_ANSWER)
    assert is_unreachable(error)
    assert not is_connection_loss(error)
    assert not is_repeatable(error)


async def test_no_server() -> None:
    url = f"mongodb://shop:{SECRET}@127.0.0.1:{free_port()}/poc"
    async with connected(url, server_selection_timeout_ms=100) as client:
        error = await error_of(client.get_default_database().things.find_one())
    await assert_told(error, Outage.UNREACHABLE)
    assert is_unreachable(error)
    assert "not reachable" in describe(error)
    assert SECRET not in describe(error)


async def test_lost_connection(document_url: str) -> None:
    async with (
        cuttable_wire(direct(document_url), marker=b"to be cut") as wire,
        connected(wire.url) as client,
        client.start_session() as session,
    ):
        await session.start_transaction()
        wire.cut = "before"
        things = client.get_default_database().things
        error = await error_of(things.insert_one({"_id": "to be cut"}, session=session))
    await assert_told(error, Outage.UNREACHABLE)
    assert is_connection_loss(error)
    assert is_repeatable(error)


async def test_write_conflict(document_url: str) -> None:
    async with (
        held_document(document_url),
        connected(document_url) as client,
        client.start_session() as session,
    ):
        await session.start_transaction()
        error = await error_of(
            client.get_default_database().things.update_one({"_id": 1}, {"$set": {"a": 1}}, session=session)
        )
    await assert_told(error, Outage.CONTENDED)
    assert is_repeatable(error)
    assert sqlstate_of(error) == "mongo:112"


@pytest.mark.parametrize("bulk", [False, True], ids=["one", "bulk"])
async def test_duplicate_key_names_its_index_and_no_value(document_url: str, *, bulk: bool) -> None:
    async with connected(document_url) as client:
        users = client.get_default_database().users
        await users.create_index("email", unique=True, name="one email each")
        await users.insert_one({"email": SECRET})
        error = await error_of(
            users.insert_many([{"email": SECRET}]) if bulk else users.insert_one({"email": SECRET})
        )
    assert classify(error) is Trouble.CLASH
    assert sqlstate_of(error) == "mongo:11000"
    assert constraint_of(error) == ("users", "one email each")
    assert describe(error) == "unique value refused by one email each of users (code 11000)"
    told = await told_of(error)
    assert (told.status, told.outage, told.retry_after) == (502, None, None)
    assert SECRET not in told.text


@pytest.mark.parametrize(
    ("document", "field"),
    [({"priority": SECRET, "title": "t"}, "priority"), ({"priority": 1}, "title")],
    ids=["wrong type", "missing"],
)
async def test_schema_refuses_and_names_its_field_and_no_value(
    document_url: str, document: dict[str, Any], field: str
) -> None:
    schema = {"required": ["title"], "properties": {"priority": {"bsonType": "int"}}}
    async with connected(document_url) as client:
        database = client.get_default_database()
        await database.create_collection("tasks", validator={"$jsonSchema": schema})
        error = await error_of(database.tasks.insert_one(document))
    assert classify(error) is Trouble.REFUSED
    assert describe(error) == f"refused by the collection's schema in {field} (code 121)"
    assert (await told_of(error)).status == 502


@pytest.mark.parametrize(
    "document", [{"a": "x" * 17_000_000}, {"a": object()}, {1: 1}], ids=["large", "type", "key"]
)
async def test_what_is_no_document_is_refused(document_url: str, document: dict[str, Any]) -> None:
    async with connected(document_url) as client:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - the driver raises errors that are not its own
            await client.get_default_database().things.insert_one(document)
    assert is_database_error(caught.value)
    assert classify(caught.value) is Trouble.REFUSED
    assert "xxx" not in describe(caught.value)


async def test_dates_come_back_in_utc_even_where_python_has_none(client: Client) -> None:
    far = DatetimeMS(9_000_000_000_000_000)
    found = bson.decode(bson.encode({"near": DatetimeMS(0), "far": far}), codec_options=client.codec_options)
    assert found["near"].isoformat() == "1970-01-01T00:00:00+00:00"
    assert found["far"] == far


async def test_what_is_not_the_documents_fault(client: Client) -> None:
    error = await error_of(client.admin.command("noSuchCommand"))
    assert classify(error) is Trouble.UNAVAILABLE
    assert to_side_error(error, Side.NEW).outage is Outage.OTHER


@pytest.fixture
async def client(document_url: str) -> AsyncIterator[Client]:
    async with connected(document_url) as made:
        yield made


async def test_sides_that_are_away_are_left_out_of_a_count() -> None:
    """Whatever kind they are: a look at the service must not fail with a driver's own error."""
    manager = TaskDualWriteManager(
        "postgresql://127.0.0.1:1/tasks",
        "mongodb://127.0.0.1:1/tasks",
        DualWriteSettings(service="task"),
        metrics=Metrics(CollectorRegistry()),
    )
    assert await count_open_conflicts(manager.runtime.stores, Side) == {}
    await manager.close()
