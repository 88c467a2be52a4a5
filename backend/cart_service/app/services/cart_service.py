"""Use cases round carts and what is in them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from backend.shared import NotFoundError, UnitOfWork
from backend.shared.outcomes import value_of

from ..catalog import ProductCatalog, product_for_sale
from ..core.dual_write_manager import CartDualWriteManager
from ..core.process_wide import shared_catalog, shared_manager
from ..entities import Cart, check_id, check_quantity, check_user_id
from ..legacy import CART
from ..repositories import CartRepository


class CartService:
    """Each method is one unit of work.

    Without a manager, or without a catalog, the one that the whole process shares is used, made from the environment when
    it is first needed.

    All raise ValidationError for what cannot be, NotFoundError for what does not exist, ConflictError for a clash with what
    is there, and SideError when a database does not answer.
    """

    def __init__(
        self, manager: CartDualWriteManager | None = None, *, catalog: ProductCatalog | None = None
    ) -> None:
        self._given_manager = manager
        self._given_catalog = catalog

    async def create_cart(self, user_id: str) -> Cart:
        """The user's open cart; made, and then `is_new`, if she has none. May be repeated."""
        return value_of(await self._manager.create_cart(user_id))

    async def current_cart(self, user_id: str) -> Cart:
        """The user's open cart."""
        check_user_id(user_id)

        async def unit(work: UnitOfWork) -> Cart | None:
            return await CartRepository(work).get_open(user_id)

        cart = await self._manager.read(unit, entity=CART.name, key=user_id, operation="current_cart")
        return _known(cart, "there is no open cart")

    async def get_cart(self, cart_id: int, *, owner: str | None = None) -> Cart:
        """A cart in any state. With an `owner`, another user's is as unknown as one that does not exist."""
        check_id(cart_id, "cart")

        async def unit(work: UnitOfWork) -> Cart | None:
            return await CartRepository(work).get(cart_id)

        cart = await self._manager.read(unit, entity=CART.name, key=(cart_id,), operation="get_cart")
        if cart is not None and owner is not None and cart.user_id != owner:
            cart = None
        return _known(cart, f"there is no cart {cart_id}")

    async def add_item_to_cart(self, *, user_id: str, product_id: int, quantity: int) -> Cart:
        """Put a product into the user's open cart, made if she has none, at its present price.

        More of a product that is there adds up on its line, also when several do so at once. Raises
        CatalogUnavailableError when nobody can say what the product costs.
        """
        check_user_id(user_id)
        check_quantity(quantity)
        product = await product_for_sale(self._catalog, check_id(product_id, "product"))
        added = await self._manager.add_item(
            user_id, product_id=product.id, quantity=quantity, unit_price=product.price
        )
        return value_of(added)

    async def change_quantity(self, *, user_id: str, item_id: int, quantity: int) -> Cart:
        """Say how many there are to be on a line of the open cart, at the price that it has. May be repeated."""
        return value_of(await self._manager.change_quantity(user_id, item_id=item_id, quantity=quantity))

    async def remove_item(self, *, user_id: str, item_id: int) -> Cart:
        """Take a line out of the open cart."""
        return value_of(await self._manager.remove_item(user_id, item_id=item_id))

    async def clear_cart(self, user_id: str) -> Cart:
        """Take everything out of the open cart. May be repeated."""
        return value_of(await self._manager.clear_cart(user_id))

    async def get_dual_write_status(self) -> dict[str, Any]:
        """How the migration of this service stands; `dual_write_enabled` says whether the other side is written too."""
        return asdict(await self._manager.status())

    @property
    def _manager(self) -> CartDualWriteManager:
        return self._given_manager or shared_manager()

    @property
    def _catalog(self) -> ProductCatalog:
        return self._given_catalog or shared_catalog()


def _known(cart: Cart | None, otherwise: str) -> Cart:
    if cart is None:
        raise NotFoundError(otherwise)
    return cart
