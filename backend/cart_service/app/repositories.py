"""All SQL of the service. Carts, wishes and what was heard of users are written against the shape of the service's own
tables, whichever side a unit runs on; the cache of tokens is on the new side only.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, Text, and_, func, literal, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from backend.shared import Repository, UnitOfWork
from backend.shared.events.read_models import moment

from .entities import Cart, CartItem, CartStatus, Customer, WishItem
from .legacy import CART, CART_ITEM, CART_ORDER, WISH_ITEM, storable
from .models import cart_items, cart_orders, user_cache, user_view


async def lock_user(work: UnitOfWork, user_id: str) -> None:
    """Hold, until the unit ends, the right to give this user something that she may have only one of.

    Against other programs the unique index decides; this saves our own replicas from finding out by an error.
    """
    name = literal("cart_service.user:", Text) + user_id
    key = func.hashtextextended(name, 0, type_=BigInteger)
    await work.execute(select(func.pg_advisory_xact_lock(key, type_=Text)))


class CartRepository(Repository[Cart]):
    """Carts with their lines. One that has any cannot be deleted."""

    entity = CART

    async def get(self, *key: int) -> Cart | None:
        """The cart with its lines."""
        cart = await super().get(*key)
        return None if cart is None else replace(cart, items=await self._lines(cart.id))

    async def get_open(self, user_id: str) -> Cart | None:
        """The user's open cart with its lines."""
        cart_id = await self.open_id(user_id)
        return None if cart_id is None else await self.get(cart_id)

    async def open_id(self, user_id: str) -> int | None:
        query = select(self._root.c.id).where(
            self._root.c.user_id == user_id, self._root.c.status == CartStatus.OPEN.value
        )
        rows = await self._work.rows(query)
        return int(rows[0]["id"]) if rows else None

    async def lock_open(self, user_id: str) -> Cart | None:
        """The user's open cart as it is once nobody else changes it, and until this unit ends."""
        while (cart_id := await self.open_id(user_id)) is not None:
            # Read after the lock was had: whoever held it before may have changed lines, or closed the cart.
            cart = await self.hold(cart_id)
            if cart is not None and cart.status is CartStatus.OPEN and cart.user_id == user_id:
                return cart
        return None

    async def insert(self, user_id: str) -> Cart:
        """An open, empty cart."""
        created_at = storable(datetime.now(UTC))
        (cart_id,) = await self._insert(user_id=user_id, status=CartStatus.OPEN.value, created_at=created_at)
        return Cart(
            id=int(cart_id),
            user_id=user_id,
            status=CartStatus.OPEN,
            reference=None,
            created_at=created_at,
            updated_at=None,
            is_new=True,
        )

    async def set_status(self, cart_id: int, status: CartStatus) -> None:
        """Say what has become of a cart."""
        await self._change(cart_id, status=status.value, updated_at=datetime.now(UTC))

    async def insert_line(
        self, cart_id: int, *, product_id: int, quantity: int, unit_price: Decimal
    ) -> CartItem:
        added_at = datetime.now(UTC)
        values = {
            cart_items.c.cart_id: cart_id,
            cart_items.c.product_id: product_id,
            cart_items.c.quantity: quantity,
            cart_items.c.unit_price: unit_price,
            cart_items.c.added_at: added_at,
        }
        (item_id,) = await self._work.insert(CART_ITEM, values)
        return CartItem(
            id=int(item_id),
            cart_id=cart_id,
            product_id=product_id,
            quantity=quantity,
            unit_price=unit_price,
            added_at=added_at,
        )

    async def change_line(
        self, item: CartItem, *, quantity: int, unit_price: Decimal | None = None
    ) -> CartItem:
        """Give a line another quantity and, if there is one, another price. What stays the same is not written."""
        after = replace(
            item, quantity=quantity, unit_price=item.unit_price if unit_price is None else unit_price
        )
        values: dict[Any, Any] = {}
        if after.quantity != item.quantity:
            values[cart_items.c.quantity] = after.quantity
        if after.unit_price != item.unit_price:
            values[cart_items.c.unit_price] = after.unit_price
        if values:
            await self._work.update(CART_ITEM, (item.id,), values)
        return after

    async def delete_line(self, item_id: int) -> None:
        await self._work.delete(CART_ITEM, (item_id,))

    async def _lines(self, cart_id: int) -> tuple[CartItem, ...]:
        items = self._work.shape(cart_items)
        query = select(items).where(items.c.cart_id == cart_id).order_by(items.c.id)
        return tuple(CartItem(**row) for row in await self._work.rows(query))

    def _object(self, row: dict[str, Any]) -> Cart:
        status = row["status"]
        return Cart(**row | {"status": None if status is None else CartStatus(status)})


