"""A stream of a test's own: two cannot have the same subjects on one server, so it is gone afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from backend.shared.events.over_nats import NatsTransport
from backend.shared.events.transport import SILENT_SECONDS
from backend.shared.testing.brokers import NatsServer
from tests.support.broker_room import forget_streams


@asynccontextmanager
async def own_stream(
    broker: NatsServer, name: str, *, silent_seconds: float = SILENT_SECONDS
) -> AsyncIterator[NatsTransport]:
    """A transport over it, not started; it is stopped at the end."""
    await forget_streams(broker.url)
    transport = NatsTransport(broker.url, stream=name, silent_seconds=silent_seconds)
    try:
        yield transport
    finally:
        await transport.stop()
        await forget_streams(broker.url)
