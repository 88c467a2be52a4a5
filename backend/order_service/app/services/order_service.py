"""Use cases round orders."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from backend.shared import AwayError, NotFoundError, UnitOfWork
from backend.shared.outcomes import value_of

from ..clients import Carts, Customers, Products
from ..core.dual_write_manager import OrderDualWriteManager
from ..entities import Order, OrderSaga, ProductSeen, check_id
from ..legacy import ORDER
from ..repositories import OrderRepository, ProductViews, SagaRepository
from .order_desk import OrderDesk

CUSTOMER, PRODUCTS = "customer", "products"
"""What an order may be shown with."""

log = structlog.get_logger(__name__)


@dataclass(kw_only=True)
class Expanded:
    """What other services say of an order; `missing` names those that did not answer."""

    customer: Any = None
    products: Any = None
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class FoundOrder:
    """An order, its saga (None: it is of the time before), and what was heard of the products on its lines, by id."""

    order: Order
    saga: OrderSaga | None
    products: Mapping[int, ProductSeen]


class OrderService:
    """Each method is one unit of work; raises SideError when a database does not answer."""

    def __init__(
        self,
        manager: OrderDualWriteManager,
        desk: OrderDesk,
        *,
        carts: Carts,
        products: Products,
        customers: Customers,
    ) -> None:
        self._manager = manager
        self._desk = desk
        self._carts = carts
        self._products = products
        self._customers = customers

    async def place(self, *, user_id: str, token: str, key: str) -> Order:
        """Order what is in the caller's cart. Asked again under the same key, it answers the same order.

        Raises ConflictError for a cart that cannot be ordered, and AwayError when the cart service does not answer.
        """
        known = await self._placed(user_id, key)
        if known is not None:
            return known
        cart = (await self._carts.open_cart(token)).check()
        if cart.user_id != user_id:
            raise NotFoundError("this is another user's cart")
        return value_of(
            await self._manager.write("place_order", lambda work: self._desk.place(work, cart, key=key))
        )

    async def _placed(self, user_id: str, key: str) -> Order | None:
        """What was placed under a key, asked of the authoritative side: the cart may be gone by now."""

        async def unit(work: UnitOfWork) -> Order | None:
            return await self._desk.placed(work, user_id, key)

        return await self._manager.read(unit, operation="placed_order")

    async def get(self, order_id: int, *, owner: str | None = None) -> FoundOrder:
        """An order and what belongs to it. With an `owner`, another user's is as unknown as one that does not exist."""
        check_id(order_id, "order")

        async def unit(work: UnitOfWork) -> FoundOrder | None:
            order = await OrderRepository(work).get(order_id)
            if order is None:
                return None
            return FoundOrder(
                order=order,
                saga=await SagaRepository(work).get(order_id),
                products=await ProductViews(work).by_ids([line.product_id for line in order.lines]),
            )

        found = await self._manager.read(unit, operation="get_order")
        if found is None or (owner is not None and found.order.user_id != owner):
            raise NotFoundError(f"there is no order {order_id}")
        return found

    async def page(self, user_id: str, *, before_id: int | None, limit: int) -> list[Order]:
        """Up to `limit` orders of a user with ids below `before_id`, the latest first, without their lines."""

        async def unit(work: UnitOfWork) -> list[Order]:
            return await OrderRepository(work).page(user_id, before_id=before_id, limit=limit)

        return await self._manager.read(unit, entity=ORDER.name, key=user_id, operation="list_orders")

    async def cancel(self, order_id: int, *, owner: str | None, why: str) -> None:
        """Take an order back, whatever of it was done. May be repeated."""
        check_id(order_id, "order")
        value_of(
            await self._manager.write(
                "cancel_order", lambda work: self._desk.cancel(work, order_id, owner=owner, why=why)
            )
        )

    async def expand(self, order: Order, wanted: Sequence[str], *, caller: str, token: str) -> Expanded:
        """Ask others what they know of an order, at the same time. Whoever does not answer is missing, and nothing else."""
        found = Expanded()
        asked: dict[str, Awaitable[Any]] = {}
        if CUSTOMER in wanted:
            asked[CUSTOMER] = self._customers.find(order.user_id, token=token, is_own=caller == order.user_id)
        if PRODUCTS in wanted:
            asked[PRODUCTS] = self._products.by_ids(sorted({line.product_id for line in order.lines}))
        answers = await asyncio.gather(*asked.values(), return_exceptions=True)
        for name, answer in zip(asked, answers, strict=True):
            if isinstance(answer, AwayError):
                found.missing.append(name)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                setattr(found, name, answer)
        return found
