"""The tables of the service's own database."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from backend.shared.domain.mirrors import Mirrors
from backend.shared.events.tables import EventRoom

METADATA = MetaData()
MIRRORS = Mirrors(room="tandem_product")
ROOM = EventRoom.mirrored(METADATA, MIRRORS)

# The names of a parent's children are unique, those of the roots too. Deferrable, so that two may swap their names; and
# the parent's row may come later in the same transaction.
categories = Table(
    "categories",
    METADATA,
    Column("id", Integer, Identity(always=False), primary_key=True),
    Column(
        "parent_id",
        Integer,
        ForeignKey("categories.id", name="categories_parent_id_fkey", deferrable=True, initially="IMMEDIATE"),
    ),
    Column("name", Text, nullable=False),
    UniqueConstraint(
        "parent_id",
        "name",
        name="categories_parent_id_name_key",
        deferrable=True,
        initially="IMMEDIATE",
        postgresql_nulls_not_distinct=True,
    ),
)

# `name` may be NULL, empty or padded, and `price` below zero: history is kept as it is, only the API is strict.
products = Table(
    "products",
    METADATA,
    Column("id", Integer, Identity(always=False), primary_key=True),
    Column("sku", Text, nullable=False),
    Column("name", Text),
    Column("price", Numeric(12, 2), nullable=False),
    Column(
        "category_id",
        Integer,
        ForeignKey("categories.id", name="products_category_id_fkey", deferrable=True, initially="IMMEDIATE"),
    ),
    Column("is_active", Boolean, nullable=False, default=True),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True)),
    UniqueConstraint("sku", name="products_sku_key", deferrable=True, initially="IMMEDIATE"),
)

# Apart from `products`, because stock changes with every sale and the rest hardly ever.
product_stock = Table(
    "product_stock",
    METADATA,
    Column(
        "product_id",
        Integer,
        ForeignKey("products.id", name="product_stock_product_id_fkey", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("quantity", Integer, nullable=False, default=0),
)

# What was taken off the shelves for which order: `lines` is a list of {product_id, quantity}.
stock_reservations = Table(
    "stock_reservations",
    METADATA,
    Column("order_id", Integer, primary_key=True, autoincrement=False),
    Column("style", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("lines", JSONB),
    Column("may_begin", Boolean, nullable=False),
    Column("is_stopped", Boolean, nullable=False),
    Column("is_by_hand", Boolean, nullable=False),
    Column("reason", Text),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    CheckConstraint(
        "state IN ('new', 'reserved', 'rejected', 'released', 'used')", name="stock_reservations_state_check"
    ),
)

Index("products_category_id_idx", products.c.category_id)
Index("products_price_id_idx", products.c.price, products.c.id)
# As the listing by name sorts.
Index("products_name_id_idx", text("coalesce(name, '') COLLATE \"C\""), products.c.id)
