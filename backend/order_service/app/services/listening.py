"""The service hears whatever the participants of an order tell, and what is told of products."""

from __future__ import annotations

from backend.messages.orders import AboutOrder
from backend.messages.products import ProductChanged
from backend.shared import UnitOfWork
from backend.shared.events.consumer import Consumer

from ..conductors import HEARD
from ..read_models import PRODUCTS
from .order_desk import OrderDesk


def listen(consumer: Consumer, desk: OrderDesk) -> None:
    """Register everything that the service hears."""

    async def heard(work: UnitOfWork, message: AboutOrder) -> None:
        await desk.heard(work, message)

    for kind in HEARD:
        consumer.on(kind)(heard)
    consumer.on(ProductChanged)(PRODUCTS.hear)
