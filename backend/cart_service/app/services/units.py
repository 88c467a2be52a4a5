"""What happens in each unit of work. A unit may be run again: it has no effect outside of its transaction.

Whoever changes a cart holds its row, and reads it after she got hold of it: so what several do at once adds up.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from backend.shared import ConflictError, NotFoundError, Unit, UnitOfWork

from ..entities import (
    MAX_LINES_PER_CART,
    MAX_QUANTITY,
    MAX_WISHES_PER_USER,
    Cart,
    CartItem,
    WishItem,
)
from ..repositories import CartRepository, WishRepository, lock_user


def create_cart(user_id: str) -> Unit[Cart]:
    """The user's open cart, made if there is none."""

    async def unit(work: UnitOfWork) -> Cart:
        return await _open_cart(work, user_id)

    return unit


def add_item(user_id: str, *, product_id: int, quantity: int, unit_price: Decimal) -> Unit[Cart]:
    """Put a product into the user's cart. Raises ConflictError where the cart or the line would grow too large."""

    async def unit(work: UnitOfWork) -> Cart:
        cart = await _open_cart(work, user_id)
        return await _add(work, cart, product_id=product_id, quantity=quantity, unit_price=unit_price)

    return unit


def change_quantity(user_id: str, *, item_id: int, quantity: int) -> Unit[Cart]:
    """Raises NotFoundError unless the line is one of the user's open cart."""

    async def unit(work: UnitOfWork) -> Cart:
        carts = CartRepository(work)
        cart = await _held(carts, user_id)
        item = _line(cart, item_id)
        after = await carts.change_line(item, quantity=quantity)
        return replace(cart, items=tuple(after if line is item else line for line in cart.items))

    return unit


def remove_item(user_id: str, *, item_id: int) -> Unit[Cart]:
    """Raises NotFoundError unless the line is one of the user's open cart."""

    async def unit(work: UnitOfWork) -> Cart:
        carts = CartRepository(work)
        cart = await _held(carts, user_id)
        item = _line(cart, item_id)
        await carts.delete_line(item.id)
        return replace(cart, items=tuple(line for line in cart.items if line is not item))

    return unit


def clear_cart(user_id: str) -> Unit[Cart]:
    """Take everything out of the user's open cart. Raises NotFoundError when she has none."""

    async def unit(work: UnitOfWork) -> Cart:
        carts = CartRepository(work)
        cart = await _held(carts, user_id)
        for item in cart.items:
            await carts.delete_line(item.id)
        return replace(cart, items=())

    return unit


def add_wish(user_id: str, *, product_id: int) -> Unit[WishItem]:
    """The wish, made if there is none. Raises ConflictError where the list would grow too long."""

    async def unit(work: UnitOfWork) -> WishItem:
        wishes = WishRepository(work)
        if found := await wishes.find(user_id, product_id):
            return found
        await lock_user(work, user_id)
        if found := await wishes.find(user_id, product_id):
            return found
        if await wishes.count(user_id) >= MAX_WISHES_PER_USER:
            raise ConflictError(f"a wish list holds {MAX_WISHES_PER_USER} products at most")
        return await wishes.insert(user_id, product_id)

    return unit


def remove_wish(user_id: str, *, product_id: int) -> Unit[WishItem]:
    """Answers what it was. Raises NotFoundError when there is no such wish."""

    async def unit(work: UnitOfWork) -> WishItem:
        wishes = WishRepository(work)
        wish = await _wish(wishes, user_id, product_id)
        await wishes.delete(wish.id)
        return wish

    return unit


def move_wish_to_cart(user_id: str, *, product_id: int, unit_price: Decimal) -> Unit[Cart]:
    """One piece of the product goes into the cart, and the wish goes. Raises as `add_item` and `remove_wish` do."""

    async def unit(work: UnitOfWork) -> Cart:
        wishes = WishRepository(work)
        # Before a cart is made for it; and the wish's lock before the cart's, always.
        wish = await _wish(wishes, user_id, product_id)
        cart = await _open_cart(work, user_id)
        after = await _add(work, cart, product_id=product_id, quantity=1, unit_price=unit_price)
        await wishes.delete(wish.id)
        return after

    return unit


async def _open_cart(work: UnitOfWork, user_id: str) -> Cart:
    """The user's open cart, held until the unit ends; made if there is none."""
    carts = CartRepository(work)
    if cart := await carts.lock_open(user_id):
        return cart
    await lock_user(work, user_id)
    return await carts.lock_open(user_id) or await carts.insert(user_id)


async def _add(work: UnitOfWork, cart: Cart, *, product_id: int, quantity: int, unit_price: Decimal) -> Cart:
    """More of a product that is there goes on its line, which takes the present price for all of it."""
    carts = CartRepository(work)
    # A line of history below zero is no line to put goods on.
    there = next((i for i in cart.items if i.product_id == product_id and i.quantity > 0), None)
    if there is None:
        if len(cart.items) >= MAX_LINES_PER_CART:
            raise ConflictError(f"a cart holds {MAX_LINES_PER_CART} lines at most")
        added = await carts.insert_line(
            cart.id, product_id=product_id, quantity=quantity, unit_price=unit_price
        )
        return replace(cart, items=(*cart.items, added))
    if there.quantity + quantity > MAX_QUANTITY:
        raise ConflictError(
            f"a line holds {MAX_QUANTITY} pieces at most; there are {there.quantity} of product {product_id}"
        )
    after = await carts.change_line(there, quantity=there.quantity + quantity, unit_price=unit_price)
    return replace(cart, items=tuple(after if line is there else line for line in cart.items))


async def _held(carts: CartRepository, user_id: str) -> Cart:
    cart = await carts.lock_open(user_id)
    if cart is None:
        raise NotFoundError("there is no open cart")
    return cart


def _line(cart: Cart, item_id: int) -> CartItem:
    found = next((item for item in cart.items if item.id == item_id), None)
    if found is None:
        raise NotFoundError(f"there is no item {item_id} in the open cart")
    return found


async def _wish(wishes: WishRepository, user_id: str, product_id: int) -> WishItem:
    wish = await wishes.lock(user_id, product_id)
    if wish is None:
        raise NotFoundError(f"product {product_id} is not on the wish list")
    return wish
