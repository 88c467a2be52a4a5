"""Counts what goes over the wire: a TCP proxy that reads the server's half of PostgreSQL's protocol.

Of the messages that a server sends, CommandComplete ends a statement and ReadyForQuery a round trip (PostgreSQL manual,
"Message Formats"): so whatever the driver hides is counted too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

_COMMAND_COMPLETE, _READY_FOR_QUERY = ord("C"), ord("Z")
_HEADER_BYTES = 5


@dataclass(frozen=True, kw_only=True)
class Count:
    """Statements ended, and answers waited for."""

    statements: int = 0
    round_trips: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(
            statements=self.statements + other.statements, round_trips=self.round_trips + other.round_trips
        )

    def __sub__(self, other: Count) -> Count:
        return Count(
            statements=self.statements - other.statements, round_trips=self.round_trips - other.round_trips
        )


class CountingWire:
    """Forwards bytes and counts. `url` leads through it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._parts = parts
        self._target = (str(parts.hostname), int(parts.port or 5432))
        self._statements = self._round_trips = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""

    @property
    def count(self) -> Count:
        """What has been counted so far."""
        return Count(statements=self._statements, round_trips=self._round_trips)

    async def listen(self) -> asyncio.Server:
        """Start to forward."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        account = self._parts.netloc.rpartition("@")[0]
        self.url = urlunsplit(self._parts._replace(netloc=f"{account}@127.0.0.1:{port}"))
        return server

    async def close(self) -> None:
        """Cut what is still connected."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        tasks = [
            asyncio.ensure_future(_forward(reader, server_writer)),
            asyncio.ensure_future(self._forward_counted(server_reader, writer)),
        ]
        self._tasks.update(tasks)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._tasks.difference_update(tasks)
            writer.transport.abort()
            server_writer.transport.abort()

    async def _forward_counted(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        # The answer to the question for TLS is one byte without a length.
        answer = await source.readexactly(1)
        target.write(answer)
        pending = bytearray() if answer == b"N" else bytearray(answer)
        while data := await source.read(65536):
            pending += data
            self._count(pending)
            target.write(data)
            await target.drain()

    def _count(self, pending: bytearray) -> None:
        """Take the complete messages from the front of `pending`."""
        start = 0
        while len(pending) - start >= _HEADER_BYTES:
            end = start + 1 + int.from_bytes(pending[start + 1 : start + _HEADER_BYTES])
            if end > len(pending):
                break
            self._statements += pending[start] == _COMMAND_COMPLETE
            self._round_trips += pending[start] == _READY_FOR_QUERY
            start = end
        del pending[:start]


async def _forward(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        target.write(data)
        await target.drain()


@asynccontextmanager
async def counting_wire(url: str) -> AsyncIterator[CountingWire]:
    """A wire to the server of `url` that counts."""
    wire = CountingWire(url)
    server = await wire.listen()
    try:
        yield wire
    finally:
        server.close()
        await wire.close()
