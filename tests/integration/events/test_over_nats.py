"""What JetStream is told: which messages a consumer hears, how long one may be in hand, and how long the stream keeps them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import ClassVar

import nats
import pytest
from faststream.nats.message import NatsMessage
from nats.js import JetStreamContext
from nats.js.api import StreamConfig

from backend.shared.events.envelope import DomainEvent, Envelope, Message
from backend.shared.events.nats_stream import SUBJECTS
from backend.shared.events.over_nats import NatsTransport
from backend.shared.events.transport import Take
from backend.shared.testing.brokers import NatsServer
from tests.support.broker_room import forget_streams
from tests.support.streams import own_stream


class Seen(DomainEvent):
    """One that the consumer has always heard."""

    message_type: ClassVar[str] = "Seen"
    aggregate_type: ClassVar[str] = "sight"

    @property
    def aggregate_id(self) -> str:
        return "1"


class SeenAgain(Seen):
    """One that its next version hears."""

    message_type: ClassVar[str] = "SeenAgain"


@asynccontextmanager
async def jetstream(broker: NatsServer) -> AsyncIterator[JetStreamContext]:
    connection = await nats.connect(broker.url)
    try:
        yield connection.jetstream()
    finally:
        await connection.close()


def heard(transport: NatsTransport, kinds: Sequence[type[Message]], take: Take) -> NatsTransport:
    transport.subscribe("watcher", kinds, take)
    return transport


async def publish(transport: NatsTransport, message: Message) -> None:
    envelope = Envelope.of(message, correlation_id="1")
    await transport.publish(envelope, envelope.model_dump_json().encode())


async def test_a_message_in_hand_is_not_brought_again_however_long_it_takes(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[bytes] = []
    go_on, said = asyncio.Event(), asyncio.Semaphore(0)
    in_progress = NatsMessage.in_progress

    async def take(body: bytes) -> None:
        begun.append(body)
        await go_on.wait()

    async def saying(message: NatsMessage) -> None:
        await in_progress(message)
        said.release()

    monkeypatch.setattr(NatsMessage, "in_progress", saying)
    async with own_stream(nats_server, "in-hand", silent_seconds=3.0) as transport:
        await heard(transport, [Seen], take).start()
        await publish(transport, Seen())
        async with jetstream(nats_server) as told, asyncio.timeout(30):
            # Three of them are as long as the server waits for a process that says nothing.
            for _ in range(5):
                await said.acquire()
            info = await told.consumer_info("in-hand", "watcher")
            assert (info.num_ack_pending, info.num_redelivered) == (1, 0)
            go_on.set()
            while (await told.consumer_info("in-hand", "watcher")).num_ack_pending:  # noqa: ASYNC110 - the broker rings no bell
                await asyncio.sleep(0.01)
    assert len(begun) == 1


async def test_the_next_version_of_a_service_hears_what_the_one_before_did_not(
    nats_server: NatsServer,
) -> None:
    taken: list[Envelope] = []
    both = asyncio.Event()

    async def take(body: bytes) -> None:
        taken.append(Envelope.model_validate_json(body))
        if len(taken) == 2:
            both.set()

    async with own_stream(nats_server, "versions") as transport:
        await heard(transport, [Seen], take).start()
        await transport.stop()
        following = NatsTransport(nats_server.url, stream="versions")
        await heard(following, [Seen, SeenAgain], take).start()
        try:
            await publish(following, Seen())
            await publish(following, SeenAgain())
            async with asyncio.timeout(10):
                await both.wait()
        finally:
            await following.stop()
    assert {envelope.type for envelope in taken} == {"Seen", "SeenAgain"}


async def test_a_stream_that_is_there_keeps_its_limits(nats_server: NatsServer) -> None:
    await forget_streams(nats_server.url)
    async with jetstream(nats_server) as told:
        await told.add_stream(StreamConfig(name="own-limits", subjects=["events.>"], max_age=60, max_msgs=10))
        transport = NatsTransport(nats_server.url, stream="own-limits")
        await transport.start()
        await transport.stop()
        config = (await told.stream_info("own-limits")).config
        await forget_streams(nats_server.url)
    assert set(config.subjects or ()) == set(SUBJECTS)
    assert (config.max_age, config.max_msgs) == (60, 10)


async def test_a_stream_that_is_made_lets_go_of_messages_in_the_end(nats_server: NatsServer) -> None:
    async with own_stream(nats_server, "made") as transport, jetstream(nats_server) as told:
        await transport.start()
        assert (await told.stream_info("made")).config.max_age == 14 * 24 * 3600
