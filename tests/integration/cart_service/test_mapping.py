"""The mapping loses nothing, in either direction, whatever stands in the tables."""

from __future__ import annotations

import string
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import Phase as Stage
from hypothesis import strategies as st

from backend.cart_service.app.legacy import CART, CART_ITEM, WISH_ITEM, storable
from backend.legacy_shop.local_time import is_skipped
from backend.shared import Phase, Projection
from backend.shared.stores.postgres.projection_sql import select_text
from tests.integration.cart_service.conftest import MakeShop
from tests.integration.cart_service.support import (
    LEGACY_CARTS,
    LEGACY_ITEMS,
    LEGACY_WISHES,
    Shop,
    run_sql,
)

LONDON = ZoneInfo("Europe/London")
CENT = Decimal("0.01")
ENTITIES = (CART, CART_ITEM, WISH_ITEM)
# Each example is a shop full of rows, so a few will do.
EXAMPLES = settings(
    max_examples=15,
    deadline=None,
    # One pair of databases does for all examples; and to shrink a shop of them would take minutes.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=(Stage.explicit, Stage.reuse, Stage.generate),
)


def texts(longest: int) -> st.SearchStrategy[str]:
    """What a legacy column may hold: blanks, quotes, several scripts, no NUL."""
    odd = st.sampled_from("'\"\\%_ \t\n\x7f\u00a0é漢\U0001f6d2\u200f\u0301\ufeff{}[],:$1")
    letters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    return st.text(st.one_of(st.sampled_from(string.ascii_letters), odd, letters), max_size=longest)


int32 = st.integers(-(2**31), 2**31 - 1)
moments = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))  # noqa: DTZ001 - UTC without zone, as legacy has it
wall_clocks = st.one_of(
    moments.map(lambda moment: moment.replace(microsecond=0)),
    # The nights when London's clocks change.
    st.datetimes(datetime(2010, 3, 28), datetime(2010, 3, 28, 4)),  # noqa: DTZ001
    st.datetimes(datetime(2010, 10, 31), datetime(2010, 10, 31, 4)),  # noqa: DTZ001
).filter(lambda local: not is_skipped(local))
legacy_carts = st.lists(
    st.tuples(
        st.one_of(st.none(), texts(40)),
        st.sampled_from("OCX"),
        st.one_of(st.none(), texts(20)),
        wall_clocks.map(lambda local: local.strftime("%Y").rjust(4, "0") + local.strftime("-%m-%d %H:%M:%S")),
        st.one_of(st.none(), moments),
    ),
    max_size=20,
    unique_by=lambda row: object() if row[1] != "O" or row[0] is None else row[0],
)
legacy_lines = st.lists(st.tuples(int32, int32, int32, moments), max_size=20)
legacy_wishes = st.lists(
    st.tuples(texts(40), int32, moments), max_size=20, unique_by=lambda row: (row[0], row[1])
)
instants = moments.map(lambda moment: moment.replace(tzinfo=UTC))
prices = st.integers(-(2**31), 2**31 - 1).map(lambda cents: cents * CENT)
new_carts = st.lists(
    st.tuples(
        st.one_of(st.none(), texts(40)),
        st.sampled_from(["open", "closed", "cancelled"]),
        st.one_of(st.none(), texts(20)),
        st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)).map(storable),  # noqa: DTZ001
        st.one_of(st.none(), instants),
    ),
    max_size=20,
    unique_by=lambda row: object() if row[1] != "open" or row[0] is None else row[0],
)
new_items = st.lists(st.tuples(int32, int32, prices, instants), max_size=20)
new_wishes = st.lists(
    st.tuples(texts(40), int32, instants), max_size=20, unique_by=lambda row: (row[0], row[1])
)


async def fill(url: str, statements: dict[str, list[tuple[Any, ...]]]) -> None:
    """Empty the tables, then insert; each of `statements` with many rows."""
    connection = await asyncpg.connect(url)
    try:
        for statement, rows in statements.items():
            await connection.executemany(statement, rows)
    finally:
        await connection.close()


