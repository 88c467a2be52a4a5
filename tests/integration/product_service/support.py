"""What the tests of the product service talk to."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import asyncpg
import httpx
import pytest

from backend.product_service.app.core.dual_write_manager import ProductDualWriteManager
from backend.product_service.app.entities import NewProduct
from backend.shared import Phase
from backend.shared.testing.clusters import Databases

BOTH_AUTHORITIES = pytest.mark.parametrize(
    "phase", [Phase.DUALWRITE, Phase.RAMPDOWN], ids=["legacy-authoritative", "new-authoritative"]
)

_LEGACY_PRODUCTS = """
SELECT prod_no, stock_code, descr, price_cents, cat_no, qty_on_hand, is_disc, created, chg FROM prod ORDER BY 1"""
_NEW_PRODUCTS = """
SELECT p.id, p.sku, p.name, (p.price * 100)::int, p.category_id, s.quantity, CASE WHEN p.is_active THEN 0 ELSE 1 END,
       p.created_at AT TIME ZONE 'UTC', p.updated_at AT TIME ZONE 'UTC'
  FROM products AS p LEFT JOIN product_stock AS s ON s.product_id = p.id ORDER BY 1"""


@dataclass(frozen=True, kw_only=True)
class Shop:
    """A running product service with its two databases."""

    manager: ProductDualWriteManager
    databases: Databases

    async def legacy(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run SQL on the legacy side, as a foreign program would."""
        return await run_sql(self.databases.legacy_url, statement, *values)

    async def new(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run SQL on the new side, past the service."""
        return await run_sql(self.databases.new_url, statement, *values)

    async def authoritative(self, *, legacy: str, new: str) -> list[tuple[Any, ...]]:
        """Run SQL on the side that is authoritative."""
        on_legacy = self.manager.phase is Phase.DUALWRITE
        return await (self.legacy(legacy) if on_legacy else self.new(new))

    async def until_blocked(self, task: asyncio.Future[Any]) -> None:
        """Returns when somebody waits for a lock on the authoritative side, or when the task is done."""
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        async with asyncio.timeout(20):
            # No server tells that somebody waits, so it is asked again and again.
            while not task.done() and not (await self.authoritative(legacy=waiting, new=waiting))[0][0]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def carried(self) -> None:
        """Carry all that is waiting; nothing may fail, and both sides must then hold the same."""
        assert await self.manager.relay().drain(timeout_seconds=10)
        assert list(await self.manager.list_failures(limit=10)) == []
        assert await self.new(_NEW_PRODUCTS) == await self.legacy(_LEGACY_PRODUCTS)
        assert await self.new_paths() == await self.legacy_paths()

    async def legacy_paths(self) -> dict[int, str]:
        return dict(await self.legacy("SELECT cat_no, cat_path FROM cat"))

    async def new_paths(self) -> dict[int, str]:
        """Paths worked out from parents and names, not by the mapping under test."""
        rows = {row[0]: row for row in await self.new("SELECT id, parent_id, name FROM categories")}

        def path(category: int) -> str:
            _, parent, name = rows[category]
            return str(name) if parent is None else f"{path(parent)}/{name}"

        return {category: path(category) for category in rows}

    async def journal(self) -> set[tuple[str, str]]:
        """Entity and key of everything that waits to be carried."""
        rows = await self.authoritative(
            legacy="SELECT entity, key FROM tandem_product.journal",
            new="SELECT entity, key FROM tandem_product.journal",
        )
        return {(entity, key) for entity, key in rows}

    async def add_path(self, path: str) -> int:
        """Make all categories of a path that are not there yet; answers the id of the last."""
        parent: int | None = None
        known = {text: number for number, text in (await self.paths()).items()}
        for depth, name in enumerate(path.split("/"), start=1):
            above = "/".join(path.split("/")[:depth])
            if above in known:
                parent = known[above]
            else:
                parent = (await self.manager.create_category(name=name, parent_id=parent)).unwrap().id
        assert parent is not None
        return parent

    async def paths(self) -> dict[int, str]:
        """All paths on the authoritative side."""
        on_legacy = self.manager.phase is Phase.DUALWRITE
        return await (self.legacy_paths() if on_legacy else self.new_paths())

    async def add_product(self, sku: str, **values: Any) -> int:
        """Put a product on sale; answers its id."""
        defaults: dict[str, Any] = {"name": f"A {sku}", "price": Decimal("9.99")}
        new = NewProduct(sku=sku, **defaults | values)
        return (await self.manager.create_product(new)).unwrap().id


@dataclass(frozen=True, kw_only=True)
class Api:
    """The service over HTTP; `admin` calls with an admin's token, `anyone` without."""

    anyone: httpx.AsyncClient
    admin: httpx.AsyncClient
    user: httpx.AsyncClient
    service: httpx.AsyncClient
    shop: Shop


async def run_sql(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(statement, *values)]
    finally:
        await connection.close()


def assert_problem(response: httpx.Response, status: int) -> Mapping[str, Any]:
    """The response refuses with problem details of this status; answers them."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: Mapping[str, Any] = response.json()
    assert body["status"] == status
    return body
