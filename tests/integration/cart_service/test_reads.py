"""Each read of the service answers the same on both sides, and follows the ramp."""

from __future__ import annotations

import pytest

from backend.cart_service.app.services.cart_service import CartService
from backend.cart_service.app.services.wish_list_service import WishListService
from backend.shared import NotFoundError, Phase
from tests.integration.cart_service.conftest import MakeShop
from tests.integration.cart_service.support import LAMP, MUG, FakeCatalog
from tests.support.reading import compared, reads


@pytest.mark.parametrize("phase", [Phase.SHADOW, Phase.LIVE])
async def test_every_read_answers_the_same_on_both_sides(make_shop: MakeShop, phase: Phase) -> None:
    shop = await make_shop(phase, shadow_read_sample_rate=1.0, new_read_share=1.0)
    carts = CartService(shop.manager, catalog=FakeCatalog())
    wishes = WishListService(shop.manager, catalog=FakeCatalog())
    for product in (MUG, LAMP):
        cart = await carts.add_item_to_cart(user_id="ann", product_id=product, quantity=2)
        await wishes.add(user_id="ann", product_id=product)
    assert await carts.current_cart("ann") == await carts.get_cart(cart.id)  # read where it was written
    await compared(shop.manager)
    await shop.carried()
    before = await compared(shop.manager)
    assert len((await carts.current_cart("ann")).items) == 2
    assert len((await carts.get_cart(cart.id)).items) == 2
    assert len(await wishes.list_wishes("ann", before_id=None, limit=10)) == 2
    with pytest.raises(NotFoundError):
        await carts.current_cart("bob")
    after = await compared(shop.manager)
    assert after == before | {"equal": before.get("equal", 0) + 4}
    assert not after.get("mismatch")
    assert reads(shop.manager)["new"] == ({"ramped": 3} if phase is Phase.SHADOW else {"authoritative": 6})
