"""Fixtures of every test that needs a running engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from backend.shared import DualWriteSettings, Phase, Side
from backend.shared.database import DatabaseLimits, create_side_engine
from backend.shared.journal.carrier import Hook, no_hook
from backend.shared.local_units import LocalUnits
from backend.shared.observability.metrics import Metrics
from backend.shared.testing.clusters import Cluster, Databases
from tests.support.people import LEGACY_DDL, NEW_DDL, PeopleManager, create_tables

BOTH_AUTHORITIES = pytest.mark.parametrize("phase", [Phase.DUALWRITE, Phase.RAMPDOWN])
COMPARING = pytest.mark.parametrize("phase", [Phase.SHADOW, Phase.LIVE])
"""The phases in which a read is compared with the other side."""


class MakeManager(Protocol):
    """Makes an installed manager; closes it after the test."""

    async def __call__(
        self,
        phase: Phase = Phase.DUALWRITE,
        *,
        hook: Hook = no_hook,
        url: dict[Side, str] | None = None,
        **settings: Any,
    ) -> PeopleManager: ...


@pytest.fixture(scope="session")
def people_templates(
    legacy_cluster: Cluster,
    services_cluster: Cluster,
    make_template: Callable[[Cluster, str, Callable[[str], Awaitable[object]]], str],
) -> tuple[str, str]:
    legacy = make_template(legacy_cluster, "people_legacy", lambda url: create_tables(url, LEGACY_DDL))
    new = make_template(services_cluster, "people_new", lambda url: create_tables(url, NEW_DDL))
    return legacy, new


@pytest.fixture
async def people_databases(
    legacy_cluster: Cluster,
    services_cluster: Cluster,
    make_database: Callable[..., Awaitable[str]],
    people_templates: tuple[str, str],
) -> Databases:
    return Databases(
        legacy_url=await make_database(legacy_cluster, template=people_templates[0]),
        new_url=await make_database(services_cluster, template=people_templates[1]),
    )


@pytest.fixture
async def local_units(people_databases: Databases) -> AsyncIterator[LocalUnits]:
    """Units of a service that has the new database alone."""
    engine = create_side_engine(people_databases.new_url, application_name="test")
    yield LocalUnits(engine)
    await engine.dispose()


@pytest.fixture
async def make_manager(people_databases: Databases) -> AsyncIterator[MakeManager]:
    made: list[PeopleManager] = []

    async def make(
        phase: Phase = Phase.DUALWRITE,
        *,
        hook: Hook = no_hook,
        url: dict[Side, str] | None = None,
        **settings: Any,
    ) -> PeopleManager:
        urls = {Side.LEGACY: people_databases.legacy_url, Side.NEW: people_databases.new_url} | (url or {})
        chosen = DualWriteSettings(
            service="people",
            legacy_database_url=urls[Side.LEGACY],
            database_url=urls[Side.NEW],
            phase=phase,
            retry_delay_seconds=0.0,
        )
        manager = PeopleManager(
            settings=replace(chosen, **settings),
            metrics=Metrics(CollectorRegistry()),
            hook=hook,
            limits=DatabaseLimits(
                statement_seconds=10, lock_seconds=3, connect_seconds=3, pool_wait_seconds=3
            ),
        )
        made.append(manager)
        await manager.install()
        await manager.start()
        return manager

    yield make
    for manager in made:
        await manager.close()


@dataclass(frozen=True)
class Sql:
    """Straight SQL on one side, as another program would write it."""

    url: str

    async def __call__(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.url)
        try:
            return list(await connection.fetch(statement, *arguments))
        finally:
            await connection.close()

    async def until(self, statement: str, *, found: bool = True) -> None:
        """Wait until the server sees rows of `statement`, or none any more."""
        async with asyncio.timeout(30):
            while bool(await self(statement)) is not found:  # noqa: ASYNC110 - another process decides
                await asyncio.sleep(0.01)


@pytest.fixture
def legacy_sql(people_databases: Databases) -> Sql:
    return Sql(people_databases.legacy_url)


@pytest.fixture
def new_sql(people_databases: Databases) -> Sql:
    return Sql(people_databases.new_url)
