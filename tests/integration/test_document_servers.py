"""The document server of tests and demos: started, killed, frozen."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

from backend.shared.testing.document_servers import DocumentServer
from backend.shared.testing.own_server import OwnServerError


def _client(url: str) -> AsyncMongoClient[dict[str, Any]]:
    return AsyncMongoClient(url, serverSelectionTimeoutMS=5000)


async def test_what_was_committed_outlives_a_kill_and_a_frozen_server_does_not_answer(
    worker_directory: Path,
) -> None:
    server = DocumentServer(worker_directory / "killed-documents")
    try:
        server.start()
        url = server.url("shop")
        async with (
            _client(url) as client,
            client.start_session() as session,
        ):
            await client.shop.things.insert_one({"_id": 0})
            async with await session.start_transaction():
                await client.shop.things.insert_one({"_id": 1}, session=session)
        server.kill9()
        assert not server.is_running
        server.start()
        assert server.url("shop") == url
        async with _client(url) as client:
            assert await client.shop.things.count_documents({}) == 2
            server.suspend()
            with pytest.raises((PyMongoError, TimeoutError)):
                async with asyncio.timeout(0.5):
                    await client.shop.things.count_documents({})
            server.resume()
            assert await client.shop.things.count_documents({"_id": 1}) == 1
    finally:
        server.remove()


def test_a_program_that_cannot_start_says_why(worker_directory: Path) -> None:
    first = DocumentServer(worker_directory / "first-documents")
    second = DocumentServer(worker_directory / "second-documents", port=first.port)
    try:
        first.start()
        with pytest.raises(OwnServerError, match="did not start"):
            second.start()
    finally:
        second.remove()
        first.remove()
