"""What happens in each unit of work. A unit may be run again: it has no effect outside of its transaction."""

from __future__ import annotations

from backend.shared import ConflictError, NotFoundError, Unit, UnitOfWork

from ..category_tree import Category
from ..entities import MAX_STOCK_COUNT, CategoryChanges, Keep, NewProduct, Product, ProductChanges, Stock
from ..repositories import CategoryRepository, ProductRepository


def create_product(new: NewProduct) -> Unit[Product]:
    """Raises ConflictError for a SKU that is taken and a category that does not exist."""

    async def unit(work: UnitOfWork) -> Product:
        repository = ProductRepository(work)
        await _check_sku(repository, new.sku)
        await _check_category(work, new.category_id)
        return await _read(repository, await repository.insert(new))

    return unit


def update_product(product_id: int, changes: ProductChanges, *, only_active: bool) -> Unit[Product]:
    """Raises NotFoundError for an unknown product, with `only_active` also for a deactivated one, and ConflictError as
    `create_product` does.
    """

    async def unit(work: UnitOfWork) -> Product:
        repository = ProductRepository(work)
        found = await repository.hold(product_id)
        before = active(found, product_id) if only_active else known(found, product_id)
        if isinstance(changes.sku, str) and changes.sku != before.sku:
            await _check_sku(repository, changes.sku)
        if isinstance(changes.category_id, int):
            await _check_category(work, changes.category_id)
        await repository.update(product_id, changes)
        return await _read(repository, product_id)

    return unit


def set_active(product_id: int, *, is_active: bool) -> Unit[Product]:
    """Activate or deactivate; doing it twice changes nothing more. Raises NotFoundError for an unknown product."""

    async def unit(work: UnitOfWork) -> Product:
        repository = ProductRepository(work)
        before = known(await repository.hold(product_id), product_id)
        if before.is_active is is_active:
            return before
        await repository.set_active(product_id, is_active=is_active)
        return await _read(repository, product_id)

    return unit


def set_stock(product_id: int, quantity: int) -> Unit[Stock]:
    """Raises NotFoundError for an unknown product."""

    async def unit(work: UnitOfWork) -> Stock:
        repository = ProductRepository(work)
        before = known(await repository.hold(product_id), product_id)
        if quantity != before.quantity:
            await repository.set_quantity(product_id, quantity)
        return Stock(product_id=product_id, quantity=quantity)

    return unit


def adjust_stock(product_id: int, delta: int) -> Unit[Stock]:
    """Raises NotFoundError for an unknown product, ConflictError where its stock would fall below zero or rise too high."""

    async def unit(work: UnitOfWork) -> Stock:
        repository = ProductRepository(work)
        before = known(await repository.hold(product_id), product_id)
        after = before.quantity + delta
        if delta < 0 and after < 0:
            raise ConflictError(f"there are only {before.quantity} of product {product_id}")
        if delta > 0 and after > MAX_STOCK_COUNT:
            raise ConflictError(f"the stock of a product may be at most {MAX_STOCK_COUNT}")
        if delta:
            await repository.set_quantity(product_id, after)
        return Stock(product_id=product_id, quantity=after)

    return unit


def create_category(*, parent_id: int | None, name: str) -> Unit[Category]:
    """Raises ConflictError where there is no room for it."""

    async def unit(work: UnitOfWork) -> Category:
        repository = CategoryRepository(work)
        await repository.lock_tree()
        (await repository.tree()).check_place(parent_id=parent_id, name=name)
        category_id = await repository.insert(parent_id=parent_id, name=name)
        return (await repository.tree()).get(category_id)

    return unit


def update_category(category_id: int, changes: CategoryChanges) -> Unit[Category]:
    """Raises NotFoundError for an unknown category, ConflictError where there is no room for it."""

    async def unit(work: UnitOfWork) -> Category:
        repository = CategoryRepository(work)
        await repository.lock_tree()
        tree = await repository.tree()
        before = tree.get(category_id)
        name = before.name if isinstance(changes.name, Keep) else changes.name
        parent_id = before.parent_id if isinstance(changes.parent_id, Keep) else changes.parent_id
        if (name, parent_id) == (before.name, before.parent_id):
            return before
        if "/" in name:
            raise ConflictError(
                "the name of this category is a path whose parent is missing: give it another name"
            )
        tree.check_place(parent_id=parent_id, name=name, moved=category_id)
        await repository.place(category_id, parent_id=parent_id, name=name)
        return (await repository.tree()).get(category_id)

    return unit


def delete_category(category_id: int) -> Unit[Category]:
    """Raises NotFoundError for an unknown category, ConflictError for one with categories or products in it."""

    async def unit(work: UnitOfWork) -> Category:
        repository = CategoryRepository(work)
        await repository.lock_tree()
        tree = await repository.tree()
        before = tree.get(category_id)
        if tree.has_children(category_id):
            raise ConflictError(f"category {category_id} has categories below it")
        if await ProductRepository(work).any_in_category(category_id):
            raise ConflictError(f"category {category_id} has products in it")
        await repository.delete(category_id)
        return before

    return unit


def known(product: Product | None, product_id: int) -> Product:
    """The product; raises NotFoundError when there is none."""
    if product is None:
        raise NotFoundError(f"product {product_id} does not exist")
    return product


def active(product: Product | None, product_id: int) -> Product:
    """The product; raises NotFoundError when there is none, or when it is no longer sold."""
    found = known(product, product_id)
    if not found.is_active:
        raise NotFoundError(f"product {product_id} has been deactivated")
    return found


async def _read(repository: ProductRepository, product_id: int) -> Product:
    return known(await repository.get(product_id), product_id)


async def _check_sku(repository: ProductRepository, sku: str) -> None:
    if await repository.id_of_sku(sku) is not None:
        raise ConflictError("there is a product with this SKU")


async def _check_category(work: UnitOfWork, category_id: int | None) -> None:
    if category_id is not None and not await CategoryRepository(work).exists(category_id):
        raise ConflictError(f"category {category_id} does not exist")
