"""What waits, what arrives, what is put aside and whether the broker is there: all of it is counted."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from backend.shared import Phase, Side
from backend.shared.domain.errors import AwayError
from backend.shared.events import consumer as consuming
from backend.shared.events import messaging as messages
from backend.shared.events.consumer import Consumer
from backend.shared.events.dead_letters import DeadLetters
from backend.shared.events.envelope import Envelope
from backend.shared.events.messaging import Messaging
from backend.shared.events.over_nats import NatsTransport
from backend.shared.testing.brokers import NatsServer
from tests.support.fixtures import Sql
from tests.support.streaming import until
from tests.support.telling import ROOM, MakeTeller, PersonAdded, Teller

GATES = ("lag", "validation", "shadow-reads", "backfill")


@pytest.fixture
def broker(worker_directory: Path) -> Iterator[NatsServer]:
    """One of the test's own, not started: a server holds one stream of these subjects, and what was told there before."""
    server = NatsServer(worker_directory / f"nats-{secrets.token_hex(4)}")
    yield server
    server.resume()
    server.remove()


@asynccontextmanager
async def messaging(
    teller: Teller, broker: NatsServer, *, transport: NatsTransport | None = None
) -> AsyncIterator[Messaging]:
    """The service delivers and listens, and measures when the test says so."""
    made = Messaging(
        transport or NatsTransport(broker.url),
        ROOM,
        teller.manager.runtime.engines,
        consumer=teller.consumer,
        phase=lambda: teller.manager.phase,
    )
    await made.start()
    try:
        yield made
    finally:
        await made.close()


def shown(teller: Teller, name: str, **labels: str) -> float | None:
    """A sample of the service's metrics."""
    registry = teller.manager.runtime.metrics.registry
    return registry.get_sample_value(f"dualwrite_{name}", {"service": "people", **labels})


async def test_what_is_delivered_taken_in_and_brought_again(
    make_teller: MakeTeller, broker: NatsServer, legacy_sql: Sql
) -> None:
    broker.start()
    teller = await make_teller(Phase.DUALWRITE)
    async with messaging(teller, broker) as watched:
        for number in range(3):
            await teller.add(f"{number}@example.org")
        await legacy_sql.until("SELECT 1 FROM tandem_people.greetings HAVING count(*) = 3")
        await legacy_sql.until("SELECT 1 FROM tandem_people.outbox", found=False)
        await teller.consumer.take(teller.told[0].model_dump_json().encode())
        await watched.look()
    kind = {"type": "PersonAdded"}
    assert shown(teller, "deliveries_total", **kind, outcome="delivered") == 3
    assert shown(teller, "messages_total", **kind, outcome="taken_in") == 3
    assert shown(teller, "messages_total", **kind, outcome="repeated") == 1
    assert shown(teller, "message_handling_duration_seconds_count", **kind) == 4
    assert shown(teller, "message_age_seconds_count", **kind) == 3
    assert 0 < (shown(teller, "message_age_seconds_sum", **kind) or 0) < 30
    assert shown(teller, "outbox_rows", side="legacy") == 0
    assert shown(teller, "outbox_age_seconds", side="legacy") == 0
    assert shown(teller, "dead_letters_open") == 0
    assert shown(teller, "broker_state", state="connected") == 1


async def test_what_cannot_be_taken_in_is_counted_until_it_is_told_anew(
    make_teller: MakeTeller, broker: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consuming, "DELAY_SECONDS", 0.001)
    teller = await make_teller(Phase.DUALWRITE)

    async def refuse(_: PersonAdded) -> None:
        raise ValueError("not her")

    teller.before_greeting = refuse
    told = await teller.add("one@example.org")
    await teller.consumer.take(told.model_dump_json().encode())
    await teller.consumer.take(b'{"type": "Nonsense"}')
    watched = _unstarted(teller, broker)
    await watched.look()
    assert shown(teller, "messages_total", type="PersonAdded", outcome="failed") == consuming.ATTEMPTS
    assert shown(teller, "messages_total", type="PersonAdded", outcome="put_aside") == 1
    assert shown(teller, "messages_total", type="other", outcome="put_aside") == 1
    assert shown(teller, "dead_letters_open") == 2
    await DeadLetters(ROOM, teller.manager.run_unit).replay(str(told.id))
    await watched.look()
    assert shown(teller, "dead_letters_open") == 1


async def test_a_side_that_is_away_is_no_fault_of_the_message(make_teller: MakeTeller, new_sql: Sql) -> None:
    """It waits, and that is counted apart."""
    teller = await make_teller(Phase.RAMPDOWN)
    told = await teller.add("one@example.org")
    runs = 0

    async def away_once(operation: str, unit: Any) -> Any:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise AwayError("not there")
        return await teller.manager.run_unit(operation, unit)

    teller.consumer.run = away_once
    await teller.consumer.take(told.model_dump_json().encode())
    assert shown(teller, "messages_total", type="PersonAdded", outcome="waiting") == 1
    assert shown(teller, "messages_total", type="PersonAdded", outcome="taken_in") == 1
    assert shown(teller, "messages_total", type="PersonAdded", outcome="failed") is None
    assert len(await new_sql("SELECT 1 FROM greetings")) == 1


