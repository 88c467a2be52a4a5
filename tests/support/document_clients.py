"""MongoDB's stand-in in tests: clients, and what a caller of the HTTP API is told of an error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import httpx
from fastapi import FastAPI
from pymongo.monitoring import ConnectionCheckedOutEvent

from backend.shared.api.problems import install_problem_handlers
from backend.shared.domain.outages import Outage
from backend.shared.domain.phases import Side
from backend.shared.stores.errors import to_side_error
from backend.shared.stores.mongo.client import create_client
from backend.shared.stores.mongo.collections import Client
from backend.shared.stores.mongo.limits import DocumentLimits
from backend.shared.stores.mongo.pool_watch import PoolWatch


class TakenWatch(PoolWatch):
    """Tells when a connection has been taken out of the pool."""

    def __init__(self) -> None:
        super().__init__(most=DocumentLimits().max_pool_size)
        self.taken = asyncio.Event()

    def connection_checked_out(self, event: ConnectionCheckedOutEvent) -> None:
        super().connection_checked_out(event)
        self.taken.set()


@asynccontextmanager
async def connected(url: str, *, watch: TakenWatch | None = None, **limits: int) -> AsyncIterator[Client]:
    """A client with these limits (`max_time_ms=500`)."""
    client = create_client(
        url,
        application_name="test",
        limits=DocumentLimits(**limits),
        listeners=[watch] if watch is not None else [],
    )
    try:
        yield client
    finally:
        await client.close()


def direct(url: str) -> str:
    """`url` without its replica set, for a wire in between: the set would tell the client where the server really is."""
    return urlunsplit(urlsplit(url)._replace(query="directConnection=true"))


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a caller of the HTTP API learns."""

    status: int
    kind: str
    outage: Outage | None
    retry_after: str | None
    text: str


async def told_of(error: BaseException) -> Told:
    """What a service answers when `error` comes from its new side."""
    app = FastAPI()
    install_problem_handlers(app)

    @app.get("/")
    async def fail() -> None:
        raise to_side_error(error, Side.NEW)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
        response = await client.get("/")
    problem = response.json()
    return Told(
        status=response.status_code,
        kind=problem["type"].rpartition(":")[2],
        outage=Outage(problem["outage"]) if "outage" in problem else None,
        retry_after=response.headers.get("retry-after"),
        text=response.text,
    )
