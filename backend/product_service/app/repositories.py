"""All SQL of the service, written against the shape of its own tables, whichever side a unit runs on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    FromClause,
    Integer,
    Numeric,
    Select,
    Text,
    any_,
    func,
    literal,
    select,
    tuple_,
)
from sqlalchemy.types import TypeEngine

from backend.shared import Repository, UnitOfWork

from .category_tree import CategoryRow, CategoryTree
from .entities import NewProduct, Product, ProductChanges, ProductFilter, ProductSort
from .legacy import CATEGORY, PRODUCT
from .models import categories, product_stock

SortKey = tuple[Any, ...]
_WRITERS_LOCK = func.hashtextextended("product_service.category_writers", 0, type_=BigInteger)


class ProductRepository(Repository[Product]):
    """Products with their stock."""

    entity = PRODUCT

    def __init__(self, work: UnitOfWork) -> None:
        super().__init__(work)
        self._stock = work.shape(product_stock)

    async def get_many(self, product_ids: Sequence[int]) -> list[Product]:
        """Those of `product_ids` that exist, by rising id."""
        query = self._query().where(self._root.c.id.in_(product_ids)).order_by(self._root.c.id)
        return await self._all(query)

    async def ids(self, *, after_id: int | None, limit: int) -> list[int]:
        """Up to `limit` ids above `after_id`."""
        query = select(self._root.c.id).order_by(self._root.c.id).limit(limit)
        if after_id is not None:
            query = query.where(self._root.c.id > after_id)
        return [row["id"] for row in await self._work.rows(query)]

    async def hold_many(self, product_ids: Sequence[int]) -> list[Product]:
        """Those of `product_ids` that exist; nobody changes them until the unit ends."""
        await self._work.keep_still(PRODUCT, [(product_id,) for product_id in product_ids])
        return await self.get_many(product_ids)

    async def id_of_sku(self, sku: str) -> int | None:
        rows = await self._work.rows(select(self._root.c.id).where(self._root.c.sku == sku))
        return rows[0]["id"] if rows else None

    async def insert(self, new: NewProduct) -> int:
        """Insert a product; answers its id."""
        (product_id,) = await self._insert(**vars(new), created_at=datetime.now(UTC))
        return int(product_id)

    async def update(self, product_id: int, changes: ProductChanges) -> None:
        await self._change(product_id, **changes.named(), updated_at=datetime.now(UTC))

    async def set_active(self, product_id: int, *, is_active: bool) -> None:
        await self._change(product_id, is_active=is_active, updated_at=datetime.now(UTC))

    async def set_quantity(self, product_id: int, quantity: int) -> None:
        """The stock alone: `updated_at` tells of the product itself."""
        await self._change(product_id, quantity=quantity)

    async def any_in_category(self, category_id: int) -> bool:
        """Whether there are products right in a category, on sale or not."""
        query = select(self._root.c.id).where(self._root.c.category_id == category_id).limit(1)
        return bool(await self._work.rows(query))

    async def search(
        self, wanted: ProductFilter, *, sort: ProductSort, after: SortKey | None, limit: int
    ) -> list[Product]:
        """Up to `limit` products in order of `sort`, past the one with the sort key `after`."""
        order = self._order(sort)
        query = self._query().where(*self._conditions(wanted))
        if after is not None:
            here, last = tuple_(*order), tuple_(*_sort_literals(sort, after))
            query = query.where(here < last if sort.is_descending else here > last)
        query = query.order_by(*[item.desc() if sort.is_descending else item for item in order]).limit(limit)
        return await self._all(query)

    def _object(self, row: dict[str, Any]) -> Product:
        return Product(**row)

    def _query(self) -> Select[Any]:
        quantity = func.coalesce(self._stock.c.quantity, 0).label("quantity")
        joined = self._root.outerjoin(self._stock, self._stock.c.product_id == self._root.c.id)
        return select(self._root, quantity).select_from(joined)

    def _order(self, sort: ProductSort) -> list[ColumnElement[Any]]:
        identity = self._root.c.id
        match sort.field:
            case "price":
                return [self._root.c.price, identity]
            case "name":
                # The same order on both sides and on every server, so that a listing may go on after a cutover.
                return [func.coalesce(self._root.c.name, "").collate("C"), identity]
            case _:
                return [identity]

    def _conditions(self, wanted: ProductFilter) -> list[ColumnElement[bool]]:
        shape = self._root.c
        found: list[ColumnElement[bool]] = [
            shape.name.icontains(word, autoescape=True) | shape.sku.icontains(word, autoescape=True)
            for word in wanted.words
        ]
        if wanted.category_id is not None:
            branch = subtree(self._work.shape(categories), wanted.category_id)
            # As an array the ids are known before products are looked for, so that the index by category is of use.
            ids = func.array(branch.scalar_subquery(), type_=ARRAY(Integer))
            found.append(shape.category_id == any_(ids))
        if wanted.price_min is not None:
            found.append(shape.price >= wanted.price_min)
        if wanted.price_max is not None:
            found.append(shape.price <= wanted.price_max)
        if wanted.is_active is not None:
            found.append(shape.is_active.is_(wanted.is_active))
        if wanted.in_stock is not None:
            quantity = func.coalesce(self._stock.c.quantity, 0)
            found.append(quantity > 0 if wanted.in_stock else quantity <= 0)
        return found


def sort_key(product: Product, sort: ProductSort) -> SortKey:
    """The values that a product is sorted by."""
    match sort.field:
        case "price":
            return (product.price, product.id)
        case "name":
            return (product.name or "", product.id)
        case _:
            return (product.id,)


def sort_types(sort: ProductSort) -> tuple[type[int | str | Decimal], ...]:
    """The types of a sort key's values."""
    return {"price": (Decimal, int), "name": (str, int)}.get(sort.field, (int,))


