"""`CartDualWriteManager`: every operation of this service that both sides have to know of."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

from backend.shared import (
    DualWriteManager,
    DualWriteResult,
    EntityMapping,
    Exercised,
    Key,
    SideError,
    Unit,
    UnitOfWork,
)

from ..entities import Cart, WishItem, check_id, check_quantity, check_user_id
from ..legacy import CART, CART_ITEM, CART_ORDER, MESSAGES, USER_VIEW, WISH_ITEM
from ..models import ROOM
from ..repositories import CartRepository
from ..services import units
from .exercise import exercise_operations

T = TypeVar("T")
_UNIQUE_VIOLATION = "23505"
_TRIES = 3


class CartDualWriteManager(DualWriteManager):
    """Carts, their items, and wishes.

    Each operation is one transaction on the authoritative side. Bad input raises an error of the `ValidationError` tree;
    trouble with a database is in the result. Those that create something answer what is there when it is there already,
    so they may be repeated; `add_item` may not, for it adds up.
    """

    service = "cart"
    migrations = Path(__file__).parents[2] / "migrations"
    messages = ROOM

    @classmethod
    def entities(cls) -> Sequence[EntityMapping]:
        """Carts before the items in them; which order each is in; users; what is told and was heard."""
        return (CART, CART_ITEM, WISH_ITEM, CART_ORDER, USER_VIEW, *MESSAGES)

    async def write_probe(self, work: UnitOfWork) -> tuple[str, Key]:
        """An empty cart of nobody."""
        cart = await CartRepository(work).insert(f"~probe-{secrets.token_hex(16)}")
        return CART.name, (cart.id,)

    def exercise(self) -> AsyncIterator[Exercised]:
        """Every operation once, on a user and a product made up for it; nothing is left over in the end."""
        return exercise_operations(self)

    async def create_cart(self, user_id: str) -> DualWriteResult[Cart]:
        """The user's open cart; made, and then `is_new`, if she has none."""
        return await self._write_again("create_cart", units.create_cart(check_user_id(user_id)))

    async def add_item(
        self, user_id: str, *, product_id: int, quantity: int, unit_price: Decimal
    ) -> DualWriteResult[Cart]:
        """Put a product into the user's open cart, made if she has none. What several add at once adds up.

        Raises ConflictError where the line or the cart would grow too large.
        """
        unit = units.add_item(
            check_user_id(user_id),
            product_id=check_id(product_id, "product"),
            quantity=check_quantity(quantity),
            unit_price=unit_price,
        )
        return await self._write_again("add_item", unit)

    async def change_quantity(self, user_id: str, *, item_id: int, quantity: int) -> DualWriteResult[Cart]:
        """Say how many there are to be. Raises NotFoundError unless the line is one of the user's open cart."""
        unit = units.change_quantity(
            check_user_id(user_id), item_id=check_id(item_id, "item"), quantity=check_quantity(quantity)
        )
        return await self.write("change_quantity", unit)

    async def remove_item(self, user_id: str, *, item_id: int) -> DualWriteResult[Cart]:
        """Take a line out. Raises NotFoundError unless it is one of the user's open cart."""
        unit = units.remove_item(check_user_id(user_id), item_id=check_id(item_id, "item"))
        return await self.write("remove_item", unit)

    async def clear_cart(self, user_id: str) -> DualWriteResult[Cart]:
        """Take everything out. Raises NotFoundError when the user has no open cart."""
        return await self.write("clear_cart", units.clear_cart(check_user_id(user_id)))

    async def add_wish(self, user_id: str, *, product_id: int) -> DualWriteResult[WishItem]:
        """The user's wish; made, and then `is_new`, if there is none. Raises ConflictError where the list is full."""
        unit = units.add_wish(check_user_id(user_id), product_id=check_id(product_id, "product"))
        return await self._write_again("add_wish", unit)

    async def remove_wish(self, user_id: str, *, product_id: int) -> DualWriteResult[WishItem]:
        """Answers what it was. Raises NotFoundError when there is no such wish."""
        unit = units.remove_wish(check_user_id(user_id), product_id=check_id(product_id, "product"))
        return await self.write("remove_wish", unit)

    async def move_wish_to_cart(
        self, user_id: str, *, product_id: int, unit_price: Decimal
    ) -> DualWriteResult[Cart]:
        """One piece of the product goes into the cart and the wish goes: both or neither.

        Raises NotFoundError when there is no such wish, and otherwise as `add_item` does.
        """
        unit = units.move_wish_to_cart(
            check_user_id(user_id), product_id=check_id(product_id, "product"), unit_price=unit_price
        )
        return await self._write_again("move_wish_to_cart", unit)

    async def _write_again(self, operation: str, unit: Unit[T]) -> DualWriteResult[T]:
        """`write`, again when another program has just made the very thing that was not there: now it is found."""
        for _ in range(_TRIES - 1):
            result = await self.write(operation, unit)
            error = result.error
            if not isinstance(error, SideError) or error.sqlstate != _UNIQUE_VIOLATION:
                return result
        return await self.write(operation, unit)
