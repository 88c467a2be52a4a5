"""`OrderDualWriteManager`: every operation of this service that both sides have to know of."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

from backend.shared import DualWriteManager, EntityMapping, Key, UnitOfWork

from ..entities import CartToOrder
from ..legacy import IDEMPOTENCY_KEY, MESSAGES, ORDER, ORDER_LINE, PRODUCT_VIEW, SAGA
from ..models import ROOM
from ..repositories import OrderRepository


class OrderDualWriteManager(DualWriteManager):
    """Orders with their lines, their sagas, and what is told and was heard of them."""

    service = "order"
    migrations = Path(__file__).parents[2] / "migrations"
    messages = ROOM

    @classmethod
    def entities(cls) -> Sequence[EntityMapping]:
        """Orders before their lines."""
        return (ORDER, ORDER_LINE, SAGA, IDEMPOTENCY_KEY, PRODUCT_VIEW, *MESSAGES)

    async def write_probe(self, work: UnitOfWork) -> tuple[str, Key]:
        """An empty order of nobody, from a cart that cannot be."""
        cart = CartToOrder(
            id=-1 - secrets.randbelow(2**30), user_id=f"~probe-{secrets.token_hex(12)}", lines=()
        )
        order = await OrderRepository(work).insert(cart)
        return ORDER.name, (order.id,)
