"""One pair of databases with engines on them, used for many schedules, each of which begins with empty tables."""

from __future__ import annotations

import asyncio
import gc
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import asyncpg
from prometheus_client import CollectorRegistry

from backend.shared import DualWriteSettings, Phase, Side
from backend.shared.database import DatabaseLimits
from backend.shared.observability.metrics import Metrics
from backend.shared.testing.clusters import Cluster, Databases
from tests.support.actors import actors_hook
from tests.support.audit import AUDIT, UNFENCED, Event, events, install_audit
from tests.support.people import PeopleManager

Identity = tuple[str, str]
"""Entity and canonical key."""

_ENGINE_TABLES = (
    "journal",
    "guard",
    "guard_floor",
    "backfill_chunk",
    "backfill",
    "backfill_control",
    "failure",
    "conflict",
    "settlement",
    "validation_entity",
    "validation_run",
    "mismatch",
    "repair",
)
_APPLICATION_TABLES = {
    Side.LEGACY: ("notes", "folk_extra", "folk"),
    Side.NEW: ("notes", "profiles", "people"),
}
_LIMITS = '{"workers": 2, "max_lag_seconds": null, "max_connection_share": null}'
_STATE = {
    Side.LEGACY: (
        (
            "SELECT f.folk_no, f.mail, f.nm, f.cents, f.born, e.folk_no IS NOT NULL, e.city "
            "FROM folk AS f LEFT JOIN folk_extra AS e USING (folk_no)"
        ),
        "SELECT note_no, folk_no, body FROM notes",
    ),
    Side.NEW: (
        (
            "SELECT p.id, p.email, p.name, (p.credit * 100)::bigint, to_char(p.born, 'YYYY-MM-DD'), "
            "i.person_id IS NOT NULL, i.city FROM people AS p LEFT JOIN profiles AS i ON i.person_id = p.id"
        ),
        "SELECT id, person_id, body FROM notes",
    ),
}


def identity(entity: str, number: int) -> Identity:
    """The name of an entity with an integer key."""
    return entity, f"[{number}]"


