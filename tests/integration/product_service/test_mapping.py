"""The mapping loses nothing, in either direction, dirt included."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Table, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from backend.product_service.app.category_tree import CategoryRow, CategoryTree
from backend.product_service.app.legacy import CATEGORY, PRODUCT
from backend.product_service.app.legacy_tables import cat, prod
from backend.product_service.app.models import categories, product_stock, products
from backend.shared import Projection
from backend.shared.database import create_side_engine
from backend.shared.testing.clusters import Databases

Rows = list[dict[str, Any]]

THOROUGH = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
INT4 = st.integers(-(2**31), 2**31 - 1)
# What PostgreSQL's text can hold.
TEXT = st.characters(exclude_characters="\x00", exclude_categories=["Cs"])
# A small alphabet, so that paths often are each other's parents, orphans and near misses.
PATHS = st.text(st.sampled_from("ab%_\\ é") | st.just("/"), max_size=9)
NAMES = st.text(st.sampled_from("ab%_ é") | TEXT.filter(lambda letter: letter != "/"), min_size=1, max_size=8)
# The driver reads the very first and the very last moment as the infinities.
TIMES = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))  # noqa: DTZ001 - legacy keeps UTC without a zone


@pytest.fixture
async def legacy(databases: Databases) -> AsyncIterator[AsyncEngine]:
    engine = create_side_engine(databases.legacy_url, application_name="test")
    yield engine
    await engine.dispose()


@pytest.fixture
async def new(databases: Databases) -> AsyncIterator[AsyncEngine]:
    engine = create_side_engine(databases.new_url, application_name="test")
    yield engine
    await engine.dispose()


async def fill(connection: AsyncConnection, table: Table, rows: Rows) -> None:
    if rows:
        await connection.execute(text("SET CONSTRAINTS ALL DEFERRED"))
        await connection.execute(insert(table), rows)


async def read(connection: AsyncConnection, query: Any) -> Rows:
    return [dict(row) for row in (await connection.execute(query)).mappings()]


async def copy(source: AsyncConnection, target: AsyncConnection, projections: Sequence[Projection]) -> None:
    """As a carry of everything does it."""
    for projection in projections:
        rows = await read(source, projection.query)
        await fill(target, projection.table, rows)


@st.composite
def legacy_products(draw: st.DrawFn) -> Rows:
    codes = draw(st.lists(st.text(TEXT, max_size=20), unique=True, max_size=5))
    return [
        {
            "prod_no": number,
            "stock_code": code,
            "descr": draw(st.none() | st.text(TEXT, max_size=200)),
            "price_cents": draw(INT4),
            "cat_no": None,
            "qty_on_hand": draw(INT4),
            "is_disc": draw(st.sampled_from((0, 1))),
            "created": draw(TIMES),
            "chg": draw(st.none() | TIMES),
        }
        for number, code in enumerate(codes, start=1)
    ]


@THOROUGH
@given(paths=st.lists(PATHS, unique=True, max_size=12))
async def test_paths_come_back_whatever_they_are(
    legacy: AsyncEngine, new: AsyncEngine, paths: list[str]
) -> None:
    rows = [{"cat_no": number, "cat_path": path} for number, path in enumerate(paths, start=1)]
    async with legacy.connect() as old, new.connect() as ours:
        await fill(old, cat, rows)
        await copy(old, ours, CATEGORY.to_new)
        assert await read(ours, select(CATEGORY.to_legacy[0].query.subquery()).order_by("cat_no")) == rows
        (await ours.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))).close()


@THOROUGH
@given(rows=legacy_products())
async def test_products_come_back_whatever_they_are(
    legacy: AsyncEngine, new: AsyncEngine, rows: Rows
) -> None:
    async with legacy.connect() as old, new.connect() as ours:
        await fill(old, prod, rows)
        await copy(old, ours, PRODUCT.to_new)
        assert await read(ours, select(PRODUCT.to_legacy[0].query.subquery()).order_by("prod_no")) == rows


@st.composite
def trees(draw: st.DrawFn) -> Rows:
    """Trees as the API makes them: whoever has a parent came after it."""
    rows: Rows = []
    for number, name in enumerate(draw(st.lists(NAMES, max_size=10)), start=1):
        parent = draw(st.none() | st.sampled_from([row["id"] for row in rows])) if rows else None
        if all((row["parent_id"], row["name"]) != (parent, name) for row in rows):
            rows.append({"id": number, "parent_id": parent, "name": name})
    return rows


@THOROUGH
@given(rows=trees())
async def test_trees_come_back(legacy: AsyncEngine, new: AsyncEngine, rows: Rows) -> None:
    tree = CategoryTree(CategoryRow(**row) for row in rows)
    async with legacy.connect() as old, new.connect() as ours:
        await fill(ours, categories, rows)
        await copy(ours, old, CATEGORY.to_legacy)
        kept = {row["cat_no"]: row["cat_path"] for row in await read(old, select(cat))}
        assert kept == {row["id"]: tree.path(row["id"]) for row in rows}
        assert await read(old, select(CATEGORY.to_new[0].query.subquery()).order_by("id")) == rows


@THOROUGH
@given(
    sku=st.text(TEXT, min_size=1, max_size=20),
    name=st.none() | st.text(TEXT, max_size=200),
    price=st.decimals(0, Decimal("9999999.99"), places=2),
    quantity=st.integers(0, 1_000_000_000),
    is_active=st.booleans(),
    created_at=TIMES.map(lambda time: time.replace(tzinfo=UTC)),
    updated_at=st.none() | TIMES.map(lambda time: time.replace(tzinfo=UTC)),
)
async def test_what_the_api_makes_comes_back(
    legacy: AsyncEngine, new: AsyncEngine, quantity: int, **values: Any
) -> None:
    row = {"id": 7, "category_id": None} | values
    async with legacy.connect() as old, new.connect() as ours:
        await fill(ours, products, [row])
        await fill(ours, product_stock, [{"product_id": 7, "quantity": quantity}])
        await copy(ours, old, PRODUCT.to_legacy)
        product, stock = [await read(old, projection.query) for projection in PRODUCT.to_new]
    assert product == [row]
    assert stock == [{"product_id": 7, "quantity": quantity}]


async def test_a_circle_has_no_path(new: AsyncEngine) -> None:
    async with new.connect() as ours:
        circle = [{"id": 1, "parent_id": 2, "name": "a"}, {"id": 2, "parent_id": 1, "name": "b"}]
        await fill(ours, categories, [*circle, {"id": 3, "parent_id": None, "name": "c"}])
        paths = {row["cat_no"]: row["cat_path"] for row in await read(ours, CATEGORY.to_legacy[0].query)}
    assert paths == {1: None, 2: None, 3: "c"}


async def test_what_legacy_cannot_hold_is_refused_and_not_cut_off(new: AsyncEngine) -> None:
    """A cast to the legacy column's type would shorten a text without a word."""
    async with new.connect() as ours:
        row = {"id": 1, "sku": "x" * 21, "price": Decimal("1.00"), "created_at": datetime.now(UTC)}
        await fill(ours, products, [row])
        (mapped,) = await read(ours, PRODUCT.to_legacy[0].query)
    assert mapped["stock_code"] == "x" * 21
    assert mapped["qty_on_hand"] == 0


async def test_a_category_whose_parent_is_missing_finds_it_later(legacy: AsyncEngine) -> None:
    async with legacy.connect() as old:
        await fill(old, cat, [{"cat_no": 1, "cat_path": "A/b"}, {"cat_no": 2, "cat_path": "A/b/c"}])
        shape = CATEGORY.to_new[0].query
        assert await read(old, select(shape.subquery()).order_by("id")) == [
            {"id": 1, "parent_id": None, "name": "A/b"},
            {"id": 2, "parent_id": 1, "name": "c"},
        ]
        await fill(old, cat, [{"cat_no": 3, "cat_path": "A"}])
        assert (await read(old, select(shape.subquery()).order_by("id")))[0] == {
            "id": 1,
            "parent_id": 3,
            "name": "b",
        }
