"""PostgreSQL as one side of a service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime

from sqlalchemy import QueuePool, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from backend.shared.domain.errors import InstallationError
from backend.shared.domain.mapping import EntityCatalog, EntityMapping
from backend.shared.domain.phases import Capture, Direction, Phase, Side
from backend.shared.journal.conflicts import ConflictRepository
from backend.shared.journal.install import (
    capture_token,
    check_installation,
    create_triggers,
    drop_unwanted,
    install_side,
    installed,
    missing_triggers,
    wanted_triggers,
)
from backend.shared.journal.marks import MarkRepository, identity_of
from backend.shared.journal.records import Claim
from backend.shared.journal.repository import FailureRepository, JournalRepository
from backend.shared.journal.stranded import StrandedRepository
from backend.shared.journal.triggers import InstalledTrigger
from backend.shared.stores.postgres.errors import (
    DEADLOCK_DETECTED,
    LOCK_NOT_AVAILABLE,
    describe,
    is_database_error,
    sqlstate_of,
)
from backend.shared.stores.postgres.names import EngineNames
from backend.shared.stores.postgres.projection_sql import ESTIMATED_ROWS, table_name
from backend.shared.stores.postgres.state import PostgresState
from backend.shared.stores.postgres.sync_columns import SyncColumns
from backend.shared.stores.side import ChangeStream, LockHeldError, OnTheWay, Pool, StoreKind

COUNT_MS = 3000
_CONNECTIONS = text(
    "SELECT count(*)::float8 / current_setting('max_connections')::float8 FROM pg_stat_activity "
    "WHERE backend_type = 'client backend'"
)


class PostgresJournal(JournalRepository):
    """The journal, with the transaction that a claim is made in."""

    def __init__(self, names: EngineNames, engine: AsyncEngine) -> None:
        super().__init__(names)
        self._engine = engine

    @asynccontextmanager
    async def claiming(self, *, limit: int) -> AsyncIterator[tuple[AsyncConnection, Claim]]:
        """Take up to `limit` rows that are due; they end when the body does, in its transaction (decision 0003)."""
        async with self._engine.connect() as connection, connection.begin():
            yield connection, await self.claim(connection, limit=limit)


class PostgresSide:
    """One side of one service on PostgreSQL. Implements `backend.shared.stores.side.SideStore`."""

    kind = StoreKind.POSTGRES
    change_stream: ChangeStream | None = None
    """None: triggers capture in the transaction of the write."""

    def __init__(
        self,
        engine: AsyncEngine,
        side: Side,
        *,
        names: EngineNames,
        catalog: EntityCatalog,
        capture: Capture = Capture.TRIGGER,
    ) -> None:
        self.engine = engine
        self.side = side
        self.journal = PostgresJournal(names, engine)
        self.failures = FailureRepository(names)
        self.marks = MarkRepository(names, engine, side)
        self.state = PostgresState(names, catalog, side)
        self.conflicts = ConflictRepository(names)
        self.stranded = StrandedRepository(names)
        self.sync_columns = _sync_columns(names, catalog, side, capture)
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._names = names
        self._catalog = catalog
        self._capture = capture

    @property
    def engine_room(self) -> str:
        """What Tandem keeps here, in words: the last thing to be deleted."""
        return f"schema {self._names.schema}"

    def connect(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection whose transaction is rolled back at the end unless `connection.commit()` was awaited."""
        return self.engine.connect()

    def begin(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection whose transaction is committed at the end, and rolled back if the body raises."""
        return self.engine.begin()

    def reading(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection on which each statement is a transaction of its own."""
        return self._autocommit.connect()

    async def ping(self) -> None:
        """Raise what the database does when it does not answer."""
        async with self.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    def pool(self) -> Pool | None:
        """The pool as it is now."""
        pool = self.engine.pool
        if not isinstance(pool, QueuePool):
            return None
        return Pool(size=bound_of(pool), in_use=pool.checkedout(), waiting=waiting_for(pool))

    async def connection_share(self) -> float:
        """The share (0 to 1) of the server's connections that is in use."""
        async with self.engine.connect() as connection:
            return float((await connection.execute(_CONNECTIONS)).scalar_one())

    async def on_the_way(
        self, *, entity: str | None, key: str | None, with_failures: bool, most: int
    ) -> OnTheWay:
        """What of this side's changes is not carried yet, in one statement; of `entity` only `key`, if that is given."""
        names = self._names
        rows = f"SELECT entity, key FROM {names.journal}"
        if with_failures:
            rows += f" UNION ALL SELECT entity, key FROM {names.failure} WHERE state = 'open'"
        statement = (
            f"WITH w AS MATERIALIZED (SELECT entity, key FROM ({rows}) AS r LIMIT {most + 1}) "
            "SELECT m.state = 'open' AND m.captures AS captured, m.epoch, "
            f"(SELECT count(*) FROM w) > {most} AS too_many, "
            "ARRAY(SELECT DISTINCT entity FROM w WHERE $1::text IS NULL OR entity <> $2 OR key = $1) AS entities "
            f"FROM {names.mark} AS m"
        )
        async with self.reading() as connection:
            row = (await connection.exec_driver_sql(statement, (key, entity or ""))).one()
        return OnTheWay(
            captured=row.captured,
            epoch=row.epoch,
            entities=None if row.too_many else frozenset(row.entities),
        )

    async def now(self) -> datetime:
        """The server's clock."""
        async with self.engine.connect() as connection:
            found: datetime = (await connection.execute(text("SELECT clock_timestamp()"))).scalar_one()
            return found

    async def await_older_units(self) -> None:
        """Where units write the journal: wait until every transaction has ended that may have begun without doing so."""
        if self._capture is not Capture.UNIT:
            return
        async with self.reading() as connection:
            now = (await connection.execute(text("SELECT pg_current_xact_id()::text::bigint"))).scalar_one()
            oldest = text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
            while (await connection.execute(oldest)).scalar_one() < now:  # noqa: ASYNC110 - another server's affair
                await asyncio.sleep(0.1)

    async def estimated_rows(self, entity: EntityMapping) -> int:
        """Rows of the entity's root table: the planner's estimate, or a count if that is quickly had, or 0 for unknown."""
        table = table_name(entity.sources(self.side)[0].table)
        async with self.engine.connect() as connection:
            if estimate := (await connection.exec_driver_sql(ESTIMATED_ROWS, (table,))).scalar():
                return int(estimate)
            try:
                await connection.exec_driver_sql(f"SET LOCAL statement_timeout = {COUNT_MS}")
                return int((await connection.exec_driver_sql(f"SELECT count(*) FROM {table}")).scalar_one())
            except Exception as error:
                if not is_database_error(error):
                    raise
                return 0

    async def dispose(self) -> None:
        """Let go of all connections; new ones may be made."""
        await self.engine.dispose()

    async def identity(self, connection: AsyncConnection) -> str:
        """Which database this is; see `identity_of`."""
        return await identity_of(connection)

    async def install(self, *, phase: Phase, epoch: int, foreign_writes: str) -> None:
        """Put journal, guards, mark and fence here, and capture if `phase` asks for it. May be repeated."""
        await install_side(
            self.engine,
            self._names,
            self._catalog,
            side=self.side,
            phase=phase,
            epoch=epoch,
            capture=self._capture,
            foreign_writes=foreign_writes,
        )

    async def check_installation(self, *, phase: Phase) -> None:
        """Raise `InstallationError` unless this side bears what this version of the service needs in `phase`."""
        await check_installation(
            self.engine, self._names, self._catalog, side=self.side, phase=phase, capture=self._capture
        )

    def _wanted(self, phase: Phase) -> list[InstalledTrigger]:
        return wanted_triggers(self._names, self._catalog, side=self.side, phase=phase, capture=self._capture)

    async def capture_token(self, connection: AsyncConnection, *, phase: Phase) -> str:
        """A text that stays the same as long as capture here has had no gap in `phase`, or "" while it has one now."""
        return await capture_token(connection, self._names, self._wanted(phase))

    async def switch_capture(
        self, connection: AsyncConnection, *, phase: Phase, number: int, timeout_ms: int
    ) -> bool:
        """Make capture what `phase` asks for, under the number of the change; False where a later change has been.

        CREATE TRIGGER waits for whoever writes the table, so nobody is under way then. `LockHeldError` if that takes longer
        than `timeout_ms`.
        """
        try:
            return await self._switch_capture(connection, phase, number=number, timeout_ms=timeout_ms)
        except Exception as error:
            if sqlstate_of(error) not in (LOCK_NOT_AVAILABLE, DEADLOCK_DETECTED):
                raise
            raise LockHeldError(describe(error)) from error

    async def _switch_capture(
        self, connection: AsyncConnection, phase: Phase, *, number: int, timeout_ms: int
    ) -> bool:
        await connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(timeout_ms)}")
        if not await self.marks.change_capture(connection, captures=phase.policy.captures, number=number):
            return False
        wanted = self._wanted(phase)
        await drop_unwanted(connection, self._names, wanted)
        missing = await missing_triggers(connection, self._names, wanted)
        await create_triggers(connection, [trigger for trigger in wanted if trigger.name in missing])
        if phase.policy.captures:
            token = await capture_token(connection, self._names, wanted)
            await self.marks.note_capture(connection, token=token)
        return True

    async def epoch_of_mark(self, connection: AsyncConnection) -> int:
        """The epoch of the mark; raises `InstallationError` where there is none."""
        if await installed(connection, self._names) is None:
            raise InstallationError(
                f"the journal is not installed on the {self.side.value} side: run `tandem install {self._names.service}`, "
                "then this again"
            )
        return (await self.marks.read(connection)).epoch

    async def restore(self, connection: AsyncConnection, *, is_open: bool, epoch: int, phase: Phase) -> None:
        """After this side was restored: fence and capture in order, the mark what it has to be, whatever it says now.

        The caller holds the fence lock alone. The journal of a side that is closed is forgotten.
        """
        wanted = self._wanted(phase)
        missing = await missing_triggers(connection, self._names, wanted)
        await create_triggers(connection, [trigger for trigger in wanted if trigger.name in missing])
        await self.marks.overrule(
            connection, is_open=is_open, epoch=epoch, identity=await identity_of(connection)
        )
        if is_open and phase.policy.captures:
            token = await capture_token(connection, self._names, wanted)
            await self.marks.note_capture(connection, token=token)
        if not is_open:
            # Rows from a time when it was authoritative: they were carried, before it was closed.
            await self.journal.forget(connection)

    async def tables(self, entity: EntityMapping) -> list[str]:
        """The tables of an entity with their sizes."""
        found = []
        async with self.engine.connect() as connection:
            for projection in entity.projections(Direction.towards(self.side)):
                name = projection.table.name
                size = await connection.execute(
                    text("SELECT pg_size_pretty(pg_total_relation_size(to_regclass(:name)))"), {"name": name}
                )
                found.append(f"table {name} ({size.scalar() or 'gone'})")
        return found


def _sync_columns(
    names: EngineNames, catalog: EntityCatalog, side: Side, capture: Capture
) -> SyncColumns | None:
    """Nothing where no trigger keeps such columns."""
    columns = SyncColumns(names, catalog, side)
    kept = capture is Capture.TRIGGER and any(columns.has(entity.name) for entity in catalog.ordered)
    return columns if kept else None


def bound_of(pool: QueuePool) -> int:
    """How many connections `pool` may open, those beyond its size included."""
    return pool.size() + int(getattr(pool, "_max_overflow", 0))


def waiting_for(pool: QueuePool) -> int:
    """How many tasks wait for a connection of `pool`."""
    waiters = getattr(getattr(pool, "_pool", None), "_queue", None)
    return len(getattr(waiters, "_getters", ()) or ())
