"""The cart of a user, and what is in it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Response
from fastapi import Path as PathParameter

from backend.shared.api.fields import DatabaseId
from backend.shared.api.problems import problem_responses

from ..schemas import CartOut, ItemAdd, ItemChange, OwnedCartOut
from .dependencies import DepCaller, DepOwner, DepServices

router = APIRouter(prefix="/carts", tags=["carts"])

_READ_CART, _CHANGE_ITEM, _REMOVE_ITEM = "read_cart", "change_item", "remove_item"
_FIRST_ITEM = {"item_id": "$response.body#/items/0/id", "user_id": "$response.body#/user_id"}
CART_LINKS = {
    "cart": {"operationId": _READ_CART, "parameters": {"cart_id": "$response.body#/id"}},
    "changed_item": {"operationId": _CHANGE_ITEM, "parameters": _FIRST_ITEM},
    "removed_item": {"operationId": _REMOVE_ITEM, "parameters": _FIRST_ITEM},
}
"""For an answer that holds a cart: where to find that cart again, and what can be done with its lines."""

_NO_CART = problem_responses(404)
_SHOWN: dict[int | str, dict[str, Any]] = {200: {"links": CART_LINKS}}
_ADDED: dict[int | str, dict[str, Any]] = {201: {"links": CART_LINKS}}
_CREATED: dict[int | str, dict[str, Any]] = {
    200: {"model": CartOut, "description": "The open cart that was there.", "links": CART_LINKS},
    201: {
        "description": "A new one.",
        "headers": {"Location": {"description": "Where it is.", "schema": {"type": "string"}}},
        "links": CART_LINKS,
    },
}
CartId = Annotated[DatabaseId, PathParameter(description="The id of a cart.")]
ItemId = Annotated[DatabaseId, PathParameter(description="The id of a line of the open cart.")]


@router.post("", summary="Get an open cart", status_code=201, responses=_CREATED)
async def create_cart(found: DepServices, owner: DepOwner, response: Response) -> CartOut:
    """Makes one, or answers the one that is open: everybody has one at most."""
    cart = await found.carts.create_cart(owner.user_id)
    if cart.is_new:
        response.headers["Location"] = f"{router.prefix}/{cart.id}"
    else:
        response.status_code = 200
    return CartOut.of(cart)


@router.get("/current", summary="The open cart", responses={**_SHOWN, **_NO_CART})
async def read_current_cart(found: DepServices, owner: DepOwner) -> OwnedCartOut:
    """404: there is none; the first item that is added makes one."""
    cart = await found.carts.current_cart(owner.user_id)
    customer = owner.customer or await found.customers.find(owner.user_id)
    return OwnedCartOut.of_customer(cart, customer)


@router.post(
    "/current/items",
    summary="Put a product into the cart",
    status_code=201,
    responses={**_ADDED, **_NO_CART},
)
async def add_item(found: DepServices, owner: DepOwner, body: ItemAdd) -> CartOut:
    """Makes a cart if there is none. More of a product that is there adds up on its line, at the present price.

    404: there is no such product. 409: it is not for sale, or the line or the cart would grow too large.
    """
    cart = await found.carts.add_item_to_cart(
        user_id=owner.user_id, product_id=body.product_id, quantity=body.quantity
    )
    return CartOut.of(cart)


@router.patch(
    "/current/items/{item_id}", summary="Change how many", operation_id=_CHANGE_ITEM, responses=_SHOWN
)
async def change_item(found: DepServices, owner: DepOwner, item_id: ItemId, body: ItemChange) -> CartOut:
    """The price stays. To have none of it, delete the item."""
    cart = await found.carts.change_quantity(user_id=owner.user_id, item_id=item_id, quantity=body.quantity)
    return CartOut.of(cart)


@router.delete(
    "/current/items/{item_id}", summary="Take a product out", operation_id=_REMOVE_ITEM, status_code=204
)
async def remove_item(found: DepServices, owner: DepOwner, item_id: ItemId) -> None:
    """404: it is not in the open cart."""
    await found.carts.remove_item(user_id=owner.user_id, item_id=item_id)


@router.delete("/current/items", summary="Take everything out", status_code=204, responses=_NO_CART)
async def clear_cart(found: DepServices, owner: DepOwner) -> None:
    """The cart stays open. 404: there is none."""
    await found.carts.clear_cart(owner.user_id)


@router.get("/{cart_id}", summary="One cart, open or not", operation_id=_READ_CART, responses=_SHOWN)
async def read_cart(found: DepServices, caller: DepCaller, cart_id: CartId) -> OwnedCartOut:
    """404 also for another user's; admins and services read everybody's."""
    own = caller.principal.subject
    cart = await found.carts.get_cart(cart_id, owner=None if caller.is_operator else own)
    if cart.user_id == own:
        return OwnedCartOut.of_customer(cart, caller.customer)
    customer = None if cart.user_id is None else await found.customers.find(cart.user_id)
    return OwnedCartOut.of_customer(cart, customer)
