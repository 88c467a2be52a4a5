"""Every operation of the product service once, on things made for it, which are removed again."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from decimal import Decimal
from typing import TYPE_CHECKING

from backend.shared import Exercised, Key, UnitOfWork

from ..entities import CategoryChanges, NewProduct, ProductChanges
from ..legacy import CATEGORY, PRODUCT

if TYPE_CHECKING:
    from .dual_write_manager import ProductDualWriteManager

Keys = list[tuple[str, Key]]


async def exercise_operations(manager: ProductDualWriteManager) -> AsyncIterator[Exercised]:
    """Yields after each operation. What was made is removed whatever happens in between."""
    made: Keys = []
    try:
        for operations in (_category_operations(manager, made), _product_operations(manager, made)):
            async with aclosing(operations) as steps:
                async for step in steps:
                    yield step
    finally:
        removed = await manager.write("remove_exercise", lambda work: _remove(work, made))
    yield Exercised(name="remove_exercise", result=removed, keys=made)


async def _remove(work: UnitOfWork, made: Keys) -> None:
    for entity, key in reversed(made):
        await work.delete(entity, key)


async def _category_operations(
    manager: ProductDualWriteManager, made: Keys
) -> AsyncGenerator[Exercised, None]:
    name = f"~exercise {secrets.token_hex(6)}"
    created = await manager.create_category(name=name)
    root = (created.unwrap().id,)
    made.append((CATEGORY.name, root))
    yield Exercised(name="create_category", result=created, keys=[(CATEGORY.name, root)])
    child = await manager.create_category(name="child", parent_id=root[0])
    keys: Keys = [(CATEGORY.name, root), (CATEGORY.name, (child.unwrap().id,))]
    made.append(keys[1])
    renamed = await manager.update_category(root[0], CategoryChanges(name=f"{name} renamed"))
    yield Exercised(name="update_category", result=renamed, keys=keys)
    deleted = await manager.delete_category(child.unwrap().id)
    yield Exercised(name="delete_category", result=deleted, keys=keys)


async def _product_operations(
    manager: ProductDualWriteManager, made: Keys
) -> AsyncGenerator[Exercised, None]:
    new = NewProduct(sku=f"~{secrets.token_hex(9)}", name="exercise", price=Decimal("1.23"), is_active=False)
    created = await manager.create_product(new)
    product = created.unwrap().id
    keys: Keys = [(PRODUCT.name, (product,))]
    made += keys
    yield Exercised(name="create_product", result=created, keys=keys)
    changed = await manager.update_product(product, ProductChanges(price=Decimal("4.56")))
    yield Exercised(name="update_product", result=changed, keys=keys)
    stock = await manager.set_stock(product, 5)
    yield Exercised(name="set_stock", result=stock, keys=keys)
    stock = await manager.adjust_stock(product, -2)
    yield Exercised(name="adjust_stock", result=stock, keys=keys)
    changed = await manager.activate_product(product)
    yield Exercised(name="activate_product", result=changed, keys=keys)
    changed = await manager.deactivate_product(product)
    yield Exercised(name="deactivate_product", result=changed, keys=keys)
