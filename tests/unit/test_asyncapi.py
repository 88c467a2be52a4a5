"""What a service says of its messages is what it does with them.

`tests/support/schemas/asyncapi-3.0.0.json` is the specification's own JSON schema, of the package `@asyncapi/specs` (Apache 2.0).
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
from fastapi import FastAPI
from typer.testing import CliRunner

from backend.messages.orders import OrderPlaced
from backend.shared.api.message_routes import message_router
from backend.shared.cli.events import events
from backend.shared.domain.errors import ValidationError
from backend.shared.events.asyncapi import asyncapi_document
from backend.shared.events.envelope import Message
from backend.shared.events.message_api import MessageApi
from backend.shared.testing.programs import REPOSITORY

SERVICES = ("auth", "cart", "order", "payment", "product")
SCHEMA = json.loads((REPOSITORY / "tests/support/schemas/asyncapi-3.0.0.json").read_text(encoding="utf-8"))
ASYNCAPI = jsonschema_rs.validator_for(SCHEMA)
MESSAGES = {
    name: value
    for module in ("orders", "payments", "products", "stock", "users")
    for name, value in vars(import_module(f"backend.messages.{module}")).items()
    if isinstance(value, type) and issubclass(value, Message) and hasattr(value, "message_type")
}


def api_of(service: str) -> MessageApi:
    found: MessageApi = import_module(f"backend.{service}_service.app.message_api").message_api()
    return found


def document_of(service: str, *, broker_url: str | None = None) -> dict[str, Any]:
    made = asyncapi_document(api_of(service), title="t", version="1", broker_url=broker_url)
    found: dict[str, Any] = json.loads(made.to_json())
    return found


def made_by(sources: Iterable[str]) -> set[type[Message]]:
    """The kinds of messages that a program makes."""
    calls = (node for text in sources for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
    names = {call.func.id for call in calls if isinstance(call.func, ast.Name)}
    return {MESSAGES[name] for name in names & MESSAGES.keys()}


def sources_of(service: str) -> list[str]:
    folder: Path = REPOSITORY / "backend" / f"{service}_service" / "app"
    return [path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.py"))]


@pytest.mark.parametrize("broker_url", [None, "nats://ann:s3cr3t@b1:4222,nats://ann:s3cr3t@b2:4222/"])
@pytest.mark.parametrize("service", SERVICES)
def test_the_document_keeps_to_the_specification(service: str, broker_url: str | None) -> None:
    document = document_of(service, broker_url=broker_url)
    assert [error.message for error in ASYNCAPI.iter_errors(document)] == []
    hosts = [server["host"] for server in document.get("servers", {}).values()]
    assert hosts == (["b1:4222", "b2:4222"] if broker_url else [])
    assert "s3cr3t" not in json.dumps(document)
    assert "ann:" not in json.dumps(document)


@pytest.mark.parametrize(
    ("broker_url", "hosts"),
    [
        ("amqp://shop:s3,cret@mq/orders?heartbeat=5", ["mq"]),
        ("amqps://shop:s3/cret@mq:5671", ["mq:5671"]),
        ("nats://shop:s3,cret@b1:4222,nats://shop:s3?cret@b2", ["b1:4222", "b2"]),
        ("kafka://shop:s3,cret@b1:9092,b2:9092", ["b1:9092", "b2:9092"]),
    ],
)
def test_nothing_of_a_password_is_shown_whatever_is_in_it(broker_url: str, hosts: list[str]) -> None:
    document = document_of("order", broker_url=broker_url)
    assert [server["host"] for server in document["servers"].values()] == hosts
    assert not {"s3", "cret", "shop"} & set(re.split(r"\W+", json.dumps(document["servers"])))


def test_a_broken_document_would_be_found() -> None:
    document = document_of("cart")
    del next(iter(document["operations"].values()))["channel"]
    assert not ASYNCAPI.is_valid(document)


@pytest.mark.parametrize("service", SERVICES)
def test_every_message_is_there_with_its_way_and_its_data(service: str) -> None:
    api, document = api_of(service), document_of(service)
    schemas, found = document["components"]["schemas"], {}
    for operation in document["operations"].values():
        channel = document["channels"][operation["channel"]["$ref"].rpartition("/")[2]]
        (message,) = channel["messages"].values()
        described = document["components"]["messages"][message["$ref"].rpartition("/")[2]]
        envelope = schemas[described["payload"]["$ref"].rpartition("/")[2]]["properties"]
        assert described["correlationId"]["location"] == "$message.payload#/correlation_id"
        assert "correlation_id" in described["headers"]["properties"]
        assert envelope["subject"]["const"] == channel["address"]
        kind = MESSAGES[envelope["type"]["const"]]
        data = schemas[envelope["data"]["$ref"].rpartition("/")[2]]["properties"]
        assert set(data) == set(kind.model_fields)
        found[channel["address"]] = operation["action"]
    assert found == {
        **{kind.subject(): "send" for kind in api.tells},
        **{kind.subject(): "receive" for kind in api.hears},
    }


def test_money_is_text_on_the_wire() -> None:
    amount = document_of("payment")["components"]["schemas"]["PaymentAuthorised"]["properties"]["amount"]
    assert amount["type"] == "string"


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_says_all_that_it_tells_and_no_more(service: str) -> None:
    assert set(api_of(service).tells) == made_by(sources_of(service))


def test_a_message_that_was_not_declared_is_found() -> None:
    planted = "async def unit(work):\n    await outbox.record(work, OrderPlaced(order_id=1))\n"
    assert made_by([*sources_of("payment"), planted]) - set(api_of("payment").tells) == {OrderPlaced}


def test_whatever_is_heard_is_told_by_somebody() -> None:
    apis = [api_of(service) for service in SERVICES]
    told = {kind for api in apis for kind in api.tells}
    assert {kind for api in apis for kind in api.hears} <= told
    assert told == set(MESSAGES.values())


async def test_it_is_served_beside_openapi_without_a_broker() -> None:
    app = FastAPI(title="Tandem cart service", version="1.2.3")
    app.include_router(message_router(api_of("cart")))
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://cart") as client:
        document = (await client.get("/asyncapi.json")).json()
        page = await client.get("/asyncapi")
    assert document["info"] == {"title": "Tandem cart service", "version": "1.2.3", "description": ""}
    assert set(document["channels"]) == {
        *(f"receive.events.order.{name}" for name in ("OrderPlaced", "OrderCancelled")),
        "receive.events.user.UserChanged",
    }
    assert page.headers["content-type"].startswith("text/html")
    assert "events.order.OrderPlaced" in page.text


def test_it_is_printed_by_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_URL", "nats://ann:s3cr3t@b1:4222")
    printed = CliRunner().invoke(events, ["schema", "order"])
    document = json.loads(printed.stdout)
    assert document["channels"].keys() == document_of("order")["channels"].keys()
    assert document["servers"] == {"development": {"host": "b1:4222", "pathname": "", "protocol": "nats"}}


def test_a_service_without_messages_is_refused() -> None:
    refused = CliRunner().invoke(events, ["schema", "task"])
    assert isinstance(refused.exception, ValidationError)
    assert str(refused.exception) == "'task' has no messages; these have: auth, cart, order, payment, product"
