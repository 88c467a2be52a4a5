"""The people service, which now tells others of new people and listens to what is said of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Column, Integer, MetaData, Table

from backend.shared import DualWriteSettings, EntityMapping, Phase, Side, UnitOfWork
from backend.shared.database import create_side_engine
from backend.shared.domain.mirrors import Mirrors
from backend.shared.events.consumer import Consumer
from backend.shared.events.delivery import Delivery
from backend.shared.events.envelope import DomainEvent, Envelope
from backend.shared.events.outbox import Outbox
from backend.shared.events.tables import EventRoom
from backend.shared.events.transport import Transport
from backend.shared.observability.metrics import Metrics
from backend.shared.testing.clusters import Databases
from tests.support.people import PeopleManager, people

T = TypeVar("T")

METADATA = MetaData()
MIRRORS = Mirrors(room="tandem_people")
ROOM = EventRoom.mirrored(METADATA, MIRRORS)
greetings = Table(
    "greetings",
    METADATA,
    Column("person_id", Integer, primary_key=True, autoincrement=False),
    Column("times", Integer, nullable=False),
)
GREETING = MIRRORS.entity("greeting", greetings)


class PersonAdded(DomainEvent):
    message_type: ClassVar[str] = "PersonAdded"
    aggregate_type: ClassVar[str] = "person"

    person_id: int
    email: str

    @property
    def aggregate_id(self) -> str:
        return str(self.person_id)


class TellingManager(PeopleManager):
    """People, greetings, and what events need."""

    messages = ROOM

    @classmethod
    def entities(cls) -> Sequence[EntityMapping]:
        return (*super().entities(), *ROOM.entities, GREETING)


@dataclass
class Teller:
    """The service in one process: it adds people, tells of each, and greets each that it hears of."""

    manager: TellingManager
    told: list[Envelope] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.outbox = Outbox(ROOM, tells={PersonAdded})
        self.consumer = Consumer("people", ROOM, self.manager.run_unit, metrics=self.manager.runtime.metrics)
        self.before_greeting: Callable[[PersonAdded], Awaitable[None]] | None = None
        self.consumer.on(PersonAdded)(self.greet)

    async def add(self, email: str) -> Envelope:
        async def unit(work: UnitOfWork) -> Envelope:
            (number,) = await work.insert("person", {people.c.email: email})
            return await self.outbox.record(work, PersonAdded(person_id=number, email=email))

        self.told.append(await self.manager.run_unit("add", unit))
        return self.told[-1]

    async def greet(self, work: UnitOfWork, event: PersonAdded) -> None:
        if self.before_greeting:
            await self.before_greeting(event)
        there = await work.get("greeting", (event.person_id,), for_update=True)
        if there is None:
            await work.insert("greeting", {greetings.c.person_id: event.person_id, greetings.c.times: 1})
        else:
            await work.update("greeting", (event.person_id,), {greetings.c.times: there["times"] + 1})

    def deliveries(self, transport: Transport) -> list[Delivery]:
        engines = self.manager.runtime.engines
        return [Delivery(engines[side], ROOM.tables[side], transport) for side in Side]


MakeTeller = Callable[..., Awaitable[Teller]]


@pytest.fixture
async def make_teller(people_databases: Databases) -> AsyncIterator[MakeTeller]:
    """Makes a process of the telling service, in a phase."""
    made: list[TellingManager] = []
    await _create_own_tables(people_databases.new_url)

    async def make(phase: Phase = Phase.DUALWRITE) -> Teller:
        settings = DualWriteSettings(
            service="people",
            legacy_database_url=people_databases.legacy_url,
            database_url=people_databases.new_url,
            phase=phase,
            retry_delay_seconds=0.0,
        )
        manager = TellingManager(settings=settings, metrics=Metrics(CollectorRegistry()))
        made.append(manager)
        await manager.install()
        await manager.start()
        return Teller(manager)

    yield make
    for manager in made:
        await manager.close()


async def _create_own_tables(url: str) -> None:
    engine = create_side_engine(url, application_name="test")
    async with engine.begin() as connection:
        await connection.run_sync(METADATA.create_all)
    await engine.dispose()
