"""`GET /orders/{id}`: the order, what was heard of its products, and what other services say now, as far as they say anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx
import pytest
from asgi_lifespan import LifespanManager
from prometheus_client import CollectorRegistry

from backend.messages.orders import SagaStyle
from backend.messages.products import ProductChanged
from backend.order_service.app.core.settings import OrderSettings
from backend.order_service.app.main import make_app
from backend.order_service.app.read_models import PRODUCTS
from backend.shared import AwayError
from backend.shared.api.tokens import Role, TokenIssuer, TokenType, TokenVerifier, generate_signing_key
from backend.shared.events.envelope import Envelope, Message
from backend.shared.events.transport import Take
from backend.shared.observability.metrics import Metrics
from tests.integration.orders.conftest import MakeWorld
from tests.support.order_world import USER, OrderWorld
from tests.support.stub_service import StubService, stub_service

TIMEOUT_SECONDS = 0.2
ANN = {"id": USER, "email": "ann@example.org"}


class NoBroker:
    """Nothing is told, and nothing heard."""

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def ping(self) -> None:
        raise AwayError("there is no broker")

    async def mend(self) -> None:
        pass

    async def publish(self, envelope: Envelope, body: bytes, *, again: str = "") -> None:
        raise ConnectionError("there is no broker")

    def subscribe(self, consumer: str, messages: Collection[type[Message]], take: Take) -> None:
        pass


@dataclass
class Api:
    """The order service over HTTP, with an order of Ann's, and the others stubbed."""

    world: OrderWorld
    client: httpx.AsyncClient
    cart: StubService
    product: StubService
    auth: StubService
    issuer: TokenIssuer
    order_id: int
    product_id: int

    def headers(self, subject: str = USER, **claims: Any) -> dict[str, str]:
        token = self.issuer.issue(subject, **{"role": Role.USER} | claims)
        return {"Authorization": f"Bearer {token}"}

    async def order(self, expand: str = "", **caller: Any) -> dict[str, Any]:
        answer = await self.client.get(
            f"/orders/{self.order_id}", params={"expand": expand}, headers=self.headers(**caller)
        )
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@pytest.fixture
async def api(make_world: MakeWorld) -> AsyncIterator[Api]:
    world = await make_world(SagaStyle.CHOREOGRAPHED)
    order = await world.place((7, 2))
    issuer = TokenIssuer(generate_signing_key())
    async with AsyncExitStack() as stack:
        cart, product, auth = [await stack.enter_async_context(stub_service()) for _ in range(3)]
        product.answer = lambda _: (200, {"items": [{"id": 7, "name": "Cup"}], "missing": []})
        auth.answer = lambda _: (200, ANN)
        settings = OrderSettings(
            broker_url="nats://none",
            cart_url=cart.url,
            product_url=product.url,
            auth_url=auth.url,
            call_timeout_seconds=TIMEOUT_SECONDS,
            run_relay=False,
        )
        app = make_app(
            settings,
            manager=world.order,
            transport=NoBroker(),
            metrics=Metrics(CollectorRegistry()),
            verifier=TokenVerifier(issuer.key_source()),
        )
        running = await stack.enter_async_context(LifespanManager(app, startup_timeout=30))
        client = await stack.enter_async_context(
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app=running.app, raise_app_exceptions=False),
                base_url="http://order",
            )
        )
        yield Api(
            world=world,
            client=client,
            cart=cart,
            product=product,
            auth=auth,
            issuer=issuer,
            order_id=order.id,
            product_id=7,
        )


async def test_lines_say_what_was_heard_of_their_products(api: Api) -> None:
    (line,) = (await api.order())["lines"]
    assert line["product"] is None
    told = ProductChanged(product_id=7, sku="C7", name="Cup", price=Decimal(1), is_active=True)
    await api.world.order.run_unit("hear", lambda work: PRODUCTS.keep(work, told, (1, 1_700_000_000_250_000)))
    (line,) = (await api.order())["lines"]
    assert line["product"] == {"sku": "C7", "name": "Cup", "as_of": "2023-11-14T22:13:20.250000Z"}
    assert api.product.asked == []


async def test_what_others_say_is_put_together(api: Api) -> None:
    found = await api.order("customer,products")
    assert (found["customer"], found["products"]) == (ANN, {"7": {"id": 7, "name": "Cup"}})
    assert found["missing"] == []
    assert (api.product.asked, api.auth.asked) == (["/products/by-ids?ids=7"], ["/users/me"])
    admin = await api.order("customer", subject="boss", role=Role.ADMIN)
    assert (admin["customer"], admin["products"]) == (ANN, None)
    assert api.auth.asked[1:] == [f"/users/{USER}"]


async def test_one_that_does_not_answer_in_time_is_missing(api: Api) -> None:
    api.product.answer = lambda _: None
    async with asyncio.timeout(5):
        found = await api.order("customer,products")
    assert (found["missing"], found["products"], found["customer"]) == (["products"], None, ANN)
    assert found["id"] == api.order_id


@pytest.mark.parametrize("answer", [(503, {}), (200, ["no account"]), (302, {})], ids=str)
async def test_one_that_answers_nonsense_is_missing(api: Api, answer: tuple[int, Any]) -> None:
    api.auth.answer = lambda _: answer
    found = await api.order("products,customer")
    assert (found["missing"], found["customer"]) == (["customer"], None)
    assert found["products"] is not None


async def test_one_that_has_failed_often_is_not_asked_any_more(api: Api) -> None:
    api.product.answer = lambda _: (500, {})
    for _ in range(8):
        found = await api.order("customer,products")
        assert (found["missing"], found["customer"]) == (["products"], ANN)
    assert len(api.product.asked) == 5  # then the breaker is open
    assert len(api.auth.asked) == 8


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_what_a_caller_may_not_see_is_missing_and_no_fault_of_the_service(
    api: Api, status: int
) -> None:
    api.auth.answer = lambda _: (status, {})
    service = {"subject": "service:report", "role": Role.SERVICE, "token_type": TokenType.SERVICE}
    for _ in range(6):
        assert (await api.order("customer", **service))["missing"] == ["customer"]
    api.auth.answer = lambda _: (200, ANN)
    assert (await api.order("customer"))["missing"] == []


async def test_an_account_that_the_cart_service_turns_away_orders_nothing(api: Api) -> None:
    """And six of them do not make it look as if that service were down."""
    api.cart.answer = lambda _: (403, {})
    for number in range(6):
        answer = await api.client.post("/orders", headers=api.headers() | {"Idempotency-Key": f"k{number}"})
        assert answer.status_code == 403, answer.text
    assert len(api.cart.asked) == 6
