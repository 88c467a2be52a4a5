"""The product service as the cart's catalog, over HTTP."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

import httpx
from pydantic import BaseModel, Field

from backend.shared.call_breaker import CallBreaker
from backend.shared.service_client import DEFAULT_TIMEOUT_SECONDS, ServiceAwayError, ServiceClient

from .catalog import CatalogProduct, CatalogUnavailableError


class _Product(BaseModel):
    id: int
    price: Annotated[Decimal, Field(max_digits=12, decimal_places=2)]
    is_active: bool


class _Products(BaseModel):
    """The answer of `GET /products/by-ids`, which also tells of products that are not sold any more."""

    items: list[_Product]


class HttpProductCatalog:
    """Asks the product service at `base_url`. Connects to nothing before the first call; whoever makes it closes it."""

    def __init__(
        self,
        base_url: str,
        *,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        breaker: CallBreaker | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._client = ServiceClient(
            "product", base_url, timeout_seconds=timeout_seconds, breaker=breaker, transport=transport
        )
        self.breaker = self._client.breaker

    async def find(self, product_id: int) -> CatalogProduct | None:
        """The product, or None if there is none. Raises CatalogUnavailableError."""
        try:
            products = await self._client.get("/products/by-ids", _read, params={"ids": str(product_id)})
        except ServiceAwayError as error:
            raise CatalogUnavailableError(str(error)) from error
        for item in products.items:
            if item.id == product_id:
                return CatalogProduct(id=item.id, price=round(item.price, 2), is_active=item.is_active)
        return None

    async def probe(self) -> None:
        """For `/readyz`: raises when the last calls failed. Makes none itself."""
        try:
            await self._client.probe()
        except ServiceAwayError as error:
            raise CatalogUnavailableError(str(error)) from error

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()


def _read(response: httpx.Response) -> _Products:
    response.raise_for_status()
    return _Products.model_validate_json(response.content)
