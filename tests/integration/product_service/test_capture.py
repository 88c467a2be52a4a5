"""Which keys a changed row touches, and that what foreign programs do to the tables arrives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import asyncpg
import pytest

from backend.product_service.app.entities import CategoryChanges
from backend.shared import Phase
from tests.integration.product_service.conftest import MakeShop
from tests.integration.product_service.support import Shop

Keys = set[tuple[str, str]]


def categories(*numbers: int) -> Keys:
    return {("category", f"[{number}]") for number in numbers}


@pytest.fixture
async def on_legacy(make_shop: MakeShop) -> Shop:
    """Legacy is authoritative; paths by number: 1 A, 2 A/b, 3 A/b/c, 4 A/b2, 5 D, 6 D/x/y (its parent is missing)."""
    shop = await make_shop(Phase.DUALWRITE)
    await shop.legacy(
        "INSERT INTO cat (cat_path) VALUES ('A'), ('A/b'), ('A/b/c'), ('A/b2'), ('D'), ('D/x/y')"
    )
    await shop.carried()
    return shop


@pytest.fixture
async def on_new(make_shop: MakeShop) -> Shop:
    """New is authoritative; 1 A, 2 A/b, 3 A/b/c, 4 A/b2, 5 D."""
    shop = await make_shop(Phase.RAMPDOWN)
    await shop.new(
        "INSERT INTO categories (parent_id, name) VALUES (NULL, 'A'), (1, 'b'), (2, 'c'), (1, 'b2'), (NULL, 'D')"
    )
    await shop.carried()
    return shop


async def test_legacy_a_missing_parent_makes_a_root_of_the_whole_path(on_legacy: Shop) -> None:
    assert await on_legacy.new("SELECT parent_id, name FROM categories WHERE id = 6") == [(None, "D/x/y")]


LEGACY_CHANGES: list[tuple[str, tuple[int, ...]]] = [
    ("UPDATE cat SET cat_path = cat_path WHERE false", ()),
    ("UPDATE cat SET cat_path = 'A/b2/c' WHERE cat_no = 3", (3,)),
    ("UPDATE cat SET cat_path = 'Z' WHERE cat_no = 1", (1, 2, 4)),
    ("UPDATE cat SET cat_path = 'D/x' WHERE cat_no = 2", (2, 3, 6)),
    (
        "UPDATE cat SET cat_path = 'Y' || substr(cat_path, 2) WHERE cat_path = 'A' OR cat_path LIKE 'A/%'",
        (1, 2, 3, 4),
    ),
    ("INSERT INTO cat (cat_no, cat_path) VALUES (70, 'D/x')", (6, 70)),
    ("DELETE FROM cat WHERE cat_no = 2", (2, 3)),
    ("DELETE FROM cat WHERE cat_no = 5", (5,)),
    ("TRUNCATE cat CASCADE", (1, 2, 3, 4, 5, 6)),
]
NEW_CHANGES: list[tuple[str, tuple[int, ...]]] = [
    ("UPDATE categories SET name = 'Z' WHERE false", ()),
    ("UPDATE categories SET name = 'Z' WHERE id = 1", (1, 2, 3, 4)),
    ("UPDATE categories SET parent_id = 5 WHERE id = 2", (2, 3)),
    ("UPDATE categories SET name = 'z' WHERE id = 3", (3,)),
    ("INSERT INTO categories (id, parent_id, name) VALUES (70, 4, 'new')", (70,)),
    ("DELETE FROM categories WHERE id IN (2, 3)", (2, 3)),
    ("DELETE FROM categories WHERE id = 5", (5,)),
]


async def keys_touched_by(url: str, statement: str) -> Keys:
    """What the statement journals; it is rolled back."""
    connection = await asyncpg.connect(url)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(statement)
    rows = await connection.fetch("SELECT entity, key FROM tandem_product.journal")
    await transaction.rollback()
    await connection.close()
    return {(row["entity"], row["key"]) for row in rows}


async def test_legacy_a_changed_path_touches_those_right_below(on_legacy: Shop) -> None:
    for statement, touched in LEGACY_CHANGES:
        found = await keys_touched_by(on_legacy.databases.legacy_url, statement)
        assert found == categories(*touched), statement


async def test_new_a_changed_row_touches_all_below(on_new: Shop) -> None:
    for statement, touched in NEW_CHANGES:
        found = await keys_touched_by(on_new.databases.new_url, statement)
        assert found == categories(*touched), statement


async def test_legacy_whatever_happens_to_paths_arrives(on_legacy: Shop) -> None:
    """One after the other, so that most find a tree that is in a mess."""
    for statement, _ in LEGACY_CHANGES:
        with suppress(asyncpg.UniqueViolationError):
            await on_legacy.legacy(statement)
        await on_legacy.carried()
    assert await on_legacy.legacy_paths() == {}


async def test_new_whatever_happens_to_the_tree_arrives(on_new: Shop) -> None:
    for statement, _ in NEW_CHANGES:
        with suppress(asyncpg.ForeignKeyViolationError):
            await on_new.new(statement)
        await on_new.carried()


async def test_legacy_a_swap_of_two_branches_is_carried(on_legacy: Shop) -> None:
    await on_legacy.legacy("INSERT INTO cat (cat_path) VALUES ('D/b')")
    await on_legacy.carried()
    connection = await asyncpg.connect(on_legacy.databases.legacy_url)
    async with connection.transaction():
        for old, new in (("A", "~"), ("D", "A"), ("~", "D")):
            await connection.execute(
                "UPDATE cat SET cat_path = $2::text || substr(cat_path, length($1::text) + 1) "
                "WHERE cat_path = $1 OR starts_with(cat_path, $1 || '/')",
                old,
                new,
            )
    await connection.close()
    await on_legacy.carried()
    assert (await on_legacy.new_paths())[3] == "D/b/c"


async def test_new_a_swap_of_two_branches_is_carried(on_new: Shop) -> None:
    await on_new.new("INSERT INTO categories (parent_id, name) VALUES (5, 'b')")
    await on_new.carried()
    await on_new.new(
        "UPDATE categories SET name = CASE name WHEN 'A' THEN 'D' ELSE 'A' END WHERE name IN ('A', 'D')"
    )
    await on_new.carried()
    assert (await on_new.legacy_paths())[3] == "D/b/c"
    assert (await on_new.legacy_paths())[6] == "A/b"


@pytest.mark.parametrize("phase", [Phase.DUALWRITE, Phase.RAMPDOWN])
async def test_a_swap_of_two_skus_is_carried(make_shop: MakeShop, phase: Phase) -> None:
    shop = await make_shop(phase)
    for sku in ("A", "B"):
        await shop.add_product(sku)
    await shop.carried()
    legacy = "UPDATE prod SET stock_code = $2 WHERE prod_no = $1"
    new = "UPDATE products SET sku = $2 WHERE id = $1"
    on_legacy = phase is Phase.DUALWRITE
    url = shop.databases.legacy_url if on_legacy else shop.databases.new_url
    connection = await asyncpg.connect(url)
    async with connection.transaction():
        for number, sku in ((1, "tmp"), (2, "A"), (1, "B")):
            await connection.execute(legacy if on_legacy else new, number, sku)
    await connection.close()
    await shop.carried()
    assert await shop.new("SELECT id, sku FROM products ORDER BY id") == [(1, "B"), (2, "A")]


async def test_legacy_what_old_programs_do_to_products_arrives(make_shop: MakeShop) -> None:
    shop = await make_shop(Phase.DUALWRITE)
    await shop.add_product("A", quantity=5)
    await shop.carried()
    for statement in (
        "UPDATE prod SET qty_on_hand = qty_on_hand - 7 WHERE prod_no = 1",
        "UPDATE prod SET price_cents = 0, chg = '2024-07-01 12:00:00.000001' WHERE prod_no = 1",
        "UPDATE prod SET is_disc = 1 - is_disc WHERE prod_no = 1",
        "UPDATE prod SET descr = '  padded\t' WHERE prod_no = 1",
        "UPDATE prod SET descr = NULL WHERE prod_no = 1",
        "UPDATE prod SET prod_no = 40 WHERE prod_no = 1",
        "INSERT INTO prod (stock_code, price_cents, created) VALUES ('é', -5, '2024-03-31 01:30:00')",
        "INSERT INTO prod (stock_code, descr, price_cents, created) VALUES ('', '', 2147483647, '0001-01-01')",
        "DELETE FROM prod WHERE prod_no = 40",
        "TRUNCATE prod",
    ):
        await shop.legacy(statement)
        assert await shop.journal(), statement
        await shop.carried()


async def test_new_what_is_done_to_either_table_arrives(make_shop: MakeShop) -> None:
    shop = await make_shop(Phase.RAMPDOWN)
    await shop.add_product("A", quantity=5)
    await shop.carried()
    for statement in (
        "UPDATE product_stock SET quantity = 77",
        "UPDATE products SET price = 0.01, updated_at = '2024-07-01 12:00:00.000001Z'",
        "UPDATE products SET name = NULL, is_active = false",
        "DELETE FROM products",
    ):
        await shop.new(statement)
        assert await shop.journal() == {("product", "[1]")}
        await shop.carried()


@pytest.fixture
async def foreign(on_legacy: Shop) -> AsyncIterator[asyncpg.Connection]:
    """An old program in the middle of something."""
    connection = await asyncpg.connect(on_legacy.databases.legacy_url)
    yield connection
    await connection.close()


async def insert_while_renaming(shop: Shop, *, rename: str, insert: str) -> None:
    """`child_inserted_while_its_parent_is_renamed`: neither sees the other's uncommitted row.

    So neither could journal what the other makes of it. Without the lock that capture takes, the child is carried with
    its parent's old name, and nobody journals it again when the new one is committed.
    """
    legacy = shop.manager.phase is Phase.DUALWRITE
    connection = await asyncpg.connect(shop.databases.legacy_url if legacy else shop.databases.new_url)
    renaming = connection.transaction()
    await renaming.start()
    await connection.execute(rename)
    inserting = asyncio.ensure_future(shop.authoritative(legacy=insert, new=insert))
    await shop.until_blocked(inserting)
    await shop.manager.relay().run_once()
    await renaming.commit()
    await connection.close()
    await inserting
    await shop.carried()


async def test_legacy_child_inserted_while_its_parent_is_renamed(on_legacy: Shop) -> None:
    await insert_while_renaming(
        on_legacy,
        rename="UPDATE cat SET cat_path = 'Z' WHERE cat_no = 5",
        insert="INSERT INTO cat (cat_path) VALUES ('D/new')",
    )


async def test_new_grandchild_inserted_while_its_grandparent_is_renamed(on_new: Shop) -> None:
    """For a child the foreign key would make it wait."""
    await insert_while_renaming(
        on_new,
        rename="UPDATE categories SET name = 'Z' WHERE id = 1",
        insert="INSERT INTO categories (parent_id, name) VALUES (2, 'new')",
    )


async def test_the_service_and_an_old_program_rename_at_once(
    on_legacy: Shop, foreign: asyncpg.Connection
) -> None:
    """`row_lock_held_when_service_renames`: whoever comes second waits, and nobody ends in a deadlock."""
    renaming = foreign.transaction()
    await renaming.start()
    await foreign.fetchval("SELECT cat_path FROM cat WHERE cat_no = 1 FOR UPDATE")
    ours = asyncio.create_task(on_legacy.manager.update_category(1, CategoryChanges(name="ours")))
    await on_legacy.until_blocked(ours)
    await foreign.execute(
        "UPDATE cat SET cat_path = 'theirs' || substr(cat_path, 2) WHERE cat_path = 'A' OR starts_with(cat_path, 'A/')"
    )
    await renaming.commit()
    assert (await ours).unwrap().path == "ours"
    await on_legacy.carried()
    assert (await on_legacy.legacy_paths())[3] == "ours/b/c"
