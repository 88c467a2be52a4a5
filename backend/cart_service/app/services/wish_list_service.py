"""Use cases round wish lists."""

from __future__ import annotations

from backend.shared import UnitOfWork
from backend.shared.outcomes import value_of

from ..catalog import ProductCatalog, product_for_sale
from ..core.dual_write_manager import CartDualWriteManager
from ..core.process_wide import shared_catalog, shared_manager
from ..entities import Cart, WishItem, check_id, check_user_id
from ..legacy import WISH_ITEM
from ..repositories import WishRepository


class WishListService:
    """Each method is one unit of work. Managers, catalogs and errors are as with `CartService`."""

    def __init__(
        self, manager: CartDualWriteManager | None = None, *, catalog: ProductCatalog | None = None
    ) -> None:
        self._given_manager = manager
        self._given_catalog = catalog

    async def list_wishes(self, user_id: str, *, before_id: int | None, limit: int) -> list[WishItem]:
        """Up to `limit` wishes with ids below `before_id`, the latest first."""
        check_user_id(user_id)

        async def unit(work: UnitOfWork) -> list[WishItem]:
            return await WishRepository(work).page(user_id, before_id=before_id, limit=limit)

        return await self._manager.read(unit, entity=WISH_ITEM.name, key=user_id, operation="list_wishes")

    async def add(self, *, user_id: str, product_id: int) -> WishItem:
        """Wish for a product that is sold; the wish that is there, if there is one. May be repeated."""
        check_user_id(user_id)
        product = await product_for_sale(self._catalog, check_id(product_id, "product"))
        return value_of(await self._manager.add_wish(user_id, product_id=product.id))

    async def remove(self, *, user_id: str, product_id: int) -> WishItem:
        """Wish for it no more, whether it is still sold or not."""
        return value_of(await self._manager.remove_wish(user_id, product_id=product_id))

    async def move_to_cart(self, *, user_id: str, product_id: int) -> Cart:
        """One piece goes into the open cart, made if there is none, and the wish goes: both or neither."""
        check_user_id(user_id)
        product = await product_for_sale(self._catalog, check_id(product_id, "product"))
        moved = await self._manager.move_wish_to_cart(
            user_id, product_id=product.id, unit_price=product.price
        )
        return value_of(moved)

    @property
    def _manager(self) -> CartDualWriteManager:
        return self._given_manager or shared_manager()

    @property
    def _catalog(self) -> ProductCatalog:
        return self._given_catalog or shared_catalog()
