"""The product service as the cart's catalog, over HTTP."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Annotated

import httpx
import structlog
from pydantic import BaseModel, Field, ValidationError

from backend.shared.observability.context import current_request_id
from backend.shared.observability.middleware import REQUEST_ID_HEADER

from .call_breaker import CallBreaker, CallRefusedError
from .catalog import CatalogProduct, CatalogUnavailableError

DEFAULT_TIMEOUT_SECONDS = 2.0
MAX_CONNECTIONS = 50
_UNAVAILABLE = "the product service does not answer now"

log = structlog.get_logger(__name__)


class _Product(BaseModel):
    id: int
    price: Annotated[Decimal, Field(max_digits=12, decimal_places=2)]
    is_active: bool


class _Products(BaseModel):
    """The answer of `GET /products/by-ids`, which also tells of products that are not sold any more."""

    items: list[_Product]


class HttpProductCatalog:
    """Asks the product service at `base_url`. Connects to nothing before the first call; whoever makes it closes it.

    A call waits no longer than `timeout_seconds` for a connection and for an answer, and no longer than twice that in all.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        breaker: CallBreaker | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.breaker = breaker or CallBreaker("product")
        self._deadline_seconds = 2 * timeout_seconds
        self._client = httpx.AsyncClient(
            base_url=base_url,
            timeout=timeout_seconds,
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS),
            transport=transport,
            trust_env=False,
        )

    async def find(self, product_id: int) -> CatalogProduct | None:
        """The product, or None if there is none. Raises CatalogUnavailableError."""
        try:
            with self.breaker.call(CatalogUnavailableError):
                products = await self._ask(product_id)
        except CallRefusedError as error:
            raise CatalogUnavailableError(_UNAVAILABLE) from error
        for item in products.items:
            if item.id == product_id:
                return CatalogProduct(id=item.id, price=round(item.price, 2), is_active=item.is_active)
        return None

    async def probe(self) -> None:
        """For `/readyz`: raises when the last calls failed. Makes none itself."""
        if self.breaker.is_open:
            raise CatalogUnavailableError(_UNAVAILABLE)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _ask(self, product_id: int) -> _Products:
        try:
            async with asyncio.timeout(self._deadline_seconds):
                response = await self._get(product_id)
            response.raise_for_status()
            return _Products.model_validate_json(response.content)
        except (httpx.HTTPError, TimeoutError, ValidationError) as error:
            status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
            log.warning("product_not_told", error_type=type(error).__name__, status=status)
            raise CatalogUnavailableError(_UNAVAILABLE) from error

    async def _get(self, product_id: int) -> httpx.Response:
        request_id = current_request_id()
        headers = {REQUEST_ID_HEADER: request_id} if request_id else {}
        params = {"ids": str(product_id)}
        try:
            return await self._client.get("/products/by-ids", params=params, headers=headers)
        except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
            # A connection that was kept open may have been closed at the other end in the meantime. Asking is harmless.
            return await self._client.get("/products/by-ids", params=params, headers=headers)
