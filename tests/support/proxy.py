"""A wire that can be cut: a TCP proxy in front of a database server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit


class CuttableWire:
    """Forwards bytes until it is told to cut the connection that sends COMMIT, before or after the server gets it.

    `left` is how many such connections are cut; `marker` what a COMMIT is known by.
    """

    def __init__(self, host: str, port: int, *, marker: bytes = b"COMMIT\x00") -> None:
        self._target = (host, port)
        self._marker = marker
        self.cut: str | None = None
        self.left = 1
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
            if watch and self.cut and self._marker in data:
                when = self.cut
                self.cuts += 1
                self.left -= 1
                if not self.left:
                    self.cut, self.left = None, 1
                if when == "after":
                    client.transport.abort()
                    target.write(data)
                    await target.drain()
                    await asyncio.sleep(0.3)  # the server has to read it before its end of the wire goes too
                return
            target.write(data)
            await target.drain()


@asynccontextmanager
async def cuttable_wire(url: str, *, marker: bytes = b"COMMIT\x00") -> AsyncIterator[CuttableWire]:
    """A wire to the server of `url`; its own `url` leads through it."""
    parts = urlsplit(url)
    wire = CuttableWire(str(parts.hostname), int(parts.port or 5432), marker=marker)
    server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    account = "".join(parts.netloc.rpartition("@")[:2])
    wire.url = urlunsplit(parts._replace(netloc=f"{account}127.0.0.1:{port}"))
    try:
        yield wire
    finally:
        server.close()
