"""The shop at work: customers and staff over HTTP, so many at a time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence

from .crew import Crew
from .customers import Customer
from .errors import StepError
from .ledger import Ledger
from .shop import Shop
from .staff import Credentials, StaffMember
from .worker import Market, Worker

CUSTOMERS = 12
STAFF = 2
PRODUCTS = 400
_PAGE = 100


class Traffic(Crew):
    """Customers and staff."""

    def __init__(
        self, shop: Shop, ledger: Ledger, *, seed: int, credentials: Credentials, customers: int = CUSTOMERS
    ) -> None:
        super().__init__(Market(shop=shop, ledger=ledger, stop=asyncio.Event()))
        self._seed = seed
        self._credentials = credentials
        self._customers = customers

    async def workers(self) -> Sequence[Worker]:
        """Everybody, when it is known what is for sale."""
        self.market.products = await self._products()
        products = list(self.market.products)
        staff = min(STAFF, len(products))
        return [
            *(Customer(self.market, rng=self._rng(f"customer {n}")) for n in range(self._customers)),
            *(
                StaffMember(
                    self.market,
                    rng=self._rng(f"staff {n}"),
                    credentials=self._credentials,
                    share=products[n::staff],
                )
                for n in range(staff)
            ),
        ]

    def _rng(self, name: str) -> random.Random:
        return random.Random(f"{self._seed} {name}")

    async def _products(self) -> list[int]:
        found: list[int] = []
        query: Mapping[str, str | int] = {"active": "true", "limit": _PAGE}
        while len(found) < PRODUCTS:
            answer = await self.market.shop.call("GET", "product", "/products", query=query)
            if not answer.ok:
                raise StepError(
                    f"the products cannot be listed: the product service answered {answer.status}"
                )
            found += [item["id"] for item in answer.body["items"]]
            if not answer.body["next_cursor"]:
                break
            query = {**query, "cursor": answer.body["next_cursor"]}
        if not found:
            raise StepError("there is nothing for sale in this shop")
        return found
