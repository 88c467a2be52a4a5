"""One trace shows an order with its compensations, whoever moves it: messages, deadlines, customers, operators."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from fastapi import APIRouter
from prometheus_client import CollectorRegistry

from backend.messages.orders import SagaStyle
from backend.order_service.app.entities import Order
from backend.shared.api.application import build_app
from backend.shared.domain.phases import Direction
from backend.shared.observability.metrics import Metrics
from backend.shared.observability.tracing import span, use_tracing
from tests.integration.orders.conftest import MakeWorld
from tests.support.order_world import OrderWorld
from tests.support.tracing import Spans, trace_of

BOTH_STYLES = pytest.mark.parametrize("style", list(SagaStyle))


class Shop:
    """The order service's own HTTP application, as far as these tests go."""

    def __init__(self, world: OrderWorld, *lines: tuple[int, int]) -> None:
        self.order: Order | None = None
        routes = APIRouter()

        @routes.post("/orders")
        async def place() -> int:
            self.order = await world.place(*lines)
            return self.order.id

        @routes.post("/orders/{order_id}/cancel")
        async def cancel(order_id: int) -> None:
            assert self.order is not None
            await world.cancel(self.order)

        self._app = build_app(
            "orders", version="1", service="order", metrics=Metrics(CollectorRegistry()), routers=[routes]
        )

    async def post(self, path: str) -> None:
        transport = httpx.ASGITransport(app=self._app)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            (await client.post(path)).raise_for_status()

    @property
    def placed(self) -> Order:
        assert self.order is not None
        return self.order


async def open_shop(world: OrderWorld, *, credit: str) -> Shop:
    """Where a customer who has so much to spend orders three of ten cups."""
    ids = await world.stocked(cup=10)
    await world.credit(credit)
    return Shop(world, (ids["cup"], 3))


def waiting(world: OrderWorld) -> list[dict[str, Any]]:
    return [json.loads(letter.body) for letter in world.post.waiting]


WAY_BACK = {
    SagaStyle.CHOREOGRAPHED: [
        "events.order.OrderPlaced",
        "events.payment.PaymentAuthorised",
        "events.stock.StockRejected",
        "events.payment.PaymentVoided",
    ],
    SagaStyle.ORCHESTRATED: [
        "commands.payment.AuthorisePayment",
        "events.payment.PaymentAuthorised",
        "commands.stock.ReserveStock",
        "events.stock.StockRejected",
        "commands.payment.VoidPayment",
        "events.payment.PaymentVoided",
    ],
}
"""The messages from an order that is placed to one that was taken back because there was not enough in stock."""
IN_THE_ORDER_SERVICE = {
    "events.payment.PaymentAuthorised": "saga running",
    "events.stock.StockRejected": "saga compensating",
    "events.payment.PaymentVoided": "saga compensated",
}


@BOTH_STYLES
async def test_one_trace_shows_an_order_with_its_compensations(
    make_world: MakeWorld, spans: Spans, *, style: SagaStyle
) -> None:
    world = await make_world(style)
    ids = await world.stocked(cup=10, plate=1)
    await world.credit("100")
    shop = Shop(world, (ids["cup"], 3), (ids["plate"], 2))
    spans.forget()
    await shop.post("/orders")
    await world.post.bring_all()

    assert len(spans.traces()) == 1
    (compensated,) = spans.named("saga compensated")
    names = spans.ancestors(compensated)
    assert names[:3] == ["POST /orders", "write place", "saga running"]
    assert names[-1] == "saga compensated"
    messages = WAY_BACK[style]
    assert [name for name in names if name.startswith("record ")] == [f"record {name}" for name in messages]
    for message in messages:
        at = names.index(f"record {message}")
        assert names[at + 1 : at + 3] == [f"publish {message}", f"take {message}"]
        assert names[at + 3].split(" ")[1] == f"take_{message.rpartition('.')[2]}"
    if style is SagaStyle.ORCHESTRATED:
        for message, moved in IN_THE_ORDER_SERVICE.items():
            assert names[names.index(f"take {message}") + 2] == moved
    kinds = {span.name.split(" ")[0]: span.kind.name for span in spans.all()}
    assert kinds == {
        "POST": "SERVER",
        "write": "INTERNAL",
        "unit": "INTERNAL",
        "saga": "INTERNAL",
        "record": "INTERNAL",
        "publish": "PRODUCER",
        "take": "CONSUMER",
    }


@BOTH_STYLES
async def test_declined_is_one_trace(make_world: MakeWorld, spans: Spans, *, style: SagaStyle) -> None:
    world = await make_world(style)
    shop = await open_shop(world, credit="5")
    spans.forget()
    await shop.post("/orders")
    await world.post.bring_all()
    assert len(spans.traces()) == 1
    (ended,) = spans.named("saga compensated")
    assert "take events.payment.PaymentDeclined" in spans.ancestors(ended)
    assert (ended.attributes or {})["tandem.saga.participant"] == "payment"


