"""What arrives over a real broker is what the AsyncAPI document says: body and headers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import jsonschema_rs
import nats
import pytest
from nats.aio.msg import Msg

from backend.shared import Phase
from backend.shared.events.asyncapi import asyncapi_document
from backend.shared.events.delivery import Delivery
from backend.shared.events.message_api import MessageApi
from backend.shared.events.over_nats import NatsTransport
from backend.shared.testing.brokers import NatsServer
from tests.support.telling import MakeTeller, PersonAdded


@pytest.fixture
def nats_server(worker_directory: Path) -> Iterator[NatsServer]:
    """One without anybody else's streams."""
    server = NatsServer(worker_directory / "nats-described")
    server.start()
    yield server
    server.remove()


async def test_a_message_is_as_described(make_teller: MakeTeller, nats_server: NatsServer) -> None:
    teller = await make_teller(Phase.DUALWRITE)
    api = MessageApi(service="people", tells=(PersonAdded,), hears=())
    document = asyncapi_document(api, title="t", version="1").to_jsonable()
    (message,) = document["components"]["messages"].values()

    transport = NatsTransport(nats_server.url)
    teller.consumer.listen(transport)
    arrived: asyncio.Queue[Msg] = asyncio.Queue()
    async with AsyncExitStack() as stack:
        listener = await nats.connect(nats_server.url)
        stack.push_async_callback(listener.close)
        await listener.subscribe(PersonAdded.subject(), cb=arrived.put)
        parts: list[NatsTransport | Delivery] = [transport, *teller.deliveries(transport)]
        for part in parts:
            await part.start()
            stack.push_async_callback(part.stop)
        await teller.add("a@example.org")
        found = await asyncio.wait_for(arrived.get(), 20)

    body, headers = json.loads(found.data), found.headers or {}
    jsonschema_rs.validate({**message["payload"], "components": document["components"]}, body)
    jsonschema_rs.validate(message["headers"], headers)
    assert message["headers"]["properties"].keys() - {"traceparent"} <= headers.keys()
    assert headers["correlation_id"] == body["correlation_id"]
