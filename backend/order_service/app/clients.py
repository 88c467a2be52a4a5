"""The other services, as orders need them: the cart that is ordered, and who and what an order is about. Ports, and HTTP behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Protocol

import httpx
from pydantic import BaseModel, Field, TypeAdapter

from backend.shared import AwayError, ConflictError, PermissionDeniedError
from backend.shared.service_client import ServiceClient

from .entities import CartToOrder, OrderLine

_MOST_PRODUCTS = 200
"""As many as the product service tells of at once."""


class Carts(Protocol):
    """Where the cart that is ordered is found."""

    async def open_cart(self, token: str) -> CartToOrder:
        """The open cart of the caller. Raises ConflictError if there is none, and AwayError if nobody can tell."""
        ...


class Products(Protocol):
    """Where it is told what products are now."""

    async def by_ids(self, ids: Sequence[int]) -> Mapping[int, Mapping[str, Any]]:
        """Those of `ids` that exist, by id. Raises AwayError."""
        ...


class Customers(Protocol):
    """Where it is told who has ordered."""

    async def find(self, user_id: str, *, token: str, is_own: bool) -> Mapping[str, Any]:
        """What an account says: the caller's own, or another's, if she may see it. Raises AwayError."""
        ...


class _Line(BaseModel):
    product_id: int
    quantity: int
    unit_price: Annotated[Decimal, Field(max_digits=12, decimal_places=2)]


class _Cart(BaseModel):
    id: int
    user_id: str
    items: list[_Line]


class _Products(BaseModel):
    items: list[dict[str, Any]]


_ACCOUNT = TypeAdapter(dict[str, Any])


class HttpCarts:
    """Asks the cart service, on behalf of the caller."""

    def __init__(self, client: ServiceClient) -> None:
        self.client = client

    async def open_cart(self, token: str) -> CartToOrder:
        """Her open cart."""
        return await self.client.get("/carts/current", _read_cart, token=token)


class HttpProducts:
    """Asks the product service."""

    def __init__(self, client: ServiceClient) -> None:
        self.client = client

    async def by_ids(self, ids: Sequence[int]) -> Mapping[int, Mapping[str, Any]]:
        """What they are now."""
        found: dict[int, Mapping[str, Any]] = {}
        for start in range(0, len(ids), _MOST_PRODUCTS):
            some = ",".join(str(number) for number in ids[start : start + _MOST_PRODUCTS])
            products = await self.client.get("/products/by-ids", _read_products, params={"ids": some})
            found |= {int(item["id"]): item for item in products.items}
        return found


class HttpCustomers:
    """Asks the auth service, on behalf of the caller."""

    def __init__(self, client: ServiceClient) -> None:
        self.client = client

    async def find(self, user_id: str, *, token: str, is_own: bool) -> Mapping[str, Any]:
        """Her account."""
        path = "/users/me" if is_own else f"/users/{user_id}"
        return await self.client.get(path, _read_customer, token=token)


def _read_cart(response: httpx.Response) -> CartToOrder:
    if response.status_code == httpx.codes.NOT_FOUND:
        raise ConflictError("there is nothing in the cart")
    if response.status_code == httpx.codes.FORBIDDEN:
        # It may know of a change that this token is too old for. No fault of its own.
        raise PermissionDeniedError("the cart service does not let this account order")
    response.raise_for_status()
    cart = _Cart.model_validate_json(response.content)
    return CartToOrder(
        id=cart.id,
        user_id=cart.user_id,
        lines=tuple(
            OrderLine(
                product_id=line.product_id, quantity=line.quantity, unit_price=round(line.unit_price, 2)
            )
            for line in cart.items
        ),
    )


def _read_products(response: httpx.Response) -> _Products:
    response.raise_for_status()
    return _Products.model_validate_json(response.content)


def _read_customer(response: httpx.Response) -> Mapping[str, Any]:
    if response.is_client_error:
        # There is no such account, or it is not for the caller to see: nothing against the service.
        raise AwayError("the auth service tells nothing of this customer")
    response.raise_for_status()
    return _ACCOUNT.validate_json(response.content)