async def test_what_waits_for_a_broker_is_shown_with_its_age(
    make_teller: MakeTeller, broker: NatsServer, legacy_sql: Sql
) -> None:
    teller = await make_teller(Phase.DUALWRITE)
    async with messaging(teller, broker) as watched:
        await teller.add("one@example.org")
        await legacy_sql("UPDATE tandem_people.outbox SET created_at = now() - interval '90 s'")
        await watched.look()
        assert shown(teller, "outbox_rows", side="legacy") == 1
        assert 90 <= (shown(teller, "outbox_age_seconds", side="legacy") or 0) < 150
        assert shown(teller, "broker_state", state="away") == 1
        broker.start()
        await legacy_sql.until("SELECT 1 FROM tandem_people.outbox", found=False)
        connected = partial(shown, teller, "broker_state", state="connected")
        await until(_after_a_look(watched, connected))
        assert shown(teller, "outbox_rows", side="legacy") == 0
        broker.kill9()
        await teller.add("two@example.org")
        failed = partial(shown, teller, "deliveries_total", type="PersonAdded", outcome="failed")
        await until(_after_a_look(watched, failed))
        broker.start()
        await until(_after_a_look(watched, connected))


class Held(NatsTransport):
    """Its messages are on their way until the test says so."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.reached, self.go = asyncio.Event(), asyncio.Event()

    async def publish(self, envelope: Envelope, body: bytes, *, again: str = "") -> None:
        self.reached.set()
        await self.go.wait()
        await super().publish(envelope, body, again=again)


async def test_what_is_in_hand_is_delivered_before_the_end(
    make_teller: MakeTeller, broker: NatsServer, legacy_sql: Sql
) -> None:
    broker.start()
    teller = await make_teller(Phase.DUALWRITE)
    transport = Held(broker.url)
    async with messaging(teller, broker, transport=transport) as watched:
        await teller.add("one@example.org")
        await transport.reached.wait()
        closing = asyncio.ensure_future(watched.close())
        await asyncio.wait([closing], timeout=0.3)
        transport.go.set()
        await closing
    assert await legacy_sql("SELECT 1 FROM tandem_people.outbox") == []
    assert shown(teller, "deliveries_total", type="PersonAdded", outcome="failed") is None


async def test_a_broker_that_has_lost_everything_is_gone_on_with(
    make_teller: MakeTeller, broker: NatsServer, legacy_sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is told afterwards is delivered and taken in, by the same process."""
    monkeypatch.setattr(messages, "LOOK_SECONDS", 0.1)
    broker.start()
    teller = await make_teller(Phase.DUALWRITE)
    async with messaging(teller, broker):
        await teller.add("one@example.org")
        await legacy_sql.until("SELECT 1 FROM tandem_people.greetings")
        broker.kill9()
        shutil.rmtree(broker.directory / "data")
        broker.start()
        await teller.add("two@example.org")
        await legacy_sql.until("SELECT 1 FROM tandem_people.greetings HAVING count(*) = 2")
        await legacy_sql.until("SELECT 1 FROM tandem_people.outbox", found=False)


async def test_a_broker_that_stands_still_is_away(
    make_teller: MakeTeller, broker: NatsServer, legacy_sql: Sql
) -> None:
    """Its connection is open all the while."""
    broker.start()
    teller = await make_teller(Phase.DUALWRITE)
    async with messaging(teller, broker) as watched:
        await teller.add("one@example.org")
        await legacy_sql.until("SELECT 1 FROM tandem_people.outbox", found=False)
        broker.suspend()
        await watched.look()
        assert shown(teller, "broker_state", state="away") == 1
        assert shown(teller, "broker_state", state="connected") == 0
        broker.resume()
        await watched.look()
        assert shown(teller, "broker_state", state="connected") == 1


async def test_legacy_is_let_go_of_when_the_move_is_complete(
    make_teller: MakeTeller, broker: NatsServer, new_sql: Sql
) -> None:
    """A gauge that nobody sets any more would ring for ever."""
    broker.start()
    teller = await make_teller(Phase.RAMPDOWN)
    async with messaging(teller, broker) as watched:
        await watched.look()
        assert shown(teller, "outbox_rows", side="legacy") == 0
        await teller.manager.change_phase(Phase.COMPLETE, reason="a test", force=GATES)
        await watched.look()
        assert shown(teller, "outbox_rows", side="legacy") is None
        assert list(watched._deliveries) == [Side.NEW]
        await teller.add("one@example.org")
        await new_sql.until("SELECT 1 FROM greetings")


def _after_a_look(watched: Messaging, found: Callable[[], float | None]) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        await watched.look()
        return bool(found())

    return look


def _unstarted(teller: Teller, broker: NatsServer) -> Messaging:
    """One that only measures."""
    return Messaging(
        NatsTransport(broker.url),
        ROOM,
        teller.manager.runtime.engines,
        consumer=Consumer("people", ROOM, teller.manager.run_unit, metrics=teller.manager.runtime.metrics),
        phase=lambda: teller.manager.phase,
    )
