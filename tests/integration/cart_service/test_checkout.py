"""What becomes of a cart that is ordered."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from backend.cart_service.app.services.checkout import Checkout
from backend.shared import UnitOfWork
from tests.integration.cart_service.support import LAMP, MUG, Api, Shop

NO_NEW_LINES = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not today'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION refuse()"""


async def ordered(shop: Shop, cart_id: int, pieces: dict[int, int]) -> None:
    async def unit(work: UnitOfWork) -> None:
        await Checkout().placed(work, order_id=1, cart_id=cart_id, pieces=pieces)

    await shop.manager.run_unit("take_order_placed", unit)


async def refuse_lines(shop: Shop) -> None:
    """The authoritative database takes no new line, as triggers of old programs may have it."""
    tables = {"legacy": "cart_lines", "new": "cart_items"}
    scripts = {side: NO_NEW_LINES.format(table=table) for side, table in tables.items()}
    for number in range(2):
        await shop.both(**{side: script.split(";\n")[number] for side, script in scripts.items()})


@pytest.mark.parametrize("refused", [False, True])
async def test_what_came_in_since_goes_to_a_new_cart_if_the_database_takes_it(
    api: Api, *, refused: bool
) -> None:
    """The ordered cart is closed either way; what could not be moved stays where it was, and nothing half of it."""
    shop = api.shop
    await api.add(MUG, 2)
    cart_id = (await api.add(LAMP))["id"]
    if refused:
        await refuse_lines(shop)
    with capture_logs() as logs:
        await ordered(shop, cart_id, {MUG: 2})
    await shop.carried()
    carts = await shop.new("SELECT id = $1, status FROM carts ORDER BY id", cart_id)
    lines = await shop.new("SELECT cart_id = $1, product_id FROM cart_items ORDER BY product_id", cart_id)
    told = [entry["event"] for entry in logs if entry["log_level"] == "warning"]
    assert await shop.new("SELECT cart_id, state FROM cart_orders") == [(cart_id, "placed")]
    if refused:
        assert carts == [(True, "closed")]
        assert lines == [(True, LAMP), (True, MUG)]
        assert told == ["rest_of_cart_not_moved"]
    else:
        assert carts == [(True, "closed"), (False, "open")]
        assert lines == [(False, LAMP), (True, MUG)]
        assert told == []