class Eyes:
    """A connection to look with, and to see to the tables; takes part in nothing. Many may use it at once."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection
        self._lock = asyncio.Lock()

    async def fetch(self, query: str) -> list[asyncpg.Record]:
        """The rows of a query."""
        async with self._lock:
            return list(await self.connection.fetch(query))

    async def execute(self, script: str) -> None:
        """Run statements, in one transaction."""
        async with self._lock:
            await self.connection.execute(script)

    async def waiting_count(self) -> int:
        """How many connections of this database wait for a lock."""
        rows = await self.fetch(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        return int(rows[0][0])


@dataclass(kw_only=True)
class World:
    """Both databases under one phase. `asynchronous` and `synchronous` are two processes that write in either way."""

    phase: Phase
    asynchronous: PeopleManager
    synchronous: PeopleManager
    eyes: dict[Side, Eyes]
    strangers: dict[Side, asyncpg.Pool]
    """Other programs."""

    @property
    def managers(self) -> tuple[PeopleManager, PeopleManager]:
        """Both processes."""
        return self.asynchronous, self.synchronous

    @property
    def source(self) -> Side:
        """The authoritative side."""
        return self.phase.policy.authoritative

    @property
    def target(self) -> Side:
        """The secondary side."""
        return self.source.other

    async def clear(self) -> None:
        """Begin anew. Positions go on where they were, as on a server that has lived for long."""
        for side in Side:
            tables = [
                *_APPLICATION_TABLES[side],
                *(f"tandem_people.{name}" for name in _ENGINE_TABLES),
                "audit",
                "opening",
            ]
            await self.eyes[side].execute(";".join(f"DELETE FROM {table}" for table in tables))
        await self.eyes[self.target].execute(
            "UPDATE tandem_people.mark SET state = 'closed'; "
            f"INSERT INTO tandem_people.backfill_control (limits, changed_by) VALUES ('{_LIMITS}', 'test')"
        )

    async def forget_connections(self) -> None:
        """Give up every connection of the engines, and what it had open."""
        for manager in self.managers:
            for side in Side:
                await manager.runtime.engines[side].dispose()
        await self.cut(Side.LEGACY)
        await self.cut(Side.NEW)

    async def cut(self, side: Side) -> None:
        """The server ends every connection of the engines, whatever it is doing; when this returns they are gone."""
        condition = "datname = current_database() AND application_name = 'tandem-people'"
        await self.eyes[side].execute(
            f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {condition}"
        )

    async def reconnect(self) -> None:
        """Both processes have noticed what was cut, and reach both servers again."""
        for manager in self.managers:
            for side in Side:
                await manager.runtime.engines[side].dispose()
                breaker = manager.runtime.breakers[side]
                assert await breaker.wait_closed(10)
                breaker.succeeded()

    async def waiting_count(self) -> int:
        """How many connections wait for a lock."""
        return sum([await eyes.waiting_count() for eyes in self.eyes.values()])

    async def time_passes(self) -> None:
        """Journal rows that wait are due, but for those that somebody has in hand."""
        await self.eyes[self.source].execute(
            "UPDATE tandem_people.journal SET wait_until = clock_timestamp() WHERE id IN (SELECT id "
            "FROM tandem_people.journal WHERE wait_until > clock_timestamp() FOR UPDATE SKIP LOCKED)"
        )

    async def open_target(self) -> None:
        """What a cutover does to the secondary: wait for all carries under way, with new ones behind it, and open."""
        await self._mark("UPDATE tandem_people.mark SET state = 'open'; INSERT INTO opening DEFAULT VALUES")

    async def close_target(self) -> None:
        """Take that back, as soon as nobody holds the fence."""
        while True:
            with suppress(asyncpg.LockNotAvailableError):
                return await self._mark(
                    "UPDATE opening SET closed = pg_current_snapshot() WHERE closed IS NULL; "
                    "UPDATE tandem_people.mark SET state = 'closed'"
                )

    async def target_is_closed(self) -> bool:
        """Whether carries may go to the secondary."""
        return bool(
            await self.eyes[self.target].fetch("SELECT FROM tandem_people.mark WHERE state = 'closed'")
        )

    async def _mark(self, script: str) -> None:
        lock = self.asynchronous.runtime.names.fence_lock
        async with self.strangers[self.target].acquire() as connection, connection.transaction():
            await connection.execute(f"SELECT pg_advisory_xact_lock({lock})")
            await connection.execute(script)

    async def unfenced(self) -> list[Any]:
        """Rows that were carried to the secondary while it was open."""
        return await self.eyes[self.target].fetch(UNFENCED)

    async def forget_changes(self) -> None:
        """What was written so far was written before there was a journal."""
        await self.eyes[self.source].execute("DELETE FROM tandem_people.journal")

    async def audit(self, side: Side) -> list[Event]:
        """What has happened on `side`."""
        return events(await self.eyes[side].fetch(AUDIT))

    async def state(self, side: Side) -> dict[Identity, tuple[Any, ...]]:
        """Every entity that `side` holds, in one shape for both."""
        people, notes = [await self.eyes[side].fetch(query) for query in _STATE[side]]
        return {identity("person", row[0]): tuple(row[1:]) for row in people} | {
            identity("note", row[0]): tuple(row[1:]) for row in notes
        }

    async def differing(self) -> set[Identity]:
        """Entities that are not the same on both sides now."""
        ours, theirs = await self.state(self.source), await self.state(self.target)
        return {found for found in ours.keys() | theirs.keys() if ours.get(found) != theirs.get(found)}

    async def journalled(self) -> set[Identity]:
        """Keys with an open journal row."""
        return _identities(
            await self.eyes[self.source].fetch("SELECT entity, key FROM tandem_people.journal")
        )

    async def failed(self, *, ever: bool = False) -> set[Identity]:
        """Keys that are FAILED; or have `ever` been."""
        condition = "" if ever else " WHERE state = 'open'"
        return _identities(
            await self.eyes[self.source].fetch(f"SELECT entity, key FROM tandem_people.failure{condition}")
        )


def _identities(rows: Iterable[asyncpg.Record]) -> set[Identity]:
    return {(row["entity"], row["key"]) for row in rows}


@asynccontextmanager
async def made_world(
    phase: Phase, *, clusters: dict[Side, Cluster], templates: dict[Side, str]
) -> AsyncIterator[World]:
    """A world with its databases, which are removed afterwards."""
    names = {side: f"world_{secrets.token_hex(6)}" for side in Side}
    urls = {
        side: await clusters[side].create_database(names[side], template=templates[side]) for side in Side
    }
    managers: list[PeopleManager] = []
    eyes = {side: Eyes(await asyncpg.connect(urls[side])) for side in Side}
    strangers = {
        side: await asyncpg.create_pool(
            urls[side], min_size=0, max_size=10, server_settings={"lock_timeout": "300"}
        )
        for side in Side
    }
    try:
        for synchronous in (False, True):
            manager = _manager(
                phase,
                Databases(legacy_url=urls[Side.LEGACY], new_url=urls[Side.NEW]),
                synchronous=synchronous,
            )
            managers.append(manager)
            await manager.install()
            await manager.start()
        for side in Side:
            await install_audit(eyes[side].connection, side)
        yield World(
            phase=phase,
            asynchronous=managers[0],
            synchronous=managers[1],
            eyes=eyes,
            strangers=strangers,
        )
    finally:
        for manager in managers:
            await manager.close()
        for side in Side:
            await eyes[side].connection.close()
            await strangers[side].close()
            await clusters[side].drop_database(names[side])
        gc.collect()  # connections that were in use while their pool was given up: their warning belongs here


def _manager(phase: Phase, databases: Databases, *, synchronous: bool) -> PeopleManager:
    return PeopleManager(
        settings=DualWriteSettings(
            service="people",
            legacy_database_url=databases.legacy_url,
            database_url=databases.new_url,
            phase=phase,
            async_legacy=not synchronous,
            retry_delay_seconds=0.0,
            batch_size=3 if synchronous else 100,
        ),
        metrics=Metrics(CollectorRegistry()),
        hook=actors_hook,
        limits=DatabaseLimits(
            pool_size=20, statement_seconds=10, lock_seconds=2, connect_seconds=3, pool_wait_seconds=3
        ),
    )