@BOTH_STYLES
async def test_what_a_deadline_moves_is_of_the_trace_of_the_order(
    make_world: MakeWorld, spans: Spans, *, style: SagaStyle
) -> None:
    world = await make_world(style)
    shop = await open_shop(world, credit="100")
    spans.forget()
    await shop.post("/orders")
    (placed,) = spans.named("POST /orders")
    await world.post.collect()
    world.post.waiting.clear()  # lost on the way, with whoever had them
    for _ in range(6):  # as often as the orchestrator asks again before it gives up
        await world.late()
        await world.post.bring_all()
    (ended,) = spans.named("saga compensated") or spans.named("saga completed")
    assert spans.ancestors(ended)[:3] == ["POST /orders", "write place", "saga running"]
    assert trace_of(ended) == trace_of(placed)
    late = spans.named("write late")
    assert late
    assert all(span.parent is None for span in late)
    moved = [span for span in spans.all() if span.name.startswith("saga ") and span.links]
    assert {link.context.trace_id for span in moved for link in span.links} <= {
        trace_of(span) for span in late
    }
    assert moved
    assert {trace_of(span) for span in moved} == {trace_of(placed)}


@BOTH_STYLES
async def test_what_a_customer_takes_back_later_is_of_the_trace_of_the_order(
    make_world: MakeWorld, spans: Spans, *, style: SagaStyle
) -> None:
    world = await make_world(style)
    shop = await open_shop(world, credit="100")
    spans.forget()
    await shop.post("/orders")
    await world.post.bring_all()
    (placed,) = spans.named("POST /orders")
    await shop.post(f"/orders/{shop.placed.id}/cancel")
    await world.post.bring_all()
    (asked,) = spans.named("POST /orders/{order_id}/cancel")
    (ended,) = spans.named("saga compensated")
    assert trace_of(ended) == trace_of(placed) != trace_of(asked)
    (begun,) = [span for span in spans.named("saga compensating") if span.links]
    assert [link.context.trace_id for link in begun.links] == [trace_of(asked)]
    for undone in ("PaymentRefunded", "StockReleased", "PaymentVoided"):
        (told,) = [span for span in spans.all() if span.name.endswith(f".{undone}") and span.name[0] == "r"]
        assert trace_of(told) == trace_of(placed)


async def test_a_process_that_does_not_trace_passes_the_trace_on(make_world: MakeWorld, spans: Spans) -> None:
    """What an operator moves by command, and what a service between two others takes in."""
    world = await make_world(SagaStyle.CHOREOGRAPHED)
    shop = await open_shop(world, credit="100")
    await shop.post("/orders")
    kept = (await world.saga(shop.placed)).trace
    use_tracing(None)
    await world.post.collect()
    (ordered, *_) = waiting(world)
    while waiting(world)[0]["type"] == "OrderPlaced":
        await world.post.bring()
    assert [item["type"] for item in waiting(world)] == ["PaymentAuthorised"] * 2
    assert [item["trace"] for item in waiting(world)] == [ordered["trace"]] * 2
    world.post.waiting.clear()
    await world.late()
    assert {item["type"] for item in waiting(world)} == {"OrderCancelRequested"}
    assert [item["trace"] for item in waiting(world)] == [kept] * len(waiting(world))
    assert kept["traceparent"].split("-")[1] == ordered["trace"]["traceparent"].split("-")[1]


@BOTH_STYLES
async def test_off_there_is_no_trace_anywhere(make_world: MakeWorld, *, style: SagaStyle) -> None:
    world = await make_world(style)
    shop = await open_shop(world, credit="5")
    await shop.post("/orders")
    await world.post.collect()
    seen = waiting(world)
    while world.post.waiting:
        await world.post.bring()
        seen += waiting(world)
    assert {str(item["trace"]) for item in seen} == {"{}"}
    assert (await world.saga(shop.placed)).trace == {}


async def test_a_batch_of_the_relay_is_a_trace_of_its_own(make_world: MakeWorld, spans: Spans) -> None:
    world = await make_world(SagaStyle.CHOREOGRAPHED)
    relay = world.product.runtime.relays[Direction.TO_NEW]
    while (await relay.run_once()).rows:
        pass
    await world.stocked(cup=10, plate=1)
    spans.forget()
    with span("whoever asks for it", {}):
        await relay.run_once()
        await relay.run_once()  # there is nothing to carry, and so nothing to tell
    (batch, _) = spans.all()
    assert (batch.name, batch.parent) == ("relay batch", None)
    assert dict(batch.attributes or {}) == {
        "tandem.service": "product",
        "tandem.direction": "to_new",
        "tandem.entities": ("product",),
        "tandem.keys": 2,
        "tandem.keys.carried": 2,
        "tandem.keys.waiting": 0,
        "tandem.keys.refused": 0,
        "tandem.keys.failed": 0,
    }
