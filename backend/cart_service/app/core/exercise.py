"""Every operation of the manager once, on a user and a product made up for it, with nothing left over in the end."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from backend.shared import DualWriteResult, Exercised, Key, Unit, UnitOfWork

from ..entities import Cart, WishItem
from ..legacy import CART, CART_ITEM, WISH_ITEM
from ..repositories import CartRepository, WishRepository

if TYPE_CHECKING:
    from .dual_write_manager import CartDualWriteManager

_PRODUCT_ID = 2**31 - 1  # as good as certain that there is no such product
_OTHER_PRODUCT_ID = _PRODUCT_ID - 1
_PRICE = Decimal("9.99")


async def exercise_operations(manager: CartDualWriteManager) -> AsyncIterator[Exercised]:
    """Call each operation, and tell of it; what was made is deleted even when one of them fails."""
    user_id = f"~exercise-{secrets.token_hex(12)}"
    seen: set[tuple[str, Key]] = set()

    def told(name: str, result: DualWriteResult[Any]) -> Exercised:
        keys = [*_keys(result.value), *seen]
        seen.update(keys)
        return Exercised(name=name, result=result, keys=sorted(set(keys)))

    try:
        yield told("create_cart", await manager.create_cart(user_id))
        added = await manager.add_item(user_id, product_id=_PRODUCT_ID, quantity=2, unit_price=_PRICE)
        yield told("add_item", added)
        item_id = added.unwrap().items[0].id
        changed = await manager.change_quantity(user_id, item_id=item_id, quantity=5)
        yield told("change_quantity", changed)
        yield told("remove_item", await manager.remove_item(user_id, item_id=item_id))
        yield told("add_wish", await manager.add_wish(user_id, product_id=_PRODUCT_ID))
        moved = await manager.move_wish_to_cart(user_id, product_id=_PRODUCT_ID, unit_price=_PRICE)
        yield told("move_wish_to_cart", moved)
        yield told("clear_cart", await manager.clear_cart(user_id))
        yield told("add_wish_again", await manager.add_wish(user_id, product_id=_OTHER_PRODUCT_ID))
        yield told("remove_wish", await manager.remove_wish(user_id, product_id=_OTHER_PRODUCT_ID))
        yield told("delete_cart", await manager.write("exercise", _removal(user_id)))
    finally:
        await manager.write("exercise", _removal(user_id))


def _keys(value: object) -> Sequence[tuple[str, Key]]:
    if isinstance(value, Cart):
        return [(CART.name, (value.id,)), *((CART_ITEM.name, (item.id,)) for item in value.items)]
    if isinstance(value, WishItem):
        return [(WISH_ITEM.name, (value.id,))]
    return []


def _removal(user_id: str) -> Unit[None]:
    async def unit(work: UnitOfWork) -> None:
        carts, wishes = CartRepository(work), WishRepository(work)
        if cart := await carts.lock_open(user_id):
            for item in cart.items:
                await carts.delete_line(item.id)
            await carts.delete(cart.id)
        for wish in await wishes.page(user_id, before_id=None, limit=10):
            await wishes.delete(wish.id)

    return unit
