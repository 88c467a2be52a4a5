"""The tables of the service's own database."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
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
)

from backend.shared.domain.mirrors import Mirrors
from backend.shared.events.tables import EventRoom

METADATA = MetaData()
MIRRORS = Mirrors(room="tandem_cart")
ROOM = EventRoom.mirrored(METADATA, MIRRORS)

# `user_id` is NULL for what was sold over the counter; `updated_at` tells of the cart itself, not of its items.
carts = Table(
    "carts",
    METADATA,
    Column("id", Integer, Identity(always=False), primary_key=True),
    Column("user_id", Text),
    Column("status", Text, nullable=False),
    Column("reference", Text),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True)),
    CheckConstraint("status IN ('open', 'closed', 'cancelled')", name="carts_status_check"),
)

Index("carts_open_user_key", carts.c.user_id, unique=True, postgresql_where=carts.c.status == "open")

# Quantities below zero and prices of zero and below are history, and kept: so no constraint, only the API is strict. The
# same product may stand on several lines for the same reason.
cart_items = Table(
    "cart_items",
    METADATA,
    Column("id", Integer, Identity(always=False), primary_key=True),
    Column(
        "cart_id",
        Integer,
        ForeignKey("carts.id", name="cart_items_cart_id_fkey", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("product_id", Integer, nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("unit_price", Numeric(12, 2), nullable=False),
    Column("added_at", DateTime(timezone=True), nullable=False),
)

Index("cart_items_cart_id_idx", cart_items.c.cart_id)

# Deferrable, so that two rows may swap what they wish for.
wish_items = Table(
    "wish_items",
    METADATA,
    Column("id", Integer, Identity(always=False), primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("product_id", Integer, nullable=False),
    Column("added_at", DateTime(timezone=True), nullable=False),
    UniqueConstraint(
        "user_id",
        "product_id",
        name="wish_items_user_id_product_id_key",
        deferrable=True,
        initially="IMMEDIATE",
    ),
)

# Which order a cart is, or was, in.
cart_orders = Table(
    "cart_orders",
    METADATA,
    Column("order_id", Integer, primary_key=True, autoincrement=False),
    Column("cart_id", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    CheckConstraint("state IN ('placed', 'cancelled')", name="cart_orders_state_check"),
)

Index("cart_orders_cart_id_idx", cart_orders.c.cart_id)

# What was heard of users; `epoch` and `at` are the position of what was heard last.
user_view = Table(
    "user_view",
    METADATA,
    Column("user_id", Text, primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("is_active", Boolean, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
)

# Not dual-written: it can be filled again at any time from the tokens that users bring.
user_cache = Table(
    "user_cache",
    METADATA,
    Column("user_id", Text, primary_key=True),
    Column("display_name", Text),
    Column("is_active", Boolean, nullable=False),
    Column("refreshed_at", DateTime(timezone=True), nullable=False),
)
