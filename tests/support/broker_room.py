"""The message broker that was asked for (`--broker`), with a name in it that no other test uses, and who listens there."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar
from uuid import UUID

import nats
import pytest

from backend.shared.events.envelope import DomainEvent, Envelope, Message
from backend.shared.events.outbox import envelope_of
from backend.shared.events.transport import Transport, transport_for
from backend.shared.testing.brokers import NatsServer
from backend.shared.testing.rabbit_server import RabbitServer

WAIT_SECONDS = 40.0
SILENT_SECONDS = 3.0
"""A test does not wait half a minute for what a dead process has had."""

BrokerServer = NatsServer | RabbitServer


class Rang(DomainEvent):
    message_type: ClassVar[str] = "Rang"
    aggregate_type: ClassVar[str] = "bell"

    number: int

    @property
    def aggregate_id(self) -> str:
        return str(self.number)


class Knocked(Rang):
    message_type: ClassVar[str] = "Knocked"
    aggregate_type: ClassVar[str] = "door"


@dataclass
class Listener:
    """What one process has taken in. `before` may hold it, or raise."""

    transport: Transport
    changed: asyncio.Condition
    """Told of whatever any listener of the room takes."""
    taken: list[bytes] = field(default_factory=list)
    before: Callable[[bytes], Awaitable[None]] | None = None

    async def take(self, body: bytes) -> None:
        if self.before:
            await self.before(body)
        async with self.changed:
            self.taken.append(body)
            self.changed.notify_all()

    @property
    def ids(self) -> list[UUID]:
        return [envelope_of(body).id for body in self.taken]

    async def until(self, wanted: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_SECONDS), self.changed:
            await self.changed.wait_for(wanted)

    async def until_all(self, told: Collection[Envelope]) -> None:
        """Wait until each of `told` has come at least once."""
        await self.until(lambda: {envelope.id for envelope in told} <= set(self.ids))


class BrokerRoom:
    """A broker, and who publishes and listens under one name."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self.url = url
        self.name = f"t{secrets.token_hex(4)}"
        self._stack = stack
        self._changed = asyncio.Condition()

    def transport(self) -> Transport:
        """One process's way to it; stopped at the end of the test."""
        made = transport_for(self.url, name=self.name, silent_seconds=SILENT_SECONDS)
        self._stack.push_async_callback(made.stop)
        return made

    async def started(self) -> Transport:
        """One that publishes."""
        transport = self.transport()
        await transport.start()
        return transport

    async def listens(self, consumer: str, *kinds: type[Message]) -> Listener:
        """A process of `consumer`, listening to `Rang` or to `kinds`."""
        listener = self.listener(consumer, *kinds)
        await listener.transport.start()
        return listener

    def listener(self, consumer: str, *kinds: type[Message]) -> Listener:
        """The same, before it has started."""
        listener = Listener(self.transport(), self._changed)
        listener.transport.subscribe(consumer, kinds or (Rang,), listener.take)
        return listener


async def told(transport: Transport, *numbers: int, kind: type[Rang] = Rang) -> list[Envelope]:
    """Publish one message for each number."""
    envelopes = [Envelope.of(kind(number=number), correlation_id=str(number)) for number in numbers]
    for envelope in envelopes:
        await tell(transport, envelope)
    return envelopes


async def tell(transport: Transport, envelope: Envelope, *, again: str = "") -> None:
    """Publish one message."""
    await transport.publish(envelope, envelope.model_dump_json().encode(), again=again)


@pytest.fixture(scope="session")
def broker_server(request: pytest.FixtureRequest, worker_directory: Path) -> Iterator[BrokerServer]:
    """The broker that was asked for, as a server of our own. A test that stops it starts it again."""
    kind = request.config.getoption("--broker")
    if kind == "nats":
        yield request.getfixturevalue("nats_server")
        return
    if kind != "rabbitmq":
        raise pytest.UsageError(f"there is no server of our own for {kind}")
    server = RabbitServer(worker_directory / "rabbitmq")
    server.start()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def broker_url(request: pytest.FixtureRequest) -> str:
    """Where the broker is that was asked for: `--broker-url`, or a server of our own."""
    given: str | None = request.config.getoption("--broker-url")
    if given:
        return given
    server: BrokerServer = request.getfixturevalue("broker_server")
    return server.url


@pytest.fixture
async def broker(broker_url: str) -> AsyncIterator[BrokerRoom]:
    """A broker without messages."""
    if broker_url.startswith("nats://"):
        await forget_streams(broker_url)
    async with AsyncExitStack() as stack:
        yield BrokerRoom(broker_url, stack)


async def forget_streams(url: str) -> None:
    """Two streams may not hold the same subjects, whatever their names."""
    client = await nats.connect(url)
    try:
        streams = client.jetstream()
        for stream in await streams.streams_info():
            await streams.delete_stream(stream.config.name or "")
    finally:
        await client.close()
