"""The wish list of a user."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Response
from fastapi import Path as PathParameter

from backend.shared.api.fields import MAX_INT32, DatabaseId
from backend.shared.api.pagination import DepPage, Page
from backend.shared.api.problems import problem_responses

from ..schemas import CartOut, WishAdd, WishOut
from .carts import CART_LINKS
from .dependencies import DepOwner, DepServices

router = APIRouter(prefix="/wishlist", tags=["wish list"])

_LISTING = "wishlist"
_CREATED: dict[int | str, dict[str, Any]] = {
    200: {"model": WishOut, "description": "It was wished for already."},
    201: {"description": "It is wished for now."},
    **problem_responses(404),
}
ProductId = Annotated[DatabaseId, PathParameter(description="The id of a product.")]


@router.get("", summary="What is wished for")
async def list_wishes(found: DepServices, owner: DepOwner, page: DepPage) -> Page[WishOut]:
    """The latest first."""
    after = page.after(_LISTING, types=(int,))
    # No row has an id beyond the column's range, and none may be asked for.
    before_id = min(after[0], MAX_INT32) if after and isinstance(after[0], int) else None
    wishes = []
    if before_id is None or before_id > 0:
        wishes = await found.wishes.list_wishes(owner.user_id, before_id=before_id, limit=page.limit + 1)
    paged = page.page(wishes, listing=_LISTING, key=lambda wish: (wish.id,))
    return Page(items=[WishOut.of(wish) for wish in paged.items], next_cursor=paged.next_cursor)


@router.post("", summary="Wish for a product", status_code=201, responses=_CREATED)
async def add_wish(found: DepServices, owner: DepOwner, body: WishAdd, response: Response) -> WishOut:
    """404: there is no such product. 409: it is not for sale, or the list is full."""
    wish = await found.wishes.add(user_id=owner.user_id, product_id=body.product_id)
    if not wish.is_new:
        response.status_code = 200
    return WishOut.of(wish)


@router.delete("/{product_id}", summary="Wish for it no more", status_code=204)
async def remove_wish(found: DepServices, owner: DepOwner, product_id: ProductId) -> None:
    """404: it was not wished for."""
    await found.wishes.remove(user_id=owner.user_id, product_id=product_id)


@router.post(
    "/{product_id}/move-to-cart", summary="Put a wish into the cart", responses={200: {"links": CART_LINKS}}
)
async def move_to_cart(found: DepServices, owner: DepOwner, product_id: ProductId) -> CartOut:
    """One piece of it, and the wish is gone: both or neither. The answers are those of adding an item."""
    return CartOut.of(await found.wishes.move_to_cart(user_id=owner.user_id, product_id=product_id))
