"""The legacy tables and the generated shop."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from backend.legacy_shop import TABLES, LoadError, ShopSize, create_schema, load_generated
from backend.legacy_shop.bulk import COLUMNS
from backend.legacy_shop.generated_tables import EXAMPLE_PRODUCT, EXAMPLE_USER
from backend.legacy_shop.local_time import to_utc
from backend.shared.testing.clusters import Cluster
from tests.conftest import MakeDatabase, MakeTemplate

SMALL = ShopSize(products=300, categories=40, users=200, carts=400, lines=1_500, wishes=250)

LEFT_EMPTY = {"ord", "ord_lines"}
"""By the loaders: there are no orders in either history."""


@pytest.fixture(scope="session")
def template(legacy_cluster: Cluster, make_template: MakeTemplate) -> str:
    return make_template(legacy_cluster, "legacy_tables_empty", create_schema)


@pytest.fixture
async def url(legacy_cluster: Cluster, make_database: MakeDatabase, template: str) -> str:
    return await make_database(legacy_cluster, template=template)


async def fetch(url: str, query: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def contents(url: str) -> list[list[tuple[Any, ...]]]:
    return [await fetch(url, f"SELECT * FROM {table} ORDER BY 1") for table in TABLES]


async def test_the_schema_may_be_made_again(url: str) -> None:
    await load_generated(url, size=SMALL)
    before = await contents(url)
    await create_schema(url)
    assert await contents(url) == before


async def test_the_tables_have_the_columns_that_the_loaders_fill(url: str) -> None:
    found = await fetch(
        url,
        "SELECT table_name, array_agg(column_name::text ORDER BY ordinal_position)"
        " FROM information_schema.columns WHERE table_schema = 'public' GROUP BY 1",
    )
    assert {table: tuple(columns) for table, columns in found if table not in LEFT_EMPTY} == COLUMNS
    assert {table for table, _ in found} == COLUMNS.keys() | LEFT_EMPTY


async def test_a_customer_has_one_open_cart(url: str) -> None:
    statement = "INSERT INTO carts (cust, state, opened) VALUES ('a', '{}', '2024-01-01 00:00:00')"
    for state in ("O", "C", "C", "X"):
        await fetch(url, statement.format(state))
    with pytest.raises(asyncpg.UniqueViolationError):
        await fetch(url, statement.format("O"))


async def test_a_shop_has_the_size_that_was_asked_for(url: str) -> None:
    report = await load_generated(url, size=SMALL)
    assert report.rows == {
        "users": 200,
        "cat": 40,
        "prod": 300,
        "carts": 400,
        "cart_lines": 1_500,
        "wish": 250,
    }
    assert report.lines_read == report.lines_loaded == 1_500


@pytest.mark.parametrize("lines", [1, 48, 2_000])
async def test_a_number_asks_for_so_many_lines(url: str, lines: int) -> None:
    assert (await load_generated(url, size=lines)).rows["cart_lines"] == lines


async def test_an_empty_shop_can_be_had(url: str) -> None:
    report = await load_generated(
        url, size=ShopSize(products=0, categories=0, users=0, carts=0, lines=0, wishes=0)
    )
    assert report.rows_loaded == 0


async def test_few_carts_take_all_lines(url: str) -> None:
    report = await load_generated(
        url, size=ShopSize(products=3, categories=0, users=5, carts=12, lines=500, wishes=15)
    )
    assert report.rows["cart_lines"] == 500


async def test_the_same_seed_makes_the_same_shop(
    legacy_cluster: Cluster, make_database: MakeDatabase, template: str
) -> None:
    urls = [await make_database(legacy_cluster, template=template) for _ in range(3)]
    for url, seed in zip(urls, (7, 7, 8), strict=True):
        await load_generated(url, seed=seed, size=SMALL)
    first, second, other = [await contents(url) for url in urls]
    assert first == second
    assert all(one != two for one, two in zip(first, other, strict=True))


async def test_the_default_shop_has_every_kind_of_dirt_and_the_example_rows(url: str) -> None:
    report = await load_generated(url)
    assert [kind for kind, count in report.dirt.items() if not count] == []
    assert await fetch(url, f"SELECT is_active FROM users WHERE usr_id = '{EXAMPLE_USER}'") == [(1,)]
    assert await fetch(url, f"SELECT count(*) FROM carts WHERE cust = '{EXAMPLE_USER}' AND state = 'O'") == [
        (0,)
    ]
    product = (
        f"SELECT price_cents > 0, qty_on_hand > 1000, is_disc FROM prod WHERE prod_no = {EXAMPLE_PRODUCT}"
    )
    assert await fetch(url, product) == [(True, True, 0)]


async def test_open_carts_hold_what_a_service_would_have_put_there(url: str) -> None:
    await load_generated(url, size=SMALL)
    wrong = await fetch(
        url,
        "SELECT line_no FROM cart_lines JOIN carts USING (cart_no) LEFT JOIN prod USING (prod_no)"
        " WHERE state = 'O' AND (qty NOT BETWEEN 1 AND 10000 OR unit_cents < 0 OR stock_code IS NULL)",
    )
    twice = await fetch(
        url,
        "SELECT cart_no FROM cart_lines JOIN carts USING (cart_no) WHERE state = 'O'"
        " GROUP BY cart_no, prod_no HAVING count(*) > 1",
    )
    assert (wrong, twice) == ([], [])


async def test_every_category_has_its_parent(url: str) -> None:
    await load_generated(url, size=SMALL)
    orphans = await fetch(
        url,
        "SELECT cat_path FROM cat c WHERE cat_path LIKE '%/%' AND NOT EXISTS"
        " (SELECT FROM cat p WHERE p.cat_path = regexp_replace(c.cat_path, '/[^/]+$', '') AND p.cat_no < c.cat_no)",
    )
    depth = "SELECT max(cardinality(string_to_array(cat_path, '/'))) FROM cat"
    assert (orphans, await fetch(url, depth)) == ([], [(4,)])


async def test_the_next_product_takes_no_number_of_one_that_is_gone(url: str) -> None:
    await load_generated(url, size=SMALL)
    (number,) = (
        await fetch(
            url,
            "INSERT INTO prod (stock_code, price_cents, created) VALUES ('new', 1, now()) RETURNING prod_no",
        )
    )[0]
    assert number > (await fetch(url, "SELECT max(prod_no) FROM cart_lines"))[0][0]


async def test_local_times_survive_the_way_to_utc_and_back_and_mean_what_the_server_says(url: str) -> None:
    await load_generated(url, size=SMALL)
    rows = await fetch(
        url,
        "SELECT opened::timestamp, opened::timestamp AT TIME ZONE 'Europe/London' AT TIME ZONE 'UTC',"
        " to_char(opened::timestamp AT TIME ZONE 'Europe/London' AT TIME ZONE 'Europe/London',"
        " 'YYYY-MM-DD HH24:MI:SS') = opened FROM carts",
    )
    assert all(same for _, _, same in rows)
    assert [to_utc(local) for local, _, _ in rows] == [utc for _, utc, _ in rows]


async def test_a_doubled_and_a_skipped_hour_mean_what_the_server_says(url: str) -> None:
    rows = await fetch(
        url,
        "SELECT t, t AT TIME ZONE 'Europe/London' AT TIME ZONE 'UTC'"
        " FROM unnest('{2011-10-30 00:59:59, 2011-10-30 01:30:00, 2011-03-27 01:30:00}'::timestamp[]) t",
    )
    assert [to_utc(local) for local, _ in rows] == [utc for _, utc in rows]


async def test_a_shop_that_holds_rows_is_not_filled_again(url: str) -> None:
    await load_generated(url, size=SMALL)
    before = await contents(url)
    with pytest.raises(LoadError, match="holds rows already"):
        await load_generated(url, size=SMALL)
    assert await contents(url) == before


async def test_a_driver_in_the_address_does_no_harm(url: str) -> None:
    await create_schema(url.replace("postgresql://", "postgresql+asyncpg://"))