class WishRepository(Repository[WishItem]):
    """What users wish for."""

    entity = WISH_ITEM

    async def find(self, user_id: str, product_id: int) -> WishItem | None:
        return await self._first(self._root.c.user_id == user_id, self._root.c.product_id == product_id)

    async def lock(self, user_id: str, product_id: int) -> WishItem | None:
        """The wish as it is once nobody else changes it, and until this unit ends."""
        while (wish := await self.find(user_id, product_id)) is not None:
            if await self.hold(wish.id) == wish:
                return wish
        return None

    async def count(self, user_id: str) -> int:
        query = select(func.count().label("count")).select_from(self._root)
        rows = await self._work.rows(query.where(self._root.c.user_id == user_id))
        return int(rows[0]["count"])

    async def insert(self, user_id: str, product_id: int) -> WishItem:
        added_at = datetime.now(UTC)
        (wish_id,) = await self._insert(user_id=user_id, product_id=product_id, added_at=added_at)
        return WishItem(
            id=int(wish_id), user_id=user_id, product_id=product_id, added_at=added_at, is_new=True
        )

    async def page(self, user_id: str, *, before_id: int | None, limit: int) -> list[WishItem]:
        """Up to `limit` wishes of a user with ids below `before_id`, the latest first."""
        return await self._latest(self._root.c.user_id == user_id, before_id=before_id, limit=limit)

    def _object(self, row: dict[str, Any]) -> WishItem:
        return WishItem(**row)


class CartOrderRepository:
    """Which order a cart is, or was, in."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._orders = work.shape(cart_orders)

    async def state(self, order_id: int) -> str | None:
        """What was heard of an order last."""
        row = await self._work.get(CART_ORDER, (order_id,))
        return str(row["state"]) if row else None

    async def others_placed(self, cart_id: int, *, but: int) -> bool:
        """Whether a cart is in another order."""
        orders = self._orders.c
        query = select(orders.order_id).where(
            orders.cart_id == cart_id, orders.state == "placed", orders.order_id != but
        )
        return bool(await self._work.rows(query))

    async def keep(self, order_id: int, cart_id: int, state: str) -> None:
        """Note what was heard of an order."""
        values = {cart_orders.c.state: state, cart_orders.c.updated_at: datetime.now(UTC)}
        if not await self._work.update(CART_ORDER, (order_id,), values):
            await self._work.insert(
                CART_ORDER, {cart_orders.c.order_id: order_id, cart_orders.c.cart_id: cart_id, **values}
            )


class UserViewRepository:
    """What was heard of users."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._users = work.shape(user_view)

    async def find(self, user_id: str) -> Customer | None:
        """What was heard of a user last; `refreshed_at` is when it was told."""
        rows = await self._work.rows(select(self._users).where(self._users.c.user_id == user_id))
        if not rows:
            return None
        return Customer(
            user_id=user_id,
            display_name=rows[0]["display_name"],
            is_active=rows[0]["is_active"],
            refreshed_at=moment(rows[0]["at"]),
        )


class CustomerRepository:
    """The cache of users, in a session on the new side."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def find(self, user_id: str) -> Customer | None:
        row = await self._session.execute(select(user_cache).where(user_cache.c.user_id == user_id))
        found = row.mappings().first()
        return Customer(**found) if found else None

    async def refresh(self, told: Customer) -> Customer:
        """Keep `told` if it is later than what is there, or says of the same moment that the user is not active.

        Answers what is there then.
        """
        cached = user_cache.c
        statement = insert(user_cache).values(**vars(told))
        news = statement.excluded
        is_news = or_(
            cached.refreshed_at < news.refreshed_at,
            and_(cached.refreshed_at == news.refreshed_at, ~news.is_active),
        )
        values = {name: news[name] for name in ("display_name", "is_active", "refreshed_at")}
        await self._session.execute(
            statement.on_conflict_do_update(index_elements=[cached.user_id], set_=values, where=is_news)
        )
        return await self.find(told.user_id) or told
