"""The Online Retail loader, on a file that has each kind of dirt and on files that will not do."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from backend.legacy_shop import TABLES, LoadError, create_schema, load_retail
from backend.shared.testing.clusters import Cluster
from tests.conftest import MakeDatabase, MakeTemplate

HEADER = (
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "UnitPrice",
    "CustomerID",
    "Country",
)
UK = "United Kingdom"
TOO_MANY = str(2**31)

LINES: list[tuple[str, ...]] = [
    ("1001", "85123A", "RED  MUG ", "6", "2011-01-10 08:26:00", "2.55", "17850.0", UK),
    ("1001", "85123A", "RED  MUG ", "6", "2011-01-10 08:26:00", "2.55", "17850.0", UK),
    ("1001", "85123a", "RED  MUG", "2", "2011-01-10 08:27:00", "2.65", "17850.0", UK),
    ("1002", "22001", "damaged", "-3", "2011-07-10 09:00:00", "0.0", "", UK),
    ("1002", "22001", "GIFT VOUCHER £20", "1", "2011-07-10 09:00:00", "20.0", "", "Unspecified"),
    ("1001", "22002", "", "1", "2011-01-10 08:26:00", "0", "17850", "France"),
    ("C1003", "85123A", "RED  MUG", "-6", "2011-01-12 10:00:00", "2.55", "17850.0", UK),
    ("A1004", "B", "Adjust bad debt", "1", "2011-08-12 14:50:00", "-11062.06", "", UK),
    ("1005", "PADS", "PADS", "20000", "2011-03-27 01:30:00", "0.001", "13952.0", "Unspecified"),
    (" 1006", "85123A ", "MUG, RED", "0", "2011-10-30 01:30:00", "3.10", "13952.0", "Unspecified"),
    ("1006", "22003", "thrown away", "1", "2011-10-30 01:31:00", "0", "17850.0", "France"),
    ("", "22001", "X", "1", "2011-01-10 08:26:00", "1", "", UK),
    ("1007", " ", "X", "1", "2011-01-10 08:26:00", "1", "", UK),
    ("1007", "2" * 21, "X", "1", "2011-01-10 08:26:00", "1", "", UK),
    ("1007", "22001", "X", TOO_MANY, "2011-01-10 08:26:00", "1", "", UK),
    ("1007", "22001", "X", "1", "2011-01-10 08:26:00", "21474836.48", "", UK),
]
DIRT = {
    "lines_without_customer": 3,
    "lines_losing_country": 2,
    "lines_customer_as_fraction": 7,
    "lines_of_another_customer": 1,
    "lines_cancellation": 1,
    "lines_adjustment": 1,
    "lines_negative_quantity": 2,
    "lines_negative_quantity_not_cancelled": 1,
    "lines_zero_quantity": 1,
    "lines_quantity_over_10000": 1,
    "lines_zero_price": 3,
    "lines_negative_price": 1,
    "lines_price_over_1000": 1,
    "lines_sub_cent_price": 1,
    "lines_without_description": 1,
    "lines_padded_description": 2,
    "lines_double_space_description": 4,
    "lines_non_ascii_description": 1,
    "lines_other_description": 2,
    "lines_padded_field": 1,
    "lines_repeated_code": 2,
    "lines_duplicate": 1,
    "lines_skipped_hour": 1,
    "lines_doubled_hour": 2,
    "lines_blank": 1,
    "invoices_cancelled": 1,
    "invoices_several_times": 2,
    "invoices_interrupted": 1,
    "customers_several_countries": 1,
    "customers_without_country": 1,
    "codes_several_descriptions": 2,
    "codes_without_description": 1,
    "codes_described_by_note": 3,
    "codes_shared_description": 2,
    "codes_text_cut": 0,
    "codes_several_prices": 1,
    "codes_never_priced": 4,
    "codes_case_twins": 2,
    "codes_bookkeeping": 1,
}


@pytest.fixture(scope="session")
def template(legacy_cluster: Cluster, make_template: MakeTemplate) -> str:
    return make_template(legacy_cluster, "legacy_tables_empty", create_schema)


@pytest.fixture
async def url(legacy_cluster: Cluster, make_database: MakeDatabase, template: str) -> str:
    return await make_database(legacy_cluster, template=template)


@pytest.fixture
def dirty_file(tmp_path: Path) -> Path:
    path = tmp_path / "retail.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(HEADER)
        rows.writerows(LINES)
        file.write("\r\n")
    return path


async def fetch(url: str, query: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def test_every_kind_of_dirt_is_counted_and_no_line_vanishes(url: str, dirty_file: Path) -> None:
    report = await load_retail(url, dirty_file)

    assert report.dirt == DIRT
    assert report.rejected == {
        "no_invoice": 1,
        "no_stock_code": 1,
        "key_too_long": 1,
        "quantity_out_of_range": 1,
        "price_out_of_range": 1,
    }
    assert (report.lines_read, report.lines_loaded, report.lines_rejected) == (16, 11, 5)
    counted = {table: (await fetch(url, f"SELECT count(*) FROM {table}"))[0][0] for table in TABLES}
    assert (
        counted == report.rows == {"users": 2, "cat": 9, "prod": 7, "carts": 6, "cart_lines": 11, "wish": 0}
    )


async def test_invoices_become_carts_and_each_line_a_line(url: str, dirty_file: Path) -> None:
    await load_retail(url, dirty_file)

    carts = await fetch(url, "SELECT ext_ref, cust, state, opened, chg::text FROM carts ORDER BY cart_no")
    assert carts == [
        ("1001", "17850", "C", "2011-01-10 08:26:00", "2011-01-10 08:27:00"),
        ("1002", None, "C", "2011-07-10 09:00:00", "2011-07-10 08:00:00"),
        ("C1003", "17850", "X", "2011-01-12 10:00:00", "2011-01-12 10:00:00"),
        ("A1004", None, "X", "2011-08-12 14:50:00", "2011-08-12 13:50:00"),
        ("1005", "13952", "C", "2011-03-27 02:30:00", "2011-03-27 01:30:00"),
        ("1006", "13952", "C", "2011-10-30 01:30:00", "2011-10-30 01:31:00"),
    ]
    lines = await fetch(
        url,
        "SELECT ext_ref, stock_code, qty, unit_cents, l.added::text FROM cart_lines l"
        " JOIN carts USING (cart_no) JOIN prod USING (prod_no) ORDER BY line_no",
    )
    assert lines == [
        ("1001", "85123A", 6, 255, "2011-01-10 08:26:00"),
        ("1001", "85123A", 6, 255, "2011-01-10 08:26:00"),
        ("1001", "85123a", 2, 265, "2011-01-10 08:27:00"),
        ("1002", "22001", -3, 0, "2011-07-10 08:00:00"),
        ("1002", "22001", 1, 2000, "2011-07-10 08:00:00"),
        ("1001", "22002", 1, 0, "2011-01-10 08:26:00"),
        ("C1003", "85123A", -6, 255, "2011-01-12 10:00:00"),
        ("A1004", "B", 1, -1_106_206, "2011-08-12 13:50:00"),
        ("1005", "PADS", 20_000, 0, "2011-03-27 01:30:00"),
        ("1006", "85123A", 0, 310, "2011-10-30 01:30:00"),
        ("1006", "22003", 1, 0, "2011-10-30 01:31:00"),
    ]


async def test_codes_become_products_and_customers_users(url: str, dirty_file: Path) -> None:
    await load_retail(url, dirty_file)

    products = await fetch(
        url,
        "SELECT stock_code, descr, price_cents, cat_path, is_disc FROM prod JOIN cat USING (cat_no) ORDER BY prod_no",
    )
    assert products == [
        ("85123A", "RED  MUG", 310, "Home/Kitchen/Mugs", 0),
        ("85123a", "RED  MUG", 265, "Home/Kitchen/Mugs", 0),
        ("22001", "GIFT VOUCHER £20", 2000, "Home/Stationery/Cards and Wrap", 0),
        ("22002", None, 0, "Home/Unsorted", 1),
        ("B", "Adjust bad debt", 0, "Bookkeeping", 1),
        ("PADS", "PADS", 0, "Home/Living/Cushions", 1),
        ("22003", "thrown away", 0, "Home/Unsorted", 1),
    ]
    users = await fetch(url, "SELECT usr_id, login_email, pwd_hash, country, reg_date, role_cd FROM users")
    assert users == [
        ("17850", "customer.17850@example.com", None, UK, "2011-01-10 08:26:00", "U"),
        ("13952", "customer.13952@example.com", None, None, "2011-03-27 02:30:00", "U"),
    ]


async def test_sequences_go_on_after_the_loaded_keys(url: str, dirty_file: Path) -> None:
    await load_retail(url, dirty_file)
    made = await fetch(url, "INSERT INTO carts (opened) VALUES ('2012-01-01 00:00:00') RETURNING cart_no")
    assert made == [(7,)]


async def test_the_seed_decides_the_stock_and_nothing_else(
    legacy_cluster: Cluster, make_database: MakeDatabase, template: str, dirty_file: Path
) -> None:
    urls = [await make_database(legacy_cluster, template=template) for _ in range(3)]
    for url, seed in zip(urls, (1, 1, 2), strict=True):
        await load_retail(url, dirty_file, seed=seed)
    everything = (
        "SELECT prod_no, stock_code, descr, price_cents, cat_no, is_disc, created, chg FROM prod ORDER BY 1"
    )
    stocks = [await fetch(url, "SELECT qty_on_hand FROM prod ORDER BY prod_no") for url in urls]
    assert stocks[0] == stocks[1] != stocks[2]
    assert await fetch(urls[0], everything) == await fetch(urls[2], everything)


async def test_a_malformed_file_leaves_the_database_as_it_was(url: str, dirty_file: Path) -> None:
    with dirty_file.open("a", encoding="utf-8") as file:
        file.write("1008,22001,X,many,2011-01-10 08:26:00,1,,UK\n")
    with pytest.raises(LoadError, match="line 19: Quantity 'many' is not a whole number"):
        await load_retail(url, dirty_file)
    assert [await fetch(url, f"SELECT count(*) FROM {table}") for table in TABLES] == [[(0,)]] * len(TABLES)


async def test_a_refusal_in_the_middle_leaves_the_database_as_it_was(url: str, dirty_file: Path) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("ALTER TABLE cart_lines ADD CONSTRAINT no_returns CHECK (qty >= 0)")
    await connection.close()
    with pytest.raises(LoadError, match=r"the legacy database refused: .*no_returns"):
        await load_retail(url, dirty_file)
    assert [await fetch(url, f"SELECT count(*) FROM {table}") for table in TABLES] == [[(0,)]] * len(TABLES)
    assert await fetch(url, "SELECT last_value, is_called FROM carts_cart_no_seq") == [(1, False)]


async def test_a_shop_that_holds_rows_is_not_loaded_over(url: str, dirty_file: Path) -> None:
    await load_retail(url, dirty_file)
    with pytest.raises(LoadError, match="users holds rows already"):
        await load_retail(url, dirty_file)


async def test_a_database_without_the_tables_is_refused(
    legacy_cluster: Cluster, make_database: MakeDatabase, dirty_file: Path
) -> None:
    with pytest.raises(LoadError, match="the legacy tables are missing"):
        await load_retail(await make_database(legacy_cluster), dirty_file)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://shop:hush@127.0.0.1:1/poc",
        "postgresql://shop:hush@[oops/poc",
        "postgresql://shop:hu/sh@127.0.0.1/poc",
        "mysql://shop:hush@127.0.0.1/poc",
        "nonsense hush",
    ],
)
async def test_a_wrong_address_is_one_line_without_the_password(address: str, dirty_file: Path) -> None:
    with pytest.raises(LoadError) as caught:
        await load_retail(address, dirty_file)
    assert "legacy database" in str(caught.value)
    assert "hu" not in str(caught.value)
    assert "\n" not in str(caught.value)
