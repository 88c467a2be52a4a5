"""What goes over the wire in the life of orders is what the documents say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import asyncpg
import jsonschema_rs

from backend.messages.orders import SagaStyle
from backend.order_service.app.message_api import message_api as order_api
from backend.payment_service.app.message_api import message_api as payment_api
from backend.product_service.app.message_api import message_api as product_api
from backend.shared.events.asyncapi import asyncapi_document
from backend.shared.events.message_api import MessageApi
from tests.integration.orders.conftest import MakeWorld
from tests.integration.orders.test_sagas import BOTH_STYLES

APIS = (order_api, payment_api, product_api)


def payloads_of(api: MessageApi) -> list[tuple[str, jsonschema_rs.Validator]]:
    """Of each subject that a service has to do with, what its bodies are checked by."""
    document: Mapping[str, Any] = asyncapi_document(api, title="t", version="1").to_jsonable()
    found = []
    for channel in document["channels"].values():
        (message,) = channel["messages"].values()
        described = document["components"]["messages"][message["$ref"].rpartition("/")[2]]
        whole = {**described["payload"], "components": document["components"]}
        found.append((channel["address"], jsonschema_rs.validator_for(whole, validate_formats=True)))
    return found


@BOTH_STYLES
async def test_what_is_told_is_as_told_and_as_heard(make_world: MakeWorld, *, style: SagaStyle) -> None:
    world = await make_world(style)
    ids = await world.stocked(cup=10)
    await world.credit("8")
    for count in (3, 3):  # confirmed; declined
        await world.place((ids["cup"], count))
        await world.post.bring_all()
    bodies: list[dict[str, Any]] = []
    for url, table in (
        (world.urls.legacy, "tandem_order.event"),
        (world.urls.legacy, "tandem_product.event"),
        (world.urls.payment, "event"),
    ):
        connection = await asyncpg.connect(url)
        rows = await connection.fetch(f"SELECT payload::text AS body FROM {table}")
        bodies += [json.loads(row["body"]) for row in rows]
        await connection.close()
    checks = [payload for make in APIS for payload in payloads_of(make())]
    for body in bodies:
        found = [check for address, check in checks if address == body["subject"]]
        assert found
        assert [error.message for check in found for error in check.iter_errors(body)] == []
    assert {"PaymentDeclined", "OrderConfirmed"} <= {body["type"] for body in bodies}
