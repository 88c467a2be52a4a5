"""Orders of what is in a cart."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from fastapi import Path as PathParameter

from backend.shared.api.fields import DatabaseId
from backend.shared.api.pagination import DepPage, Page
from backend.shared.api.problems import problem_responses

from ..entities import KEY_PATTERN, Order
from ..schemas import Cancel, OrderOut, OrderSummary
from .dependencies import DepCaller, DepServices

router = APIRouter(prefix="/orders", tags=["orders"])
_LISTING = "orders"
_CREATED: dict[int | str, dict[str, Any]] = {
    201: {"headers": {"Location": {"description": "Where it is.", "schema": {"type": "string"}}}},
    200: {"model": OrderOut, "description": "What was ordered under this key before."},
}
OrderId = Annotated[DatabaseId, PathParameter(description="The id of an order.")]
IdempotencyKey = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        description="Made up by the caller: asked again with the same one, the same order is answered.",
        pattern=KEY_PATTERN,
    ),
]


@router.post("", summary="Order what is in the cart", status_code=201, responses=_CREATED)
async def place_order(
    found: DepServices, caller: DepCaller, key: IdempotencyKey, response: Response
) -> OrderOut:
    """The order makes its way through the other services from here on: look at it again.

    409: the cart is empty, or it is in another order. 503: the cart service does not answer now.
    """
    order = await found.orders.place(user_id=caller.principal.subject, token=caller.token, key=key)
    response.headers["Location"] = f"{router.prefix}/{order.id}"
    if not order.is_new:
        response.status_code = 200
    return OrderOut.whole(await found.orders.get(order.id))


@router.get("", summary="One's orders, the latest first")
async def list_orders(found: DepServices, caller: DepCaller, request: DepPage) -> Page[OrderSummary]:
    """Without their lines."""
    seen = request.after(_LISTING, types=(int,))
    orders = await found.orders.page(
        caller.principal.subject, before_id=int(str(seen[0])) if seen else None, limit=request.limit + 1
    )
    page: Page[Order] = request.page(orders, listing=_LISTING, key=lambda order: (order.id,))
    return Page(items=[OrderSummary.of(order) for order in page.items], next_cursor=page.next_cursor)


@router.get("/{order_id}", summary="One order", responses=problem_responses(404))
async def read_order(
    found: DepServices,
    caller: DepCaller,
    order_id: OrderId,
    expand: Annotated[
        str,
        Query(
            description="Who else to ask, separated by commas: customer, products.",
            pattern=r"^((customer|products)(,(customer|products))*)?$",
        ),
    ] = "",
) -> OrderOut:
    """404 also for another user's; admins and services read everybody's. Whoever cannot be asked now is named in `missing`."""
    whole = await found.orders.get(order_id, owner=caller.owner)
    wanted = [name for name in expand.split(",") if name]
    expanded = await found.orders.expand(
        whole.order, wanted, caller=caller.principal.subject, token=caller.token
    )
    return OrderOut.whole(whole, expanded)


@router.post("/{order_id}/cancel", summary="Take an order back", responses=problem_responses(404))
async def cancel_order(
    found: DepServices, caller: DepCaller, order_id: OrderId, body: Cancel | None = None
) -> OrderOut:
    """Whatever of it was done is undone from here on. May be repeated. 409: it waits for somebody to look at it."""
    why = (body or Cancel()).reason
    await found.orders.cancel(order_id, owner=caller.owner, why=why)
    return OrderOut.whole(await found.orders.get(order_id, owner=caller.owner))
