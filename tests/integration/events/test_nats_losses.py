"""What becomes of a running process when JetStream has lost what it made there, or is away for long."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from nats.errors import OutboundBufferLimitError
from nats.js import JetStreamContext
from nats.js.errors import NoStreamResponseError

from backend.shared.domain.errors import AwayError
from backend.shared.events import over_nats
from backend.shared.events.nats_pulling import PatientPull
from backend.shared.events.over_nats import NatsTransport
from backend.shared.testing.brokers import NatsServer
from tests.support.broker_room import WAIT_SECONDS, Knocked, Listener, Rang, told

STREAM = "losses"
CONSUMER = "listener"
TRIES = 5


@pytest.fixture
def server(worker_directory: Path) -> Iterator[NatsServer]:
    """One of the test's own: it loses its disk."""
    server = NatsServer(worker_directory / f"nats-{secrets.token_hex(4)}")
    server.start()
    yield server
    server.remove()


@asynccontextmanager
async def listening(
    server: NatsServer, *kinds: type[Rang], silent_seconds: float = 10.0
) -> AsyncIterator[tuple[NatsTransport, Listener]]:
    """A process that publishes, and takes in."""
    transport = NatsTransport(server.url, stream=STREAM, silent_seconds=silent_seconds)
    listener = Listener(transport, asyncio.Condition())
    transport.subscribe(CONSUMER, kinds or (Rang,), listener.take)
    await transport.start()
    try:
        yield transport, listener
    finally:
        await transport.stop()


