"""What becomes of a cart that is ordered. Each method is part of one unit of work.

A cart that was ordered is closed; if nothing comes of the order it is open again, unless its owner has begun another one by then. What
is told of an order may come twice, late, and in any order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial

import structlog

from backend.shared import UnitOfWork

from ..entities import Cart, CartStatus
from ..repositories import CartOrderRepository, CartRepository, lock_user

PLACED, CANCELLED = "placed", "cancelled"

log = structlog.get_logger(__name__)


class Checkout:
    """Carts and the orders that they are in."""

    async def placed(
        self, work: UnitOfWork, *, order_id: int, cart_id: int, pieces: Mapping[int, int]
    ) -> None:
        """The cart was ordered as it was when it had so many `pieces` of each product; what came in since goes to a new one.

        A cart whose lines the database refuses to move is closed all the same: it is ordered, whatever else is in it.
        """
        orders, carts = CartOrderRepository(work), CartRepository(work)
        cart = await self._held(work, cart_id)
        if cart is None or await orders.state(order_id) is not None:
            return
        await orders.keep(order_id, cart_id, PLACED)
        if cart.status is not CartStatus.CLOSED:
            # One of which nothing had come, when its owner had another by then, may have been ordered again before.
            await carts.set_status(cart_id, CartStatus.CLOSED)
        if cart.status is CartStatus.OPEN:
            refused = await work.optional(partial(self._move_rest, carts, cart, pieces))
            if refused is not None:
                log.warning("rest_of_cart_not_moved", cart_id=cart_id, order_id=order_id, error=str(refused))

    async def cancelled(self, work: UnitOfWork, *, order_id: int, cart_id: int) -> None:
        """Nothing came of the order."""
        orders, carts = CartOrderRepository(work), CartRepository(work)
        cart = await self._held(work, cart_id)
        before = await orders.state(order_id)
        if cart is None or before == CANCELLED:
            return
        await orders.keep(order_id, cart_id, CANCELLED)
        if before is None or cart.status is not CartStatus.CLOSED:
            return
        if await orders.others_placed(cart_id, but=order_id):
            return
        taken = cart.user_id is None or await carts.open_id(cart.user_id) is not None
        await carts.set_status(cart_id, CartStatus.CANCELLED if taken else CartStatus.OPEN)

    async def _held(self, work: UnitOfWork, cart_id: int) -> Cart | None:
        """The cart, and the right to give its owner another: that first, always, as whoever opens one does."""
        carts = CartRepository(work)
        found = await carts.get(cart_id)
        if found is None:
            log.warning("ordered_cart_unknown", cart_id=cart_id)
            return None
        if found.user_id is not None:
            await lock_user(work, found.user_id)
        return await carts.hold(cart_id)

    async def _move_rest(self, carts: CartRepository, cart: Cart, pieces: Mapping[int, int]) -> None:
        left = Counter(pieces)
        rest = []
        for item in cart.items:
            ordered = min(max(item.quantity, 0), left[item.product_id])
            left[item.product_id] -= ordered
            if item.quantity > ordered:
                rest.append((item, item.quantity - ordered))
        if not rest or cart.user_id is None:
            return
        new = await carts.insert(cart.user_id)
        for item, count in rest:
            await carts.insert_line(
                new.id, product_id=item.product_id, quantity=count, unit_price=item.unit_price
            )
            if item.quantity == count:
                await carts.delete_line(item.id)
            else:
                await carts.change_line(item, quantity=item.quantity - count)
