"""How the legacy tables and ours map onto each other, written once for relay, validator and unit of work.

Both mappings lose nothing: whatever stands in a mapped legacy column comes back the same, dirt included.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Integer,
    Select,
    SmallInteger,
    Text,
    case,
    cast,
    func,
    literal_column,
    select,
)

from backend.shared import EntityMapping, KeyPart, Projection, Source
from backend.shared.domain.column_forms import from_cents, from_utc, to_cents, to_utc

from .legacy_category_writer import LegacyCategoryWriter
from .legacy_tables import cat, prod
from .models import MIRRORS, ROOM, categories, product_stock, products, stock_reservations

_CAPTURE_LOCK = func.hashtextextended("product_service.category_capture", 0, type_=BigInteger)

_MAX_LEVELS = 200
"""More levels than a legacy path of 300 characters can have: whoever goes on from there goes in a circle."""


def parent_path(path: ColumnElement[Any]) -> ColumnElement[str]:
    """The path without its last segment; NULL for a path of one segment."""
    return func.left(path, func.length(path) - _from_last_slash(path), type_=Text)


def last_segment(path: ColumnElement[Any]) -> ColumnElement[str]:
    """What follows the last slash of a path; NULL for a path of one segment."""
    return func.right(path, _from_last_slash(path) - 1, type_=Text)


def _from_last_slash(path: ColumnElement[Any]) -> ColumnElement[int]:
    return func.nullif(func.strpos(func.reverse(path), "/"), 0, type_=Integer)


def _categories_from_cat() -> Select[Any]:
    """Parent and name from the path.

    A path whose parent has no row (an old program's doing) becomes a root that bears the whole path as its name: that
    is lossless, and mends itself when the parent appears.
    """
    parent = cat.alias("parent")
    name = case((parent.c.cat_no.is_(None), cat.c.cat_path), else_=last_segment(cat.c.cat_path))
    return select(
        cat.c.cat_no.label("id"),
        parent.c.cat_no.label("parent_id"),
        cast(name, Text).label("name"),
    ).select_from(cat.outerjoin(parent, parent.c.cat_path == parent_path(cat.c.cat_path)))


def _cat_from_categories() -> Select[Any]:
    """The path, put together by walking up from the row.

    As text, because SQLAlchemy cannot correlate a WITH query to the row round it. In a circle there is no root, so the
    path is NULL and the legacy table refuses it.
    """
    path = literal_column(
        "(WITH RECURSIVE up AS ("
        "SELECT categories.parent_id, categories.name AS path, 1 AS levels "
        "UNION ALL SELECT p.parent_id, p.name || '/' || up.path, up.levels + 1 "
        f"FROM up JOIN categories AS p ON p.id = up.parent_id WHERE up.levels < {_MAX_LEVELS}) "
        "SELECT up.path FROM up WHERE up.parent_id IS NULL)",
        Text,
    )
    return select(categories.c.id.label("cat_no"), path.label("cat_path"))


def after_other_changes(changed: FromClause) -> Select[Any]:
    """No keys: waits until nobody else has captured a change of the tree and not yet committed it.

    Else a category put under another one while that is being renamed could be carried with its old parent, and the
    renaming would not know of it. It is a source of its own, since only a statement that starts later sees what this one
    has waited for.
    """
    one = select(*changed.c).limit(1).subquery("one")
    key = next(iter(one.c))
    return select(key).where(func.pg_advisory_xact_lock(_CAPTURE_LOCK, type_=Text).is_(None))


def children_by_path(changed: FromClause) -> Select[Any]:
    """Categories whose parent's path has come, gone or changed."""
    return select(cat.c.cat_no).where(parent_path(cat.c.cat_path).in_(select(cast(changed.c.cat_path, Text))))


def descendants(changed: FromClause) -> Select[Any]:
    """Categories with a changed one among their ancestors: their legacy path holds its name."""
    below = select(changed.c.id.label("id")).cte("below", recursive=True)
    children = select(categories.c.id).join_from(categories, below, categories.c.parent_id == below.c.id)
    return select(below.union(children).c.id)


def _products_from_prod() -> Select[Any]:
    return select(
        prod.c.prod_no.label("id"),
        cast(prod.c.stock_code, Text).label("sku"),
        cast(prod.c.descr, Text).label("name"),
        from_cents(prod.c.price_cents).label("price"),
        prod.c.cat_no.label("category_id"),
        (prod.c.is_disc != 1).label("is_active"),
        from_utc(prod.c.created).label("created_at"),
        from_utc(prod.c.chg).label("updated_at"),
    )


def _prod_from_products() -> Select[Any]:
    """Text stays as long as it is, so that the legacy column refuses what a cast would cut off."""
    quantity = func.coalesce(product_stock.c.quantity, 0, type_=Integer)
    return select(
        products.c.id.label("prod_no"),
        products.c.sku.label("stock_code"),
        products.c.name.label("descr"),
        to_cents(products.c.price).label("price_cents"),
        products.c.category_id.label("cat_no"),
        quantity.label("qty_on_hand"),
        cast(case((products.c.is_active, 0), else_=1), SmallInteger).label("is_disc"),
        to_utc(products.c.created_at).label("created"),
        to_utc(products.c.updated_at).label("chg"),
    ).select_from(products.outerjoin(product_stock, product_stock.c.product_id == products.c.id))


CATEGORY = EntityMapping(
    name="category",
    key=(KeyPart(name="id", type=Integer()),),
    to_new=(Projection(table=categories, key=("id",), query=_categories_from_cat()),),
    to_legacy=(Projection(table=cat, key=("cat_no",), query=_cat_from_categories()),),
    legacy_sources=(
        Source(table=cat, keys=("cat_no",)),
        Source(table=cat, keys=after_other_changes),
        Source(table=cat, keys=children_by_path),
    ),
    new_sources=(
        Source(table=categories, keys=("id",)),
        Source(table=categories, keys=after_other_changes),
        Source(table=categories, keys=descendants),
    ),
    legacy_writer=LegacyCategoryWriter(),
)

PRODUCT = EntityMapping(
    name="product",
    key=(KeyPart(name="id", type=Integer()),),
    to_new=(
        Projection(table=products, key=("id",), query=_products_from_prod()),
        Projection(
            table=product_stock,
            key=("product_id",),
            query=select(prod.c.prod_no.label("product_id"), prod.c.qty_on_hand.label("quantity")),
        ),
    ),
    to_legacy=(Projection(table=prod, key=("prod_no",), query=_prod_from_products()),),
    legacy_sources=(Source(table=prod, keys=("prod_no",)),),
    new_sources=(
        Source(table=products, keys=("id",)),
        Source(table=product_stock, keys=("product_id",)),
    ),
    parents=("category",),
)

# Legacy never had any of these.
RESERVATION = MIRRORS.entity("reservation", stock_reservations)
MESSAGES = ROOM.entities
