"""The kinds of sides that the contract is held by, each made ready for the same cases."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Protocol

import pytest
from bson import ObjectId
from sqlalchemy.ext.asyncio import AsyncConnection

from backend.shared.database import create_side_engine
from backend.shared.document_unit_of_work import DocumentUnitOfWork
from backend.shared.document_units import DocumentUnitRunner
from backend.shared.domain.errors import FencedError
from backend.shared.domain.phases import Direction, Phase, Side
from backend.shared.journal.carrier import Hook, no_hook
from backend.shared.journal.fence import FENCED
from backend.shared.stores.errors import sqlstate_of
from backend.shared.stores.mongo.client import create_client
from backend.shared.stores.mongo.journal import LEASE_SECONDS
from backend.shared.stores.mongo.side import MongoSide
from backend.shared.stores.postgres.side import PostgresSide
from backend.shared.stores.protocol import Position, StateBatch
from backend.shared.stores.side import SideStore
from backend.shared.testing.clusters import Cluster
from backend.shared.testing.document_servers import DocumentServer
from tests.support.note_sides import NAMES, note_side
from tests.support.notes import CATALOG, DDL, NOTE, digits, key
from tests.support.steps import Crash, CrashAt


class Kind(Protocol):
    """One side, and what the cases need to know of its kind."""

    @property
    def side(self) -> SideStore:
        """The side."""
        ...

    def again(self, *, hook: Hook = no_hook) -> SideStore:
        """The same side, as another process sees it."""
        ...

    def unit(
        self, *, journals: bool = True
    ) -> AbstractAsyncContextManager[Callable[[int, int], Awaitable[None]]]:
        """A unit of work under way, committed at the end: what it yields writes note `number` with `n`."""
        ...

    def dying_claim(self, *, limit: int) -> AbstractAsyncContextManager[None]:
        """A process that claims and is killed."""
        ...

    async def stored(self, number: int) -> int | None:
        """What the side holds of a note."""
        ...


class MongoKind:
    """MongoDB."""

    @property
    def side(self) -> SideStore:
        return self.store

    def __init__(self, url: str, stack: AsyncExitStack, *, phase: Phase) -> None:
        self._stack = stack
        self._client = create_client(url, application_name="test")
        self._database = url.rpartition("/")[2].partition("?")[0]
        stack.push_async_callback(self._client.close)
        self.phase = phase
        self.store = self._made()

    def again(self, *, hook: Hook = no_hook) -> SideStore:
        return self._made(hook=hook)

    def _made(self, *, hook: Hook = no_hook, lease_seconds: float = LEASE_SECONDS) -> MongoSide:
        return note_side(self._client, self._database, hook=hook, lease_seconds=lease_seconds)

    @asynccontextmanager
    async def unit(self, *, journals: bool = True) -> AsyncIterator[Callable[[int, int], Awaitable[None]]]:
        runner = DocumentUnitRunner(self._made(), catalog=CATALOG, breaker=NoBreaker())
        async with runner.transaction(request_id="r", journals_touched=journals) as transaction:

            async def write(number: int, n: int) -> None:
                await put(transaction.work, number, n)

            yield write
            await transaction.commit()

    @asynccontextmanager
    async def dying_claim(self, *, limit: int) -> AsyncIterator[None]:
        with pytest.raises(Crash):
            async with self._made(hook=CrashAt("claimed"), lease_seconds=0).journal.claiming(limit=limit):
                raise AssertionError("it was to die before")
        yield

    async def stored(self, number: int) -> int | None:
        found = await self.store.collections.of(NOTE).find_one({"_id": ObjectId(digits(number))})
        return int(found["n"]) if found else None


async def put(work: DocumentUnitOfWork, number: int, n: int) -> None:
    """Make a note what it has to be."""
    if not await work.update("note", (digits(number),), {"n": n}):
        await work.insert("note", {"_id": ObjectId(digits(number)), "n": n})


class NoBreaker:
    """A circuit that never breaks."""

    def check(self) -> None:
        """Go on."""

    def succeeded(self) -> None:
        """Good."""

    def failed(self) -> None:
        """So what."""


class PostgresKind:
    """PostgreSQL."""

    @property
    def side(self) -> SideStore:
        return self.store

    def __init__(self, url: str, stack: AsyncExitStack, *, phase: Phase) -> None:
        self._engine = create_side_engine(url, application_name="test")
        stack.push_async_callback(self._engine.dispose)
        self.phase = phase
        self.store = PostgresSide(self._engine, Side.LEGACY, names=NAMES, catalog=CATALOG)

    def again(self, *, hook: Hook = no_hook) -> SideStore:
        return PostgresSide(self._engine, Side.LEGACY, names=NAMES, catalog=CATALOG)

    @asynccontextmanager
    async def unit(self, *, journals: bool = True) -> AsyncIterator[Callable[[int, int], Awaitable[None]]]:
        async with self._engine.connect() as connection:
            await connection.exec_driver_sql(f"SET LOCAL tandem.unit = '{NAMES.unit_mark('r')}'")
            await _fenced(connection, f"SELECT {NAMES.schema}.assert_open({str(journals).lower()})")

            async def write(number: int, n: int) -> None:
                await _fenced(
                    connection,
                    f"INSERT INTO notes VALUES ('{digits(number)}', {n}) ON CONFLICT (id) DO UPDATE SET n = excluded.n",
                )

            yield write
            await connection.commit()

    @asynccontextmanager
    async def dying_claim(self, *, limit: int) -> AsyncIterator[None]:
        with pytest.raises(Crash):
            async with self.side.journal.claiming(limit=limit):
                raise Crash
        yield

    async def stored(self, number: int) -> int | None:
        async with self._engine.connect() as connection:
            rows = await connection.exec_driver_sql(f"SELECT n FROM notes WHERE id = '{digits(number)}'")
            found: int | None = rows.scalar_one_or_none()
            return found


async def _fenced(connection: AsyncConnection, statement: str) -> None:
    try:
        await connection.exec_driver_sql(statement)
    except Exception as error:
        if sqlstate_of(error) != FENCED:
            raise
        raise FencedError("it is closed", side=Side.LEGACY, unavailable=True) from error


MakeKind = Callable[[Phase], Awaitable[Kind]]


@pytest.fixture(params=["mongo", "postgres"])
async def make_kind(
    request: pytest.FixtureRequest,
    document_server: DocumentServer,
    document_url: str,
    legacy_cluster: Cluster,
    make_database: Callable[..., Awaitable[str]],
) -> AsyncIterator[MakeKind]:
    """Makes a side, installed in a phase: in `DUALWRITE` it is open, in `RAMPDOWN` closed, in `OFF` open without capture."""
    async with AsyncExitStack() as stack:

        async def make(phase: Phase) -> Kind:
            kind: Kind
            if request.param == "mongo":
                kind = MongoKind(document_url, stack, phase=phase)
            else:
                postgres = PostgresKind(await make_database(legacy_cluster), stack, phase=phase)
                async with postgres.side.begin() as connection:
                    for statement in DDL:
                        await connection.exec_driver_sql(statement)
                kind = postgres
            await kind.side.install(phase=phase, epoch=1, foreign_writes="report")
            return kind

        yield make


@pytest.fixture
async def opened(make_kind: MakeKind) -> Kind:
    """A side that is open, with capture on."""
    return await make_kind(Phase.DUALWRITE)


@pytest.fixture
async def closed(make_kind: MakeKind) -> Kind:
    """A side that is closed, in epoch 1."""
    return await make_kind(Phase.RAMPDOWN)


def batch(notes: dict[int, int | None], *, at: int) -> StateBatch:
    """The state of notes by number, None for one that is gone, read at position `at`."""
    present = {number: n for number, n in notes.items() if n is not None}
    return StateBatch(
        entity=NOTE,
        direction=Direction.TO_LEGACY,
        keys=tuple(sorted(map(key, notes))),
        position=Position(major=at, minor=0),
        rows=(json.dumps([{"id": digits(number), "n": n} for number, n in present.items()]),),
        present=(frozenset(map(key, present)),),
    )