def numbered(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [(number, *row) for number, row in enumerate(rows, start=1)]


def spread(rows: list[tuple[Any, ...]], carts: int) -> list[tuple[Any, ...]]:
    """Rows with a number of their own and that of one of so many carts."""
    return [(number, 1 + number % carts, *row) for number, *row in numbered(rows) if carts]


async def projected(url: str, projection: Projection) -> list[tuple[Any, ...]]:
    """The rows of a projection's target, as the source has them, by key."""
    names = ", ".join(column.name for column in projection.columns)
    query = select_text(projection.query)
    return await run_sql(url, f"SELECT {names} FROM ({query}) AS p ORDER BY {projection.key[0]}")


async def stored(url: str, projection: Projection) -> list[tuple[Any, ...]]:
    """The rows of a projection's target as they stand in it."""
    names = ", ".join(column.name for column in projection.columns)
    return await run_sql(url, f"SELECT {names} FROM {projection.table.name} ORDER BY {projection.key[0]}")


async def assert_lossless(shop: Shop) -> None:
    """Both projections of every entity, put after each other, give what there was."""
    assert await shop.manager.relay().drain(timeout_seconds=20)
    assert list(await shop.manager.list_failures(limit=5)) == []
    legacy, new = shop.databases.legacy_url, shop.databases.new_url
    for entity in ENTITIES:
        to_new, to_legacy = entity.to_new[0], entity.to_legacy[0]
        assert await projected(legacy, to_new) == await stored(new, to_new)
        assert await projected(new, to_legacy) == await stored(legacy, to_legacy)


@pytest.fixture
async def legacy_first(make_shop: MakeShop) -> Shop:
    return await make_shop(Phase.DUALWRITE)


@pytest.fixture
async def new_first(make_shop: MakeShop) -> Shop:
    return await make_shop(Phase.RAMPDOWN)


@EXAMPLES
@given(carts=legacy_carts, lines=legacy_lines, wishes=legacy_wishes)
async def test_legacy_to_new_and_back(
    legacy_first: Shop,
    carts: list[tuple[Any, ...]],
    lines: list[tuple[Any, ...]],
    wishes: list[tuple[Any, ...]],
) -> None:
    shop = legacy_first
    await fill(
        shop.databases.legacy_url,
        {
            "DELETE FROM carts": [()],
            "DELETE FROM wish": [()],
            "INSERT INTO carts (cart_no, cust, state, ext_ref, opened, chg) VALUES ($1,$2,$3,$4,$5,$6)": numbered(
                carts
            ),
            "INSERT INTO cart_lines (line_no, cart_no, prod_no, qty, unit_cents, added) VALUES "
            "($1,$2,$3,$4,$5,$6)": spread(lines, len(carts)),
            "INSERT INTO wish (wish_no, cust, prod_no, added) VALUES ($1,$2,$3,$4)": numbered(wishes),
        },
    )
    before = [await shop.legacy(query) for query in (LEGACY_CARTS, LEGACY_ITEMS, LEGACY_WISHES)]
    assert [len(rows) for rows in before] == [len(carts), len(lines) if carts else 0, len(wishes)]
    await assert_lossless(shop)
    after = [await shop.legacy(query) for query in (LEGACY_CARTS, LEGACY_ITEMS, LEGACY_WISHES)]
    assert after == before


@EXAMPLES
@given(carts=new_carts, items=new_items, wishes=new_wishes)
async def test_new_to_legacy_and_back(
    new_first: Shop,
    carts: list[tuple[Any, ...]],
    items: list[tuple[Any, ...]],
    wishes: list[tuple[Any, ...]],
) -> None:
    shop = new_first
    await fill(
        shop.databases.new_url,
        {
            "DELETE FROM carts": [()],
            "DELETE FROM wish_items": [()],
            "INSERT INTO carts (id, user_id, status, reference, created_at, updated_at) VALUES "
            "($1,$2,$3,$4,$5,$6)": numbered(carts),
            "INSERT INTO cart_items (id, cart_id, product_id, quantity, unit_price, added_at) VALUES "
            "($1,$2,$3,$4,$5,$6)": spread(items, len(carts)),
            "INSERT INTO wish_items (id, user_id, product_id, added_at) VALUES ($1,$2,$3,$4)": numbered(
                wishes
            ),
        },
    )
    await assert_lossless(shop)


async def test_what_nobody_can_read_is_kept_and_shown_and_mends_itself(make_shop: MakeShop) -> None:
    shop = await make_shop(Phase.DUALWRITE, retry_attempts=1)
    texts = ["", "yesterday", "2010-02-29 12:00:00", "2010-04-31 12:00:00", "2010-13-01 12:00:00"]
    texts += ["0000-01-01 12:00:00", "2010-01-01 24:00:00", "2010-01-01T12:00:00", "2010-01-01 12:00", "null"]
    for text in texts:
        await shop.legacy("INSERT INTO carts (cust, opened) VALUES ($1, $1)", text)
    await shop.legacy("INSERT INTO carts (cust, state, opened) VALUES ('z', 'Z', '2012-02-29 12:00:00')")
    await shop.legacy("INSERT INTO carts (cust, opened) VALUES ('good', '2012-02-29 12:00:00')")
    await shop.manager.relay().drain(timeout_seconds=20)
    assert len(await shop.manager.list_failures(limit=50)) == len(texts) + 1
    assert await shop.new("SELECT user_id FROM carts") == [("good",)]

    await shop.legacy("UPDATE carts SET opened = '2012-03-01 00:00:00', state = 'O'")
    await shop.carried()
    assert len(await shop.new("SELECT 1 FROM carts")) == len(texts) + 2


async def test_the_one_open_cart_and_a_wish_change_hands(shop: Shop) -> None:
    """Within one batch, each of two keys gets on the other side what the other one still has there."""
    first, second = [await shop.add_cart("ann", status=status) for status in ("open", "closed")]
    for name in ("ann", "bob"):
        for product_id in (1, 2):
            (await shop.manager.add_wish(name, product_id=product_id)).unwrap()
    await shop.carried()

    for cart_id, state, status in ((first, "C", "closed"), (second, "O", "open")):
        await shop.both(
            legacy=f"UPDATE carts SET state = '{state}' WHERE cart_no = {cart_id}",
            new=f"UPDATE carts SET status = '{status}' WHERE id = {cart_id}",
        )
    for before, after in ((1, 3), (2, 1), (3, 2)):
        await shop.both(
            legacy=f"UPDATE wish SET prod_no = {after} WHERE prod_no = {before}",
            new=f"UPDATE wish_items SET product_id = {after} WHERE product_id = {before}",
        )
    await shop.carried()


async def test_a_moment_of_the_hour_that_comes_twice_is_stored_as_one_that_comes_back() -> None:
    first = datetime(2025, 10, 26, 0, 30, 15, 999_999, tzinfo=UTC)
    for moment in (first, first + timedelta(hours=1)):
        assert storable(moment) == datetime(2025, 10, 26, 1, 30, 15, tzinfo=UTC)
    assert storable(first - timedelta(hours=1)) == datetime(2025, 10, 25, 23, 30, 15, tzinfo=UTC)
    assert storable(first).astimezone(LONDON).strftime("%H:%M") == "01:30"
