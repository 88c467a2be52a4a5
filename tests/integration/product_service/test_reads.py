"""Each read of the service answers the same on both sides, and follows the ramp."""

from __future__ import annotations

import pytest

from backend.product_service.app.entities import ProductFilter, ProductSort
from backend.product_service.app.services.category_service import CategoryService
from backend.product_service.app.services.product_service import ProductService
from backend.shared import NotFoundError, Phase
from tests.integration.product_service.conftest import MakeShop
from tests.support.reading import compared, reads


@pytest.mark.parametrize("phase", [Phase.SHADOW, Phase.LIVE])
async def test_every_read_answers_the_same_on_both_sides(make_shop: MakeShop, phase: Phase) -> None:
    shop = await make_shop(phase, shadow_read_sample_rate=1.0, new_read_share=1.0)
    products, categories = ProductService(shop.manager), CategoryService(shop.manager)
    above = (await shop.manager.create_category(name="home", parent_id=None)).unwrap().id
    for name in ("zinc", "amber", "Öl"):
        await shop.manager.create_category(name=name, parent_id=above)
    ids = [await shop.add_product(f"S{n}", category_id=above, quantity=n) for n in range(4)]
    await products.deactivate(ids[3])
    await shop.carried()
    assert (await products.get(ids[1])).quantity == 1
    with pytest.raises(NotFoundError):
        await products.get(ids[3])
    assert len((await products.get_many(ids)).products) == 4
    assert len(
        await products.search(ProductFilter(category_id=above), sort=ProductSort.NAME, after=None, limit=9)
    )
    assert len((await categories.tree()).children(above)) == 3
    assert await compared(shop.manager) == {"equal": 5}
    # Text that is not on sale is asked of the authoritative side again.
    assert reads(shop.manager)["new"] == ({"ramped": 1} if phase is Phase.SHADOW else {"authoritative": 5})
