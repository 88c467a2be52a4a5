"""Events relayed per second on the terms of faststream-outbox's own benchmark, and how soon one is taken in.

Its terms (`benchmarks/workload.py` of its repository, the point `consumer/w1/b100/tfbs100` of its baseline: 10,184/s): 5,000 rows of
256 bytes lie in a fresh table that nobody vacuums, a checkpoint has been taken, one worker fetches 100 at a time, ends 100 rows by
one statement, looks again after a millisecond, and the handler does nothing; timed from start to stop. `library` is just that. `delivery` is
what services run, with the envelopes that they send (about 400 bytes, parsed on the way), to a broker that does nothing; `nats` the
same to JetStream, which has each message on disk before it says so.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Collection
from statistics import median
from typing import ClassVar
from uuid import uuid4

from faststream_outbox import OutboxBroker, make_outbox_table
from rich.console import Console
from sqlalchemy import MetaData, Table, insert
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.schema import CreateSchema

from backend.shared import Side, UnitOfWork
from backend.shared.database import create_side_engine
from backend.shared.events.consumer import Consumer
from backend.shared.events.delivery import Delivery
from backend.shared.events.envelope import DomainEvent, Envelope, Message
from backend.shared.events.outbox import Outbox
from backend.shared.events.over_nats import NatsTransport
from backend.shared.events.tables import EventRoom, EventTables
from backend.shared.events.transport import Take, Transport
from backend.shared.local_units import LocalUnits
from backend.shared.testing.brokers import NatsServer
from benchmarks.load import Load
from benchmarks.report import Result
from benchmarks.stack import Stack, run_sql
from benchmarks.ways import plain_engine

ROUNDS = 5
ROWS = 5000
PAYLOAD_BYTES = 256
PUBLISHED_PER_SECOND = 10_184
LATENCIES = 100
PAUSE_SECONDS = 0.02
LIMIT_SECONDS = 60.0


class Told(DomainEvent):
    """An event of about the size of those of the shop."""

    message_type: ClassVar[str] = "Told"
    aggregate_type: ClassVar[str] = "thing"

    number: int
    text: str = "x" * 80

    @property
    def aggregate_id(self) -> str:
        """Its number."""
        return str(self.number)


class Heard(Told):
    """The same, of a kind of its own: the one that is listened to."""

    message_type: ClassVar[str] = "Heard"


class Counting:
    """A broker: `inner`, or one that does nothing. `full` when it has kept so many different messages. Implements `Transport`."""

    def __init__(self, inner: Transport | None, *, count: int) -> None:
        self.full = asyncio.Event()
        self._inner = inner
        self._count = count
        self._kept: set[object] = set()

    async def start(self) -> None:
        """Whoever made `inner` starts it."""

    async def stop(self) -> None:
        """And stops it."""

    async def ping(self) -> None:
        """It is there."""

    async def mend(self) -> None:
        """Whole, too."""

    async def publish(self, envelope: Envelope, body: bytes, *, again: str = "") -> None:
        """Count what was kept."""
        if self._inner is not None:
            await self._inner.publish(envelope, body, again=again)
        self._kept.add(envelope.id)
        if len(self._kept) == self._count:
            self.full.set()

    def subscribe(self, consumer: str, messages: Collection[type[Message]], take: Take) -> None:
        """Nobody listens."""
        raise NotImplementedError


async def measure_delivery(stack: Stack, console: Console) -> list[Result]:
    """The three take turns; ratios are medians of the rounds' own."""
    server = NatsServer(stack.directory / "broker")
    await asyncio.to_thread(server.start)
    plain, engine = (
        plain_engine(stack.legacy_url),
        create_side_engine(stack.legacy_url, application_name="bench"),
    )
    nats = NatsTransport(server.url)
    ways: dict[str, Callable[[], Awaitable[float]]] = {
        "library": lambda: _library(stack, plain),
        "delivery": lambda: _delivery(stack, engine, None),
        "nats": lambda: _delivery(stack, engine, nats),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    try:
        await nats.start()
        for round_ in range(ROUNDS):
            console.print(f"  round {round_ + 1} of {ROUNDS}", style="dim")
            for name in list(ways)[:: -1 if round_ % 2 else 1]:
                rates[name].append(await ways[name]())
        console.print(f"  {LATENCIES} messages, one at a time", style="dim")
        latencies = await _latencies(stack, server)
    finally:
        await nats.stop()
        await plain.dispose()
        await engine.dispose()
        await asyncio.to_thread(server.remove)
    return [
        *(_rate(name, rates) for name in ways),
        Result(name="delivery.idle.median", value=latencies.percentile(50) * 1000, unit="ms"),
        Result(name="delivery.idle.p99", value=latencies.percentile(99) * 1000, unit="ms"),
    ]


def _rate(name: str, rates: dict[str, list[float]]) -> Result:
    value = median(rates[name])
    if name == "library":
        return Result(
            name="delivery.library.per_second",
            value=value,
            unit="events/s",
            peer="published, another machine",
            peer_value=float(PUBLISHED_PER_SECOND),
            ratio=value / PUBLISHED_PER_SECOND,
        )
    return Result(
        name=f"delivery.{name}.per_second",
        value=value,
        unit="events/s",
        peer="the library alone",
        peer_value=median(rates["library"]),
        ratio=median(own / alone for own, alone in zip(rates[name], rates["library"], strict=True)),
    )


async def _library(stack: Stack, engine: AsyncEngine) -> float:
    table = make_outbox_table(MetaData(), f"bench_{secrets.token_hex(4)}")
    payloads = [f"{number}:".encode().ljust(PAYLOAD_BYTES, b"x") for number in range(ROWS)]
    await _fill(stack, engine, table, "bench", payloads)
    broker = OutboxBroker(engine, outbox_table=table, logger=None)
    full = asyncio.Event()
    seen: set[bytes] = set()

    @broker.subscriber(
        "bench",
        max_workers=1,
        fetch_batch_size=100,
        terminal_flush_batch_size=100,
        min_fetch_interval=0.001,
        max_fetch_interval=0.001,
    )
    async def _(body: bytes) -> None:
        seen.add(body)
        if len(seen) == ROWS:
            full.set()

    return await _timed(stack, table, broker, full)


async def _delivery(stack: Stack, engine: AsyncEngine, transport: Transport | None) -> float:
    schema = f"bench_{secrets.token_hex(4)}"
    tables = EventTables.within(MetaData(schema=schema))
    payloads = [_envelope(number).model_dump_json().encode() for number in range(ROWS)]
    await _fill(stack, engine, tables.outbox, tables.queue, payloads)
    broker = Counting(transport, count=ROWS)
    return await _timed(stack, tables.outbox, Delivery(engine, tables, broker), broker.full)


async def _timed(stack: Stack, table: Table, delivers: OutboxBroker | Delivery, full: asyncio.Event) -> float:
    began = time.perf_counter()
    await delivers.start()
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            await full.wait()
    finally:
        await delivers.stop()
    seconds = time.perf_counter() - began
    # Nothing may be left: the drop would not find it, and the rate would be a lie.
    await run_sql(
        stack.legacy_url,
        f"DO $$ BEGIN IF EXISTS (SELECT FROM {table.fullname}) THEN RAISE 'rows are left'; END IF; END $$",
        f"DROP TABLE {table.fullname}",
    )
    return ROWS / seconds


async def _fill(stack: Stack, engine: AsyncEngine, table: Table, queue: str, payloads: list[bytes]) -> None:
    async with engine.begin() as connection:
        if table.schema:
            await connection.execute(CreateSchema(table.schema))
        await connection.run_sync(table.create)
        rows = [{"queue": queue, "payload": payload, "headers": {}} for payload in payloads]
        await connection.execute(insert(table), rows)
    await run_sql(
        stack.legacy_url, f"ALTER TABLE {table.fullname} SET (autovacuum_enabled = off)", "CHECKPOINT"
    )


def _envelope(number: int) -> Envelope:
    return Envelope.of(Told(number=number), correlation_id=str(uuid4()))


async def _latencies(stack: Stack, server: NatsServer) -> Load:
    """From the commit of a message to its handler, in another transaction on the same database, while nothing else is told."""
    metadata = MetaData()
    room = EventRoom.alone(metadata)
    engine = create_side_engine(stack.new_url, application_name="bench")
    units, outbox = LocalUnits(engine), Outbox(room, tells={Heard})
    transport = NatsTransport(server.url)
    consumer = Consumer("bench", room, units)
    taken = asyncio.Queue[float]()

    @consumer.on(Heard)
    async def _(_work: UnitOfWork, _event: Heard) -> None:
        taken.put_nowait(time.perf_counter())

    consumer.listen(transport)
    delivers = Delivery(engine, room.tables[Side.NEW], transport)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    try:
        await transport.start()
        await delivers.start()
        latencies = []
        for number in range(LATENCIES + 1):
            await units("tell", lambda work, number=number: outbox.record(work, Heard(number=number)))
            told_at = time.perf_counter()
            async with asyncio.timeout(LIMIT_SECONDS):
                latencies.append(await taken.get() - told_at)
            await asyncio.sleep(PAUSE_SECONDS)
    finally:
        await transport.stop()
        await delivers.stop()
        await engine.dispose()
    return Load(tuple(latencies[1:]), 1.0)
