"""Messages are delivered and taken in side by side, so many at once: none waits for another that takes long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from backend.shared import Phase, Side
from backend.shared.events import delivery
from backend.shared.events.envelope import Envelope
from backend.shared.events.over_nats import NatsTransport
from backend.shared.events.transport import TAKEN_AT_ONCE
from backend.shared.testing.brokers import NatsServer
from tests.support.fixtures import Sql
from tests.support.publishing import Publishing
from tests.support.streams import own_stream
from tests.support.telling import ROOM, MakeTeller, PersonAdded, Teller


class Gate:
    """Whoever comes while it is shut waits at it, and is counted."""

    def __init__(self, *, open_at: int) -> None:
        """`full` when `open_at` wait at it."""
        self.waiting = 0
        self.most = 0
        self.full = asyncio.Event()
        self.open = asyncio.Event()
        self._open_at = open_at

    async def pass_(self) -> None:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        if self.waiting >= self._open_at:
            self.full.set()
        await self.open.wait()
        self.waiting -= 1


@asynccontextmanager
async def listening(teller: Teller, broker: NatsServer, stream: str) -> AsyncIterator[NatsTransport]:
    async with own_stream(broker, stream) as transport:
        teller.consumer.listen(transport)
        await transport.start()
        yield transport


@asynccontextmanager
async def listening_too(teller: Teller, broker: NatsServer, stream: str) -> AsyncIterator[None]:
    """One more process that takes in what is in a stream."""
    transport = NatsTransport(broker.url, stream=stream, silent_seconds=1.0)
    teller.consumer.listen(transport)
    await transport.start()
    try:
        yield
    finally:
        await transport.stop()


async def publish(teller: Teller, transport: NatsTransport, count: int) -> None:
    for _ in range(count):
        told = await teller.add(f"{len(teller.told)}@example.org")
        await transport.publish(told, told.model_dump_json().encode())


async def test_rows_end_when_the_broker_has_kept_their_messages_and_not_before(
    make_teller: MakeTeller, legacy_sql: Sql
) -> None:
    teller = await make_teller(Phase.DUALWRITE)
    count = delivery.AT_ONCE + 2
    for number in range(count):
        await teller.add(f"{number}@example.org")
    gate = Gate(open_at=delivery.AT_ONCE)
    kept: list[Envelope] = []

    async def keep(envelope: Envelope) -> None:
        await gate.pass_()
        kept.append(envelope)

    delivers = delivery.Delivery(
        teller.manager.runtime.engines[Side.LEGACY], ROOM.tables[Side.LEGACY], Publishing(keep)
    )
    await delivers.start()
    try:
        async with asyncio.timeout(10):
            await gate.full.wait()
        assert len(await legacy_sql("SELECT 1 FROM tandem_people.outbox")) == count
        gate.open.set()
        await legacy_sql.until("SELECT 1 WHERE NOT EXISTS (SELECT FROM tandem_people.outbox)")
    finally:
        await delivers.stop()
    assert gate.most == delivery.AT_ONCE
    assert {envelope.id for envelope in kept} == {envelope.id for envelope in teller.told}


@asynccontextmanager
async def delivering(teller: Teller) -> AsyncIterator[asyncio.Queue[Envelope]]:
    """Delivers from legacy; answers what comes."""
    came = asyncio.Queue[Envelope]()
    delivers = delivery.Delivery(
        teller.manager.runtime.engines[Side.LEGACY], ROOM.tables[Side.LEGACY], Publishing(came.put)
    )
    await delivers.start()
    try:
        yield came
    finally:
        await delivers.stop()


async def test_whoever_delivers_is_woken_by_what_is_told(
    make_teller: MakeTeller, legacy_sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """She looks by herself once in half a minute at the most, and each message is there at once all the same."""
    monkeypatch.setattr(delivery, "LEAST_SECONDS", 60.0)
    monkeypatch.setattr(delivery, "MOST_SECONDS", 60.0)
    monkeypatch.setattr(delivery, "LEASE_SECONDS", 200.0)
    teller = await make_teller(Phase.DUALWRITE)
    async with delivering(teller) as came:
        await legacy_sql.until("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
        for number in range(3):
            told = await teller.add(f"{number}@example.org")
            async with asyncio.timeout(10):
                assert (await came.get()).id == told.id
            await legacy_sql.until("SELECT 1 WHERE NOT EXISTS (SELECT FROM tandem_people.outbox)")


async def test_who_wakes_whom_is_told_by_the_room_where_services_share_a_database(
    make_teller: MakeTeller, legacy_sql: Sql
) -> None:
    teller = await make_teller(Phase.DUALWRITE)
    await teller.add("one@example.org")
    rows = await legacy_sql("SELECT queue FROM tandem_people.outbox")
    assert [row["queue"] for row in rows] == ["tandem_people"]


async def test_delivery_takes_no_connection_from_those_who_serve(make_teller: MakeTeller) -> None:
    """And has its own where those who serve have taken all."""
    teller = await make_teller(Phase.DUALWRITE)
    told = await teller.add("one@example.org")
    engine = teller.manager.runtime.engines[Side.LEGACY]
    async with AsyncExitStack() as held:
        while engine.pool.checkedout() < engine.pool.size():  # type: ignore[attr-defined]  # that of a queue
            await held.enter_async_context(engine.connect())
        async with delivering(teller) as came, asyncio.timeout(10):
            assert (await came.get()).id == told.id


async def test_a_message_that_takes_long_holds_up_no_other(
    make_teller: MakeTeller, nats_server: NatsServer, legacy_sql: Sql
) -> None:
    teller = await make_teller(Phase.DUALWRITE)
    gate = Gate(open_at=1)

    async def first_waits(event: PersonAdded) -> None:
        if event.email == "0@example.org":
            await gate.pass_()

    teller.before_greeting = first_waits
    async with listening(teller, nats_server, "long") as transport:
        await publish(teller, transport, 1)
        async with asyncio.timeout(10):
            await gate.full.wait()
        later = TAKEN_AT_ONCE + 2
        await publish(teller, transport, later)
        await legacy_sql.until(f"SELECT 1 FROM tandem_people.greetings HAVING count(*) = {later}")
        gate.open.set()
        await legacy_sql.until(f"SELECT 1 FROM tandem_people.greetings HAVING count(*) = {later + 1}")


async def test_no_more_messages_are_taken_in_at_once_than_there_is_room_for(
    make_teller: MakeTeller, nats_server: NatsServer, legacy_sql: Sql
) -> None:
    teller = await make_teller(Phase.DUALWRITE)
    gate = Gate(open_at=TAKEN_AT_ONCE)

    async def waits(_event: PersonAdded) -> None:
        await gate.pass_()

    teller.before_greeting = waits
    count = 2 * TAKEN_AT_ONCE + 3
    async with listening(teller, nats_server, "room") as transport:
        await publish(teller, transport, count)
        async with asyncio.timeout(10):
            await gate.full.wait()
        gate.open.set()
        await legacy_sql.until(f"SELECT 1 FROM tandem_people.greetings HAVING count(*) = {count}")
    assert gate.most == TAKEN_AT_ONCE


async def test_who_stops_finishes_what_is_in_hand_and_leaves_the_rest_to_others(
    make_teller: MakeTeller, nats_server: NatsServer, legacy_sql: Sql
) -> None:
    teller = await make_teller(Phase.DUALWRITE)
    first = asyncio.Event()

    async def rings(_event: PersonAdded) -> None:
        first.set()

    teller.before_greeting = rings
    count = 8 * TAKEN_AT_ONCE
    async with own_stream(nats_server, "stops", silent_seconds=1.0) as transport:
        await transport.start()
        await publish(teller, transport, count)
        async with listening_too(teller, nats_server, "stops"), asyncio.timeout(10):
            await first.wait()
        (done,) = await legacy_sql("SELECT count(*) AS n FROM tandem_people.greetings")
        assert 0 < done["n"] < count
        async with listening_too(teller, nats_server, "stops"):
            await legacy_sql.until(f"SELECT 1 FROM tandem_people.greetings HAVING count(*) = {count}")
