"""All SQL of the service. Carts and wishes are written against the shape of the service's own tables, whichever side a
unit runs on; the cache of users is on the new side only.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, FromClause, Text, and_, func, literal, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from backend.shared import UnitOfWork

from .entities import Cart, CartItem, CartStatus, Customer, WishItem
from .legacy import storable
from .models import cart_items, carts, user_cache, wish_items

CART, CART_ITEM, WISH_ITEM = "cart", "cart_item", "wish_item"


async def lock_user(work: UnitOfWork, user_id: str) -> None:
    """Hold, until the unit ends, the right to give this user something that she may have only one of.

    Against other programs the unique index decides; this saves our own replicas from finding out by an error.
    """
    name = literal("cart_service.user:", Text) + user_id
    key = func.hashtextextended(name, 0, type_=BigInteger)
    await work.execute(select(func.pg_advisory_xact_lock(key, type_=Text)))


class CartRepository:
    """Carts with their lines."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._carts = work.shape(carts)
        self._items = work.shape(cart_items)

    async def get(self, cart_id: int) -> Cart | None:
        """The cart with its lines."""
        rows = await self._work.rows(select(self._carts).where(self._carts.c.id == cart_id))
        return replace(_cart(rows[0]), items=await self._lines(cart_id)) if rows else None

    async def get_open(self, user_id: str) -> Cart | None:
        """The user's open cart with its lines."""
        cart_id = await self.open_id(user_id)
        return None if cart_id is None else await self.get(cart_id)

    async def open_id(self, user_id: str) -> int | None:
        query = select(self._carts.c.id).where(
            self._carts.c.user_id == user_id, self._carts.c.status == CartStatus.OPEN.value
        )
        rows = await self._work.rows(query)
        return int(rows[0]["id"]) if rows else None

    async def lock_open(self, user_id: str) -> Cart | None:
        """The user's open cart as it is once nobody else changes it, and until this unit ends."""
        while (cart_id := await self.open_id(user_id)) is not None:
            if not await self._work.lock(CART, (cart_id,)):
                continue
            # Read after the lock was had: whoever held it before may have changed lines, or closed the cart.
            cart = await self.get(cart_id)
            if cart is not None and cart.status is CartStatus.OPEN and cart.user_id == user_id:
                return cart
        return None

    async def insert(self, user_id: str) -> Cart:
        """An open, empty cart."""
        created_at = storable(datetime.now(UTC))
        values = {
            carts.c.user_id: user_id,
            carts.c.status: CartStatus.OPEN.value,
            carts.c.created_at: created_at,
        }
        (cart_id,) = await self._work.insert(CART, values)
        return Cart(
            id=int(cart_id),
            user_id=user_id,
            status=CartStatus.OPEN,
            reference=None,
            created_at=created_at,
            updated_at=None,
            is_new=True,
        )

    async def delete(self, cart_id: int) -> None:
        """Delete a cart that has no lines."""
        await self._work.delete(CART, (cart_id,))

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
        query = select(self._items).where(self._items.c.cart_id == cart_id).order_by(self._items.c.id)
        return tuple(CartItem(**row) for row in await self._work.rows(query))


class WishRepository:
    """What users wish for."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._wishes: FromClause = work.shape(wish_items)

    async def find(self, user_id: str, product_id: int) -> WishItem | None:
        query = select(self._wishes).where(
            self._wishes.c.user_id == user_id, self._wishes.c.product_id == product_id
        )
        rows = await self._work.rows(query)
        return WishItem(**rows[0]) if rows else None

    async def lock(self, user_id: str, product_id: int) -> WishItem | None:
        """The wish as it is once nobody else changes it, and until this unit ends."""
        while (wish := await self.find(user_id, product_id)) is not None:
            if await self._work.lock(WISH_ITEM, (wish.id,)) and wish == await self.find(user_id, product_id):
                return wish
        return None

    async def count(self, user_id: str) -> int:
        query = select(func.count().label("count")).select_from(self._wishes)
        rows = await self._work.rows(query.where(self._wishes.c.user_id == user_id))
        return int(rows[0]["count"])

    async def insert(self, user_id: str, product_id: int) -> WishItem:
        added_at = datetime.now(UTC)
        values = {
            wish_items.c.user_id: user_id,
            wish_items.c.product_id: product_id,
            wish_items.c.added_at: added_at,
        }
        (wish_id,) = await self._work.insert(WISH_ITEM, values)
        return WishItem(
            id=int(wish_id), user_id=user_id, product_id=product_id, added_at=added_at, is_new=True
        )

    async def delete(self, wish_id: int) -> None:
        await self._work.delete(WISH_ITEM, (wish_id,))

    async def page(self, user_id: str, *, before_id: int | None, limit: int) -> list[WishItem]:
        """Up to `limit` wishes of a user with ids below `before_id`, the latest first."""
        query = select(self._wishes).where(self._wishes.c.user_id == user_id)
        if before_id is not None:
            query = query.where(self._wishes.c.id < before_id)
        rows = await self._work.rows(query.order_by(self._wishes.c.id.desc()).limit(limit))
        return [WishItem(**row) for row in rows]


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


def _cart(row: dict[str, Any]) -> Cart:
    status = row["status"]
    return Cart(**row | {"status": None if status is None else CartStatus(status)})
