"""A message broker that does as the test says: what is brought to whom, in which order, how often, or never."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import asyncpg

from backend.shared.events.consumer import Consumer
from backend.shared.events.delivery import publish
from backend.shared.events.envelope import Envelope
from tests.support.steps import Crash


@dataclass(frozen=True)
class Letter:
    """One message on its way to one consumer."""

    consumer: str
    kind: str
    body: bytes


@dataclass
class Post:
    """The messages that services have told and not heard. `outboxes` are where they lie: tables by URL."""

    outboxes: Mapping[str, Sequence[str]]
    consumers: Mapping[str, Consumer]
    waiting: list[Letter] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    """The kinds of all that was told."""
    brought: list[Letter] = field(default_factory=list)
    held: set[tuple[str, str]] = field(default_factory=set)
    """Consumers and kinds of message that `bring_all` leaves where they are: nobody answers there."""
    lost: set[tuple[str, str]] = field(default_factory=set)
    """Consumers and kinds of message that are never brought."""
    connections: AsyncExitStack = field(default_factory=AsyncExitStack)
    """Closed by whoever made it."""
    _open: dict[str, asyncpg.Connection] = field(default_factory=dict)

    async def collect(self) -> None:
        """Take what was told out of all outboxes; each consumer that listens to it gets its own copy."""
        for found in await asyncio.gather(*map(self._taken, self.outboxes)):
            for body in found:
                await publish(self, body)

    async def publish(self, envelope: Envelope, body: bytes, *, again: str = "") -> None:
        """As a broker would; see `Publisher`."""
        kind = envelope.subject.rpartition(".")[2]
        self.log.append(kind)
        self.waiting += [
            Letter(name, kind, body)
            for name, consumer in self.consumers.items()
            if consumer.hears(envelope.subject) and (name, kind) not in self.lost
        ]

    async def bring(self, number: int = 0, *, again: bool = False) -> None:
        """Bring one of those that wait to whom it is for; `again`: nobody hears that it was taken in, and it will come once more."""
        letter = self.waiting[number]
        try:
            await self.consumers[letter.consumer].take(letter.body)
        except Crash:
            return  # it comes again
        self.brought.append(letter)
        if not again:
            del self.waiting[number]
        await self.collect()

    async def bring_all(self) -> None:
        """Bring everything, and what comes of it, the oldest first; what is held stays."""
        await self.collect()
        while (number := self.next()) is not None:
            await self.bring(number)

    def next(self) -> int | None:
        """Which is the oldest that is not held."""
        for number, letter in enumerate(self.waiting):
            if (letter.consumer, letter.kind) not in self.held:
                return number
        return None

    async def bring_old(self, letters: Sequence[Letter]) -> None:
        """Bring some that were brought already."""
        for letter in letters:
            await self.consumers[letter.consumer].take(letter.body)
        await self.collect()

    async def _taken(self, url: str) -> list[bytes]:
        connection = await self._connection(url)
        found: list[bytes] = []
        for table in self.outboxes[url]:
            query = f"WITH gone AS (DELETE FROM {table} RETURNING id, payload) SELECT payload FROM gone ORDER BY id"
            found += [row["payload"] for row in await connection.fetch(query)]
        return found

    async def _connection(self, url: str) -> asyncpg.Connection:
        if url not in self._open:
            self._open[url] = await asyncpg.connect(url)
            self.connections.push_async_callback(self._open[url].close)
        return self._open[url]