async def until(found: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not found():  # noqa: ASYNC110 - the driver rings no bell
            await asyncio.sleep(0.01)


async def begin_anew(server: NatsServer, transport: NatsTransport) -> None:
    """The server is killed and comes back without its disk; the client finds it again."""
    await cut_off(server, transport)
    shutil.rmtree(server.directory / "data")
    await asyncio.to_thread(server.start)
    await until(lambda: transport.broker.connection.is_connected)


async def cut_off(server: NatsServer, transport: NatsTransport) -> None:
    await asyncio.to_thread(server.kill9)
    await until(lambda: not transport.broker.connection.is_connected)


def jetstream(transport: NatsTransport) -> JetStreamContext:
    return transport.broker.connection.jetstream()


class Counted:
    """Calls of a method, counted; `enough` after so many."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, of: type, name: str, *, enough: int = TRIES) -> None:
        self.count = 0
        self.enough = asyncio.Event()
        called = getattr(of, name)

        async def counting(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            if self.count == enough:
                self.enough.set()
            return await called(*args, **kwargs)

        monkeypatch.setattr(of, name, counting)

    async def until_enough(self) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            await self.enough.wait()


async def test_a_stream_that_was_lost_is_made_again_and_taken_from(server: NatsServer) -> None:
    async with listening(server) as (transport, listener):
        await listener.until_all(await told(transport, 1))
        await begin_anew(server, transport)
        with pytest.raises(NoStreamResponseError):
            await told(transport, 2)
        with pytest.raises(AwayError, match="stream"):
            await transport.ping()
        await transport.mend()
        await transport.ping()
        await listener.until_all(await told(transport, 3))


async def test_what_another_process_made_again_is_taken_from(server: NatsServer) -> None:
    """Its stream has no consumer of ours."""
    async with listening(server) as (transport, listener):
        await begin_anew(server, transport)
        other = NatsTransport(server.url, stream=STREAM)
        await other.start()
        try:
            envelopes = await told(other, 1)
        finally:
            await other.stop()
        await transport.mend()
        await listener.until_all(envelopes)


async def test_a_consumer_that_was_deleted_is_made_again(server: NatsServer) -> None:
    async with listening(server) as (transport, listener):
        before = await told(transport, 1)
        await listener.until_all(before)
        await jetstream(transport).delete_consumer(STREAM, CONSUMER)
        await transport.mend()
        await listener.until_all([*before, *await told(transport, 2)])


async def test_a_version_before_leaves_what_a_later_one_hears(server: NatsServer) -> None:
    async with listening(server, Rang) as (before, _), listening(server, Rang, Knocked) as (after, listener):
        await before.mend()
        config = (await jetstream(after).consumer_info(STREAM, CONSUMER)).config
        assert config.filter_subjects == sorted([Rang.subject(), Knocked.subject()])
        assert not listener.taken


async def test_who_has_not_started_yet_makes_nothing(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is missing then is not lost: whoever starts makes it."""
    transport = NatsTransport(server.url, stream=STREAM)
    await transport.mend()
    begun: list[object] = []

    async def half() -> None:
        await jetstream(transport).delete_stream(STREAM)
        await transport.mend()
        begun.append(await jetstream(transport).streams_info())

    monkeypatch.setattr(transport.broker, "start", half)
    await transport.start()
    await transport.stop()
    assert begun == [[]]


async def test_what_cannot_be_mended_is_away(server: NatsServer) -> None:
    """Another stream has its subjects."""
    async with listening(server) as (transport, _):
        await jetstream(transport).delete_stream(STREAM)
        await jetstream(transport).add_stream(name="other", subjects=["events.>"])
        with pytest.raises(AwayError, match="BadRequestError"):
            await transport.mend()


async def test_a_consumer_that_is_not_there_is_asked_for_now_and_then(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(over_nats, "FETCH_SECONDS", 0.2)
    async with listening(server) as (transport, listener):
        await listener.until_all(await told(transport, 1))
        await jetstream(transport).delete_stream(STREAM)
        clock = asyncio.get_running_loop()
        fetches = Counted(monkeypatch, JetStreamContext.PullSubscription, "fetch")
        began_at = clock.time()
        await fetches.until_enough()
        # The first may be asked for at once.
        assert clock.time() - began_at >= 0.9 * 0.2 * (TRIES - 2)


async def test_nothing_piles_up_while_it_is_away(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(over_nats, "FETCH_SECONDS", 0.05)
    async with listening(server, silent_seconds=0.3) as (transport, listener):
        in_hand, go_on = asyncio.Event(), asyncio.Event()

        async def before(_body: bytes) -> None:
            in_hand.set()
            await go_on.wait()

        listener.before = before
        envelopes = await told(transport, 1)
        async with asyncio.timeout(WAIT_SECONDS):
            await in_hand.wait()
        await cut_off(server, transport)
        client = transport.broker.connection
        fetches = Counted(monkeypatch, PatientPull, "fetch")
        await until(lambda: fetches.count > 0)  # the one that was cut off is over
        had = client.pending_data_size
        says = Counted(monkeypatch, NatsTransport, "_say_in_hand")
        for _ in range(TRIES):
            with pytest.raises(AwayError):
                await told(transport, 2)
            with pytest.raises(AwayError):
                await transport.start()
            await transport.mend()
        await fetches.until_enough()
        await says.until_enough()
        assert client.pending_data_size == had
        go_on.set()
        await asyncio.to_thread(server.start)
        await until(lambda: client.is_connected)
        await listener.until_all([*envelopes, *await told(transport, 3)])


async def test_who_stops_while_it_is_away_keeps_what_was_not_sent_to_itself(server: NatsServer) -> None:
    async with listening(server) as (transport, listener):
        in_hand, go_on = asyncio.Event(), asyncio.Event()

        async def before(_body: bytes) -> None:
            in_hand.set()
            await go_on.wait()

        listener.before = before
        envelopes = await told(transport, 1)
        async with asyncio.timeout(WAIT_SECONDS):
            await in_hand.wait()
        await cut_off(server, transport)
        had = transport.broker.connection.pending_data_size
        go_on.set()
        await listener.until_all(envelopes)
        await until(lambda: transport.broker.connection.pending_data_size > had)
        await transport.stop()


async def test_no_task_is_left_behind_by_a_fetch_that_failed(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(over_nats, "FETCH_SECONDS", 0.05)
    failed = 0
    fetch = JetStreamContext.PullSubscription.fetch

    async def fail_first(*args: Any, **kwargs: Any) -> Any:
        nonlocal failed
        if failed < TRIES:
            failed += 1
            raise OutboundBufferLimitError
        return await fetch(*args, **kwargs)

    async with listening(server) as (transport, listener):
        (subscriber,) = transport.broker.subscribers
        await listener.until_all(await told(transport, 1))
        tasks = list(subscriber.tasks)  # type: ignore[attr-defined]  # of those that fetch
        monkeypatch.setattr(JetStreamContext.PullSubscription, "fetch", fail_first)
        await listener.until_all(await told(transport, 2))
        await until(lambda: failed == TRIES)
        await listener.until_all(await told(transport, 3))
        assert subscriber.tasks == tasks  # type: ignore[attr-defined]
