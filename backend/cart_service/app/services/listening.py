"""What the service does on which message."""

from __future__ import annotations

from collections import Counter

from backend.messages.orders import OrderCancelled, OrderPlaced
from backend.messages.users import UserChanged
from backend.shared import UnitOfWork
from backend.shared.events.consumer import Consumer

from ..read_models import USERS
from .checkout import Checkout


def listen(consumer: Consumer, checkout: Checkout) -> None:
    """Register everything that the service hears, in both styles of sagas."""

    @consumer.on(OrderPlaced)
    async def _(work: UnitOfWork, event: OrderPlaced) -> None:
        pieces: Counter[int] = Counter()
        for line in event.lines:
            pieces[line.product_id] += line.quantity
        await checkout.placed(work, order_id=event.order_id, cart_id=event.cart_id, pieces=pieces)

    @consumer.on(OrderCancelled)
    async def _(work: UnitOfWork, event: OrderCancelled) -> None:
        await checkout.cancelled(work, order_id=event.order_id, cart_id=event.cart_id)

    consumer.on(UserChanged)(USERS.hear)
