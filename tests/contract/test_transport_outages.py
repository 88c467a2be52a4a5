"""What every message broker has to do when it is killed (SIGKILL) on the way. For brokers that are servers of our own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress

import pytest

from backend.shared.events.envelope import Envelope
from backend.shared.events.transport import Transport
from backend.shared.testing.rabbit_server import RabbitServer
from tests.support.broker_room import WAIT_SECONDS, BrokerRoom, BrokerServer, Rang, tell, told

PAUSE_SECONDS = 0.1


@pytest.fixture(autouse=True)
def running(broker_server: BrokerServer) -> Iterator[None]:
    yield
    broker_server.start()  # a test that failed may have left it down


async def kill(server: BrokerServer, *, having: str | None = None) -> None:
    """SIGKILL; before that wait until the queue `having`, which has just been made, is known to outlive it."""
    while isinstance(server, RabbitServer) and having and not server.has_on_disk(having):  # noqa: ASYNC110 - a file
        await asyncio.sleep(PAUSE_SECONDS)
    await asyncio.to_thread(server.kill9)


async def start(server: BrokerServer) -> None:
    await asyncio.to_thread(server.start)


async def tell_at_last(transport: Transport, envelope: Envelope) -> int:
    """Publish a message as whoever delivers does: again until it is kept. Answers how often that was refused."""
    refused = 0
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            try:
                await tell(transport, envelope)
            except Exception:  # noqa: BLE001 - each driver has its own
                refused += 1
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                return refused


async def answers(transport: Transport) -> bool:
    try:
        async with asyncio.timeout(2):
            await transport.ping()
    except Exception:  # noqa: BLE001 - each driver has its own
        return False
    return True


async def test_whether_it_answers(broker: BrokerRoom, broker_server: BrokerServer) -> None:
    transport = broker.transport()
    assert not await answers(transport), "nobody has connected"
    await transport.start()
    assert await answers(transport)
    await kill(broker_server)
    assert not await answers(transport)
    await start(broker_server)
    async with asyncio.timeout(WAIT_SECONDS):
        while not await answers(transport):  # noqa: ASYNC110 - the broker rings no bell
            await asyncio.sleep(PAUSE_SECONDS)


async def test_killed_between_publish_and_take(broker: BrokerRoom, broker_server: BrokerServer) -> None:
    """What `publish` returned for is there afterwards; connections mend themselves."""
    consumer = await broker.listens("one")
    await consumer.transport.stop()
    publisher = await broker.started()
    before = await told(publisher, *range(50))
    await kill(broker_server, having=f"{broker.name}.one")
    await start(broker_server)
    after = Envelope.of(Rang(number=99), correlation_id="99")
    await tell_at_last(publisher, after)
    listener = await broker.listens("one")
    await listener.until_all([*before, after])


async def test_killed_before_anybody_has_listened(broker: BrokerRoom, broker_server: BrokerServer) -> None:
    before = await told(await broker.started(), *range(50))
    await kill(broker_server, having=f"{broker.name}.unheard")
    await start(broker_server)
    listener = await broker.listens("late")
    await listener.until_all(before)


async def test_killed_while_a_message_is_taken_in(broker: BrokerRoom, broker_server: BrokerServer) -> None:
    """It is refused to a broker that is not there, and comes again; so does what is told later, to the same process."""
    listener = broker.listener("one")
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def before(_body: bytes) -> None:
        if not go_on.is_set():
            begun.set()
            await go_on.wait()
            raise RuntimeError("not yet")

    listener.before = before
    await listener.transport.start()
    publisher = await broker.started()
    (first,) = await told(publisher, 1)
    await begun.wait()
    await kill(broker_server, having=f"{broker.name}.one")
    go_on.set()
    await start(broker_server)
    second = Envelope.of(Rang(number=2), correlation_id="2")
    await tell_at_last(publisher, second)
    await listener.until_all([first, second])


async def test_publishing_fails_while_it_is_away(
    broker: BrokerRoom, broker_server: BrokerServer, caplog: pytest.LogCaptureFixture
) -> None:
    """And whatever is said of that, a password is not."""
    listener = await broker.listens("one")
    publisher = await broker.started()
    await told(publisher, 1)
    await kill(broker_server, having=f"{broker.name}.one")
    envelope = Envelope.of(Rang(number=2), correlation_id="2")
    with pytest.raises(Exception):  # noqa: B017, PT011 - each driver has its own
        await tell(publisher, envelope)
    await start(broker_server)
    await tell_at_last(publisher, envelope)
    await listener.until_all([envelope])
    assert "guest:guest" not in caplog.text


async def test_who_begins_while_it_is_away_is_there_afterwards(
    broker: BrokerRoom, broker_server: BrokerServer
) -> None:
    """`start` is called again, as long as it raises."""
    await kill(broker_server)
    listener = broker.listener("one")
    tried = asyncio.Event()

    async def begin() -> None:
        while True:
            tried.set()
            with suppress(Exception):
                await listener.transport.start()
                return
            await asyncio.sleep(PAUSE_SECONDS)

    beginning = asyncio.create_task(begin())
    try:
        await tried.wait()
        await start(broker_server)
        async with asyncio.timeout(WAIT_SECONDS):
            await beginning
    finally:
        beginning.cancel()
    await listener.until_all(await told(await broker.started(), 1))
