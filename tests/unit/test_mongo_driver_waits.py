"""A client of MongoDB whose callers were cancelled at any moment goes on answering."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from pymongo.asynchronous import pool
from pymongo.errors import ServerSelectionTimeoutError

from backend.shared.stores.mongo.client import create_client
from backend.shared.stores.mongo.limits import DocumentLimits


@pytest.fixture
async def silent() -> AsyncIterator[str]:
    """The URL of a server that takes every connection and says nothing."""
    connections: list[asyncio.StreamWriter] = []

    async def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    yield f"mongodb://{host}:{port}/poc?replicaSet=none"
    server.close()
    for writer in connections:
        writer.close()


async def ping(client: AsyncMongoClient[Any]) -> None:
    await client.get_default_database().command("ping")


async def test_client_answers_after_a_caller_was_cancelled_twice_while_the_lock_was_taken(
    silent: str,
) -> None:
    limits = DocumentLimits(server_selection_timeout_ms=1_000)
    client = create_client(silent, application_name="test", limits=limits)
    try:
        caller = asyncio.create_task(ping(client))
        lock = await _waited_upon(client)
        async with lock:
            for _ in range(2):
                caller.cancel()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            assert not caller.done(), "it waits for the lock, to give it back"
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert not lock.locked()
        async with asyncio.timeout(10):
            with pytest.raises(ServerSelectionTimeoutError):
                await ping(client)
    finally:
        await client.close()


async def test_client_notices_its_own_limit(silent: str) -> None:
    limits = DocumentLimits(server_selection_timeout_ms=300)
    client = create_client(silent, application_name="test", limits=limits)
    try:
        async with asyncio.timeout(10):
            with pytest.raises(ServerSelectionTimeoutError):
                await asyncio.gather(*(ping(client) for _ in range(20)))
    finally:
        await client.close()


async def test_a_caller_that_is_cancelled_while_its_command_is_sent_is_cancelled(silent: str) -> None:
    """Else its timeout would be lost, and nothing would end it."""
    await create_client(silent, application_name="test").close()
    went_on = False

    class Connection:
        gettimeout = 5.0

        async def write(self, _: bytes) -> None:
            caller.cancel()

    driver: Any = pool

    async def call() -> None:
        nonlocal went_on
        await driver.async_sendall(Connection(), b"")
        await asyncio.sleep(0)
        went_on = True

    caller = asyncio.create_task(call())
    await asyncio.wait([caller])
    assert caller.cancelled()
    assert not went_on


async def _waited_upon(client: AsyncMongoClient[Any]) -> Any:
    """The lock of the driver's topology, once somebody waits for a server."""
    topology: Any = client._topology
    while not topology._condition._waiters:  # noqa: ASYNC110 - the driver rings no bell
        await asyncio.sleep(0)
    return topology._lock