def _sort_literals(sort: ProductSort, key: SortKey) -> list[ColumnElement[Any]]:
    """A sort key as parameters, of types so wide that no cursor can be out of range."""
    kinds: dict[type, TypeEngine[Any]] = {Decimal: Numeric(), str: Text(), int: BigInteger()}
    return [literal(value, kinds[kind]) for value, kind in zip(key, sort_types(sort), strict=True)]


def subtree(shape: FromClause, category_id: int) -> Select[Any]:
    """The ids of a category and of all below it."""
    # Read once: on legacy each reading works out the parents of all rows anew.
    nodes = select(shape.c.id, shape.c.parent_id).cte("nodes").prefix_with("MATERIALIZED")
    below = select(nodes.c.id).where(nodes.c.id == category_id).cte("below", recursive=True)
    children = select(nodes.c.id).join_from(nodes, below, nodes.c.parent_id == below.c.id)
    return select(below.union(children).c.id)


class CategoryRepository(Repository[CategoryRow]):
    """The tree of categories."""

    entity = CATEGORY

    async def lock_tree(self) -> None:
        """Wait for whoever else changes the tree through this service, and let nobody else until this unit ends."""
        await self._work.execute(select(func.pg_advisory_xact_lock(_WRITERS_LOCK)))

    async def tree(self) -> CategoryTree:
        # In an order of their own, so that both sides answer the same.
        return CategoryTree(await self._all(self._query().order_by(self._root.c.id)))

    async def exists(self, category_id: int) -> bool:
        query = select(self._root.c.id).where(self._root.c.id == category_id)
        return bool(await self._work.rows(query))

    async def insert(self, *, parent_id: int | None, name: str) -> int:
        """Insert a category; answers its id."""
        (category_id,) = await self._insert(parent_id=parent_id, name=name)
        return int(category_id)

    async def place(self, category_id: int, *, parent_id: int | None, name: str) -> None:
        """Rename a category, move it, or both; all below it comes along."""
        await self._change(category_id, parent_id=parent_id, name=name)

    def _object(self, row: dict[str, Any]) -> CategoryRow:
        return CategoryRow(**row)
