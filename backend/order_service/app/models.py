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
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from backend.shared.domain.mirrors import Mirrors
from backend.shared.events.tables import EventRoom

METADATA = MetaData()
MIRRORS = Mirrors(room="tandem_order")
ROOM = EventRoom.mirrored(METADATA, MIRRORS)
_MONEY = Numeric(12, 2)

orders = Table(
    "orders",
    METADATA,
    Column("id", Integer, Identity(always=False), primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("cart_id", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("total", _MONEY, nullable=False),
    Column("reason", Text),
    Column("placed_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True)),
    CheckConstraint(
        "status IN ('placed', 'confirmed', 'cancelling', 'cancelled')", name="orders_status_check"
    ),
)
# A cart is ordered once, unless nothing came of it.
Index("orders_cart_id_key", orders.c.cart_id, unique=True, postgresql_where=orders.c.status != "cancelled")
Index("orders_user_id_id_idx", orders.c.user_id, orders.c.id)

order_lines = Table(
    "order_lines",
    METADATA,
    Column("id", Integer, Identity(always=False), primary_key=True),
    Column(
        "order_id",
        Integer,
        ForeignKey("orders.id", name="order_lines_order_id_fkey", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("product_id", Integer, nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("unit_price", _MONEY, nullable=False),
)
Index("order_lines_order_id_idx", order_lines.c.order_id)

# One an order. `history` is a list of what was heard and done, oldest first; `trace` the context that it was placed in.
sagas = Table(
    "sagas",
    METADATA,
    Column("order_id", Integer, primary_key=True, autoincrement=False),
    Column("style", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("step", Integer, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("deadline", DateTime(timezone=True)),
    Column("participant", Text),
    Column("reason", Text),
    Column("by_hand", Boolean, nullable=False),
    Column("history", JSONB, nullable=False),
    Column("trace", JSONB, nullable=False),
    Column("started_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    CheckConstraint("style IN ('choreographed', 'orchestrated')", name="sagas_style_check"),
    CheckConstraint(
        "state IN ('running', 'compensating', 'completed', 'compensated', 'needs_review')",
        name="sagas_state_check",
    ),
)
Index("sagas_deadline_idx", sagas.c.deadline)
# Those that are not over are few, and looked for all the time.
SAGA_IS_OPEN = "state IN ('running', 'compensating', 'needs_review')"
Index("sagas_open_idx", sagas.c.started_at, postgresql_where=text(SAGA_IS_OPEN))

# What was asked for under which key: whoever asks again is answered the same.
idempotency_keys = Table(
    "idempotency_keys",
    METADATA,
    Column("user_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("order_id", Integer, nullable=False),
    Column("asked_at", DateTime(timezone=True), nullable=False),
)

# What was heard of products; `epoch` and `at` are the position of what was heard last.
product_view = Table(
    "product_view",
    METADATA,
    Column("product_id", Integer, primary_key=True, autoincrement=False),
    Column("sku", Text, nullable=False),
    Column("name", Text),
    Column("price", _MONEY, nullable=False),
    Column("is_active", Boolean, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
)
