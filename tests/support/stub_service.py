"""Another service, that answers as the test says, or not at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class StubService:
    """`answer` makes status and body out of a path; None: it stays silent."""

    answer: Callable[[str], tuple[int, Any] | None] = lambda _: (200, {})
    asked: list[str] = field(default_factory=list)
    """The paths that it was asked for."""
    url: str = ""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ")[1].decode()
        self.asked.append(path)
        answer = self.answer(path)
        if answer is None:
            await reader.read()  # until the caller has had enough
        else:
            status, body = answer
            content = json.dumps(body).encode()
            writer.write(
                f"HTTP/1.1 {status} Any\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode()
            )
            writer.write(content)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def stub_service() -> AsyncIterator[StubService]:
    """One that listens on a free port."""
    stub = StubService()
    server = await asyncio.start_server(stub._serve, "127.0.0.1", 0)
    stub.url = "http://{}:{}".format(*server.sockets[0].getsockname())
    try:
        yield stub
    finally:
        server.close()
        await server.wait_closed()
