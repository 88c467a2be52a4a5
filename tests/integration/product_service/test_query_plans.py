"""What the service asks reaches the indexes, on legacy through the shape of the new tables too."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Select
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from backend.product_service.app.core.dual_write_manager import ProductDualWriteManager
from backend.product_service.app.entities import ProductFilter, ProductSort
from backend.product_service.app.legacy import CATEGORY, PRODUCT
from backend.product_service.app.repositories import CategoryRepository, ProductRepository
from backend.shared import Direction, Side, UnitOfWork
from backend.shared.database import create_side_engine
from backend.shared.stores.postgres.store import entity_sql
from backend.shared.testing.clusters import Databases

CATALOG = ProductDualWriteManager.catalog()
SIDES = pytest.mark.parametrize("side", list(Side))
ROWS = {
    Side.LEGACY: (
        "INSERT INTO cat (cat_path) SELECT 'top ' || n FROM generate_series(1, 200) AS n",
        "INSERT INTO cat (cat_path) SELECT cat_path || '/below ' || n FROM cat, generate_series(1, 20) AS n",
        """INSERT INTO prod (stock_code, descr, price_cents, cat_no, created)
           SELECT n, 'thing ' || n % 500, n, 1 + n % 4000, now() FROM generate_series(1, 20000) AS n""",
        "ANALYZE cat, prod",
    ),
    Side.NEW: (
        "INSERT INTO categories (name) SELECT 'top ' || n FROM generate_series(1, 200) AS n",
        "INSERT INTO categories (parent_id, name) SELECT id, 'below ' || n FROM categories, generate_series(1, 20) AS n",
        """INSERT INTO products (sku, name, price, category_id, is_active, created_at)
           SELECT n, 'thing ' || n % 500, n, 1 + n % 4000, true, now() FROM generate_series(1, 20000) AS n""",
        "INSERT INTO product_stock SELECT id, 1 FROM products",
        "ANALYZE categories, products, product_stock",
    ),
}


class ExplainingUnit(UnitOfWork):
    """Asks the server for the plan of each query, and answers with no rows."""

    def __init__(self, connection: AsyncConnection, side: Side) -> None:
        super().__init__(AsyncSession(connection), side=side, catalog=CATALOG, request_id="")
        self._connection = connection
        self.nodes: list[dict[str, Any]] = []

    async def rows(self, query: Select[Any]) -> list[dict[str, Any]]:
        compiled = query.compile(
            dialect=postgresql.dialect(),  # type: ignore[no-untyped-call]
            compile_kwargs={"literal_binds": True},
        )
        self.nodes += await plan_of(self._connection, str(compiled))
        return []

    @property
    def kinds(self) -> set[str]:
        return {node["Node Type"] for node in self.nodes}


async def plan_of(connection: AsyncConnection, statement: str) -> list[dict[str, Any]]:
    """All nodes of a statement's plan."""
    found = (await connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}")).scalar_one()
    waiting = [(json.loads(found) if isinstance(found, str) else found)[0]["Plan"]]
    nodes = []
    while waiting:
        nodes.append(waiting.pop())
        waiting += nodes[-1].get("Plans", [])
    return nodes


@pytest.fixture
async def unit(databases: Databases, side: Side) -> AsyncIterator[ExplainingUnit]:
    url = databases.legacy_url if side is Side.LEGACY else databases.new_url
    engine = create_side_engine(url, application_name="test")
    async with engine.connect() as connection:
        for statement in ROWS[side]:
            await connection.exec_driver_sql(statement)
        yield ExplainingUnit(connection, side)
    await engine.dispose()


LOOKUPS: dict[str, Callable[[UnitOfWork], Awaitable[object]]] = {
    "a product": lambda unit: ProductRepository(unit).get(77),
    "several products": lambda unit: ProductRepository(unit).get_many([1, 77, 20_000]),
    "a SKU": lambda unit: ProductRepository(unit).id_of_sku("77"),
    "a category": lambda unit: CategoryRepository(unit).exists(300),
    "the next page by id": lambda unit: ProductRepository(unit).search(
        ProductFilter(), sort=ProductSort.ID, after=(500,), limit=51
    ),
}


@SIDES
async def test_lookups_read_no_whole_table(unit: ExplainingUnit, side: Side) -> None:
    for name, look_up in LOOKUPS.items():
        unit.nodes.clear()
        await look_up(unit)
        assert unit.nodes
        assert not {"Seq Scan", "Sort", "Hash Join"} & unit.kinds, (name, unit.nodes)


@pytest.mark.parametrize("side", [Side.NEW])
async def test_new_pages_are_read_in_order(unit: ExplainingUnit, side: Side) -> None:
    """Legacy has no index by price or by name, so that there all rows are sorted."""
    pages = {
        ProductSort.PRICE: (Decimal(17), 3),
        ProductSort.PRICE_DESCENDING: (Decimal(17), 3),
        ProductSort.NAME: ("thing 3", 7),
        ProductSort.NAME_DESCENDING: ("thing 3", 7),
        ProductSort.ID_DESCENDING: (17_000,),
    }
    for sort, after in pages.items():
        for start in (None, after):
            unit.nodes.clear()
            await ProductRepository(unit).search(ProductFilter(), sort=sort, after=start, limit=51)
            assert not {"Seq Scan", "Sort"} & unit.kinds, (sort, unit.nodes)


@SIDES
async def test_products_of_a_branch_are_found_by_category(unit: ExplainingUnit, side: Side) -> None:
    await ProductRepository(unit).any_in_category(12)
    assert "Seq Scan" not in unit.kinds
    unit.nodes.clear()
    wanted = ProductFilter(category_id=12)
    await ProductRepository(unit).search(wanted, sort=ProductSort.ID, after=None, limit=51)
    read_whole = {node["Relation Name"] for node in unit.nodes if node["Node Type"] == "Seq Scan"}
    assert read_whole <= {"cat", "categories"}


@SIDES
async def test_state_is_read_by_key(unit: ExplainingUnit, side: Side) -> None:
    """What the relay asks for."""
    connection = await unit.session.connection()
    for entity in (CATEGORY, PRODUCT):
        statement = entity_sql(entity, Direction.towards(side.other)).read_state
        plan = await plan_of(connection, statement.replace("$1", "'{[5],[6]}'"))
        assert "Seq Scan" not in {node["Node Type"] for node in plan}, (entity.name, plan)
