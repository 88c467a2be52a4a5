"""MongoDB as one side of a service."""

# ruff: noqa: ARG002 - the protocol knows arguments that only other kinds of databases need
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime

from backend.shared.domain.errors import InstallationError
from backend.shared.domain.mapping import EntityCatalog, EntityMapping
from backend.shared.domain.phases import Phase, Side
from backend.shared.journal.carrier import Hook, no_hook
from backend.shared.stores.postgres.names import EngineNames
from backend.shared.stores.side import OnTheWay, Pool, StoreKind

from .client import create_client, parse_mongo_url
from .collections import Client, Collections
from .conflicts import DocumentConflicts
from .connection import DocumentConnection
from .failures import DocumentFailures
from .fence import LOCK_MS, Fence
from .installation import DocumentInstallation
from .journal import LEASE_SECONDS, DocumentJournal
from .limits import DocumentLimits
from .marks import DocumentMarks
from .pool_watch import PoolWatch
from .shapes import shape_of
from .state import DocumentState
from .stranded import DocumentStranded
from .stream import ChangeCapture

_COUNT_SECONDS = 3.0


class MongoSide:
    """One side of one service on MongoDB. Implements `backend.shared.stores.side.SideStore`.

    The caller owns the client, unless it says how to `reopen` one: then `dispose` closes it. `hook` is for tests.
    Where it `streams`, what other programs write is captured too, by whichever process runs `change_stream`.
    """

    kind = StoreKind.MONGO
    sync_columns = None
    """Documents say nothing of how they stand."""

    def __init__(
        self,
        client: Client,
        database_name: str,
        side: Side,
        *,
        names: EngineNames,
        catalog: EntityCatalog,
        hook: Hook = no_hook,
        lock_ms: int = LOCK_MS,
        lease_seconds: float = LEASE_SECONDS,
        reopen: Callable[[], Client] | None = None,
        streams: bool = False,
        limits: DocumentLimits | None = None,
        pools: PoolWatch | None = None,
    ) -> None:
        self.side = side
        self.unit_seconds = (limits or DocumentLimits()).max_time_ms / 1000
        """How long a unit of work may take here, up to its commit."""
        self._pools = pools
        self.collections = Collections(client, database_name, names, reopen=reopen)
        self.fence = Fence(self.collections, side, hook=hook, lock_ms=lock_ms)
        self.journal = DocumentJournal(self.collections, hook=hook, lease_seconds=lease_seconds)
        self.failures = DocumentFailures(self.collections, self.journal)
        self.marks = DocumentMarks(self.collections, self.fence, side)
        self.state = DocumentState(
            self.collections, catalog, side, fence=self.fence, marks=self.marks, hook=hook
        )
        self.conflicts = DocumentConflicts(self.collections, self.failures)
        self.stranded = DocumentStranded(self.collections)
        self.change_stream: ChangeCapture | None = None
        if streams:
            self.change_stream = ChangeCapture(
                self.collections,
                catalog,
                side,
                fence=self.fence,
                journal=self.journal,
                service=names.service,
                hook=hook,
            )
            self.marks.stream = self.change_stream
            self.journal.behind = self.change_stream.behind
            self.journal.has_told = self.change_stream.has_told
        self._installation = DocumentInstallation(
            self.collections, catalog, side, captured_by=self.marks.captured_by
        )

    @property
    def engine_room(self) -> str:
        """What Tandem keeps here, in words: the last thing to be deleted."""
        return f"collections {self.collections.prefix}_*"

    def connect(self) -> AbstractAsyncContextManager[DocumentConnection]:
        """A connection whose transaction is rolled back at the end unless `connection.commit()` was awaited."""
        return DocumentConnection(self.collections.client)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[DocumentConnection]:
        """A connection whose transaction is committed at the end, and rolled back if the body raises.

        The transaction begins with the first write, and a write conflict comes out as it is.
        """
        async with DocumentConnection(self.collections.client) as connection:
            yield connection
            await connection.commit()

    def reading(self) -> AbstractAsyncContextManager[DocumentConnection]:
        """A connection on which each command stands by itself."""
        return DocumentConnection(self.collections.client, transactional=False)

    async def ping(self) -> None:
        """Raise what the database does when it does not answer."""
        await self.collections.database.command("ping")

    def pool(self) -> Pool | None:
        """The client's pools as they are now; None for a client that somebody else watches."""
        return self._pools.pool() if self._pools is not None else None

    async def connection_share(self) -> float:
        """The share (0 to 1) of the server's connections that is in use; 0 where it does not tell."""
        status = await self.collections.database.command("serverStatus")
        connections = status.get("connections", {})
        current, free = float(connections.get("current", 0)), float(connections.get("available", 0))
        # One that says that none is left has just given us one: it does not count them.
        return current / (current + free) if free > 0 else 0.0

    async def on_the_way(
        self, *, entity: str | None, key: str | None, with_failures: bool, most: int
    ) -> OnTheWay:
        """What of this side's changes is not carried yet, in one snapshot; of `entity` only `key`, if that is given."""
        async with DocumentConnection(self.collections.client) as connection:
            await connection.begun()
            mark = await self.marks.read(connection)
            rows = await self.journal.some(connection, most=most + 1)
            if with_failures:
                rows += await self.failures.some_open(connection, most=most + 1)
        wanted = {row[0] for row in rows if key is None or row[0] != entity or row[1] == key}
        return OnTheWay(
            captured=mark.is_open and mark.captures,
            epoch=mark.epoch,
            entities=None if len(rows) > most else frozenset(wanted),
        )

    async def now(self) -> datetime:
        """The server's clock."""
        told: datetime = (await self.collections.database.command("hello"))["localTime"]
        return told if told.tzinfo else told.replace(tzinfo=UTC)

    async def await_older_units(self) -> None:
        """Nothing: capture is switched with the fence lock alone, so such units have ended by then."""

    async def estimated_rows(self, entity: EntityMapping) -> int:
        """Documents of the entity's collection by its metadata, or 0 where that takes long."""
        try:
            async with asyncio.timeout(_COUNT_SECONDS):
                return await self.collections.of(entity).estimated_document_count()
        except TimeoutError:
            return 0

    async def dispose(self) -> None:
        """Let go of all connections; new ones may be made."""
        if self.change_stream is not None:
            await self.change_stream.let_go()
        await self.collections.dispose()

    async def identity(self, connection: DocumentConnection) -> str:
        """Which database this is; see `DocumentInstallation.identity`."""
        return await self._installation.identity()

    async def install(self, *, phase: Phase, epoch: int, foreign_writes: str) -> None:
        """Put journal, guards, mark and fence here. May be repeated."""
        await self._installation.install(phase=phase, epoch=epoch, foreign_writes=foreign_writes)
        stream = self.change_stream
        if stream is not None and phase.policy.captures:
            generation = await stream.generation()
            if not await stream.is_established():
                await stream.establish(after=generation)

    async def check_installation(self, *, phase: Phase) -> None:
        """Raise `InstallationError` unless this side bears what this version of the service needs."""
        await self._installation.check()
        stream = self.change_stream
        if stream is not None and phase.policy.captures and not await stream.is_established():
            raise InstallationError(f"nobody listens to other programs' writes on the {self.side.value} side")

    async def capture_token(self, connection: DocumentConnection, *, phase: Phase) -> str:
        """A text that stays the same as long as capture here has had no gap in `phase`, or "" while it has one now."""
        return await self.marks.capture_token(connection, phase=phase)

    async def switch_capture(
        self, connection: DocumentConnection, *, phase: Phase, number: int, timeout_ms: int
    ) -> bool:
        """Make capture what `phase` asks for, under the number of the change; False where a later change has been."""
        return await self.marks.switch_capture(connection, phase=phase, number=number, timeout_ms=timeout_ms)

    async def epoch_of_mark(self, connection: DocumentConnection) -> int:
        """The epoch of the mark; raises `InstallationError` where there is none."""
        try:
            return (await self.marks.read(connection)).epoch
        except InstallationError as error:
            service = self.collections.prefix.removeprefix("tandem_")
            raise InstallationError(f"{error}: run `tandem install {service}`, then this again") from None

    async def restore(
        self, connection: DocumentConnection, *, is_open: bool, epoch: int, phase: Phase
    ) -> None:
        """After this side was restored: the mark what it has to be, whatever it says now.

        The caller holds the fence lock alone. The journal of a side that is closed is forgotten.
        """
        token = await self.capture_token(connection, phase=phase) if is_open and phase.policy.captures else ""
        await self.marks.overrule(
            connection,
            is_open=is_open,
            epoch=epoch,
            identity=await self.identity(connection),
            capture_token=token,
        )
        if not is_open:
            # Rows from a time when it was authoritative: they were carried, before it was closed.
            await self.journal.forget(connection)

    async def tables(self, entity: EntityMapping) -> list[str]:
        """The collection of an entity with its size."""
        count = await self.estimated_rows(entity)
        return [f"collection {shape_of(entity).collection} ({count} documents)"]


def open_mongo_side(
    url: str,
    side: Side,
    *,
    names: EngineNames,
    catalog: EntityCatalog,
    limits: DocumentLimits,
    application_name: str,
    variable: str,
    hook: Hook = no_hook,
    streams: bool = False,
) -> MongoSide:
    """The side that `url` names, with a client of its own that `dispose` closes. Connects to nothing yet."""
    pools = PoolWatch(most=limits.max_pool_size)

    def reopen() -> Client:
        return create_client(
            url, limits=limits, application_name=application_name, variable=variable, listeners=[pools]
        )

    database = parse_mongo_url(url, variable=variable).database
    return MongoSide(
        reopen(),
        database,
        side,
        names=names,
        catalog=catalog,
        hook=hook,
        reopen=reopen,
        streams=streams,
        limits=limits,
        pools=pools,
    )
