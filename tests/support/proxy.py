"""A wire that can be cut: a TCP proxy in front of a PostgreSQL server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit


class CuttableWire:
    """Forwards bytes until it is told to cut the connection that sends COMMIT, before or after the server gets it."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self.cut: str | None = None
        self.cuts = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        tasks = [
            asyncio.ensure_future(self._forward(reader, server_writer, watch=True, client=writer)),
            asyncio.ensure_future(self._forward(server_reader, writer, watch=False, client=writer)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            writer.transport.abort()
            server_writer.close()

    async def _forward(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        *,
        watch: bool,
        client: asyncio.StreamWriter,
    ) -> None:
        while data := await source.read(65536):
            if watch and self.cut and b"COMMIT\x00" in data:
                when, self.cut = self.cut, None
                self.cuts += 1
                if when == "after":
                    client.transport.abort()
                    target.write(data)
                    await target.drain()
                    await asyncio.sleep(0.3)  # the server has to read it before its end of the wire goes too
                return
            target.write(data)
            await target.drain()


@asynccontextmanager
async def cuttable_wire(url: str) -> AsyncIterator[CuttableWire]:
    """A wire to the server of `url`; its own `url` leads through it."""
    parts = urlsplit(url)
    wire = CuttableWire(str(parts.hostname), int(parts.port or 5432))
    server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    account = parts.netloc.rpartition("@")[0]
    wire.url = urlunsplit(parts._replace(netloc=f"{account}@127.0.0.1:{port}"))
    try:
        yield wire
    finally:
        server.close()
