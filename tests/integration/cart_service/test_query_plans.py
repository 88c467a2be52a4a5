"""What a cart costs does not grow with the shop: every statement of the hot operations goes by an index."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import asyncpg
from sqlalchemy import event

from backend.cart_service.app.services.cart_service import CartService
from backend.shared import Side
from tests.integration.cart_service.support import Shop

LEGACY_HISTORY = """
INSERT INTO carts (cust, state, opened)
SELECT 'c' || n % 3000, 'C', '2011-01-01 12:00:00' FROM generate_series(1, 20000) AS n;
INSERT INTO cart_lines (cart_no, prod_no, qty, unit_cents, added)
SELECT cart_no, n, 1, 100, '2011-01-01' FROM carts, generate_series(1, 3) AS n;
INSERT INTO wish (cust, prod_no, added) SELECT 'c' || n, n, '2011-01-01' FROM generate_series(1, 20000) AS n;
"""
NEW_HISTORY = """
INSERT INTO carts (user_id, status, created_at)
SELECT 'c' || n % 3000, 'closed', '2011-01-01' FROM generate_series(1, 20000) AS n;
INSERT INTO cart_items (cart_id, product_id, quantity, unit_price, added_at)
SELECT id, n, 1, 1, '2011-01-01' FROM carts, generate_series(1, 3) AS n;
INSERT INTO wish_items (user_id, product_id, added_at)
SELECT 'c' || n, n, '2011-01-01' FROM generate_series(1, 20000) AS n;
"""


@contextmanager
def statements_of(shop: Shop) -> Iterator[list[tuple[str, Any]]]:
    """All statements that the authoritative side is asked, with their parameters."""
    seen: list[tuple[str, Any]] = []
    engine = shop.manager.runtime.engines[shop.manager.phase.policy.authoritative].sync_engine

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _x: Any, _many: Any) -> None:
        seen.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    yield seen
    event.remove(engine, "before_cursor_execute", note)


async def test_hot_operations_scan_no_table(shop: Shop) -> None:
    on_legacy = shop.manager.phase.policy.authoritative is Side.LEGACY
    connection = await asyncpg.connect(shop.databases.legacy_url if on_legacy else shop.databases.new_url)
    await connection.execute(LEGACY_HISTORY if on_legacy else NEW_HISTORY)
    await connection.execute("ANALYZE")
    manager, service = shop.manager, CartService(shop.manager)
    with statements_of(shop) as seen:
        for _ in range(2):
            cart = (
                await manager.add_item("c7", product_id=1, quantity=1, unit_price=Decimal("1.00"))
            ).unwrap()
        await service.current_cart("c7")
        await service.get_cart(cart.id)
        await manager.change_quantity("c7", item_id=cart.items[0].id, quantity=5)
        await manager.add_wish("c7", product_id=9)
        await manager.move_wish_to_cart("c7", product_id=9, unit_price=Decimal("1.00"))
        await manager.clear_cart("c7")
    asked = [(text, values) for text, values in seen if text.startswith(("SELECT", "UPDATE", "DELETE"))]
    assert len(asked) > 20
    for text, values in asked:
        if "tandem_" in text:
            continue
        plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {text}", *values))
        for table in ("carts", "cart_lines", "cart_items", "wish", "wish_items"):
            assert f"Seq Scan on {table} " not in plan, f"{text}\n{plan}"
    await connection.close()
