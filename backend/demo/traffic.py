"""The shop at work: customers and staff over HTTP, so many at a time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from types import TracebackType
from typing import Self

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


class Traffic:
    """Workers from `start` to `stop`; each sends one request at a time."""

    def __init__(
        self, shop: Shop, ledger: Ledger, *, seed: int, credentials: Credentials, customers: int = CUSTOMERS
    ) -> None:
        self.market = Market(shop=shop, ledger=ledger, stop=asyncio.Event(), products=())
        self._seed = seed
        self._credentials = credentials
        self._customers = customers
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Look up what is for sale, and let everybody in."""
        self.market.products = await self._products()
        self._tasks = [asyncio.create_task(worker.run()) for worker in self._workers()]

    def check(self) -> None:
        """Raises what a worker failed with, if one did."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()

    async def hold(self) -> None:
        """Let everybody finish what she is about, and wait until `go_on`."""
        await self.market.turnstile.close()

    def go_on(self) -> None:
        """Let everybody act again."""
        self.market.turnstile.open()

    async def stop(self) -> None:
        """Let everybody finish what she is about; raises what a worker failed with."""
        self.market.stop.set()
        self.go_on()
        await asyncio.gather(*self._tasks)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _workers(self) -> list[Worker]:
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
