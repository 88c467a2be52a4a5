"""The legacy shop's tables of orders, and how they and the service's own become each other. Nothing is lost either way."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    CHAR,
    TIMESTAMP,
    Column,
    ForeignKey,
    Integer,
    MetaData,
    Select,
    String,
    Table,
    Text,
    case,
    cast,
    select,
)

from backend.shared import EntityMapping, KeyPart, Projection, Source
from backend.shared.domain.column_forms import from_cents, from_utc, to_cents, to_utc

from .models import MIRRORS, ROOM, idempotency_keys, order_lines, orders, product_view, sagas

LEGACY_METADATA = MetaData()
_STATES = {"P": "placed", "C": "confirmed", "B": "cancelling", "X": "cancelled"}

legacy_orders = Table(
    "ord",
    LEGACY_METADATA,
    Column("ord_no", Integer, primary_key=True),
    Column("cust", String(40), nullable=False),
    Column("cart_no", Integer, nullable=False),
    Column("state", CHAR(1), nullable=False),
    Column("total_cents", Integer, nullable=False),
    Column("why", String(200)),
    Column("placed", TIMESTAMP, nullable=False),
    Column("chg", TIMESTAMP),
)

legacy_order_lines = Table(
    "ord_lines",
    LEGACY_METADATA,
    Column("line_no", Integer, primary_key=True),
    Column("ord_no", Integer, ForeignKey(legacy_orders.c.ord_no, ondelete="CASCADE"), nullable=False),
    Column("prod_no", Integer, nullable=False),
    Column("qty", Integer, nullable=False),
    Column("unit_cents", Integer, nullable=False),
)


def _orders_from_legacy() -> Select[Any]:
    old = legacy_orders.c
    states = [(old.state == letter, name) for letter, name in _STATES.items()]
    return select(
        old.ord_no.label("id"),
        cast(old.cust, Text).label("user_id"),
        old.cart_no.label("cart_id"),
        cast(case(*states), Text).label("status"),
        from_cents(old.total_cents).label("total"),
        cast(old.why, Text).label("reason"),
        from_utc(old.placed).label("placed_at"),
        from_utc(old.chg).label("updated_at"),
    )


def _orders_to_legacy() -> Select[Any]:
    new = orders.c
    states = [(new.status == name, letter) for letter, name in _STATES.items()]
    return select(
        new.id.label("ord_no"),
        cast(new.user_id, String).label("cust"),
        new.cart_id.label("cart_no"),
        cast(case(*states), CHAR(1)).label("state"),
        to_cents(new.total).label("total_cents"),
        cast(new.reason, String).label("why"),
        to_utc(new.placed_at).label("placed"),
        to_utc(new.updated_at).label("chg"),
    )


def _lines_from_legacy() -> Select[Any]:
    old = legacy_order_lines.c
    return select(
        old.line_no.label("id"),
        old.ord_no.label("order_id"),
        old.prod_no.label("product_id"),
        old.qty.label("quantity"),
        from_cents(old.unit_cents).label("unit_price"),
    )


def _lines_to_legacy() -> Select[Any]:
    new = order_lines.c
    return select(
        new.id.label("line_no"),
        new.order_id.label("ord_no"),
        new.product_id.label("prod_no"),
        new.quantity.label("qty"),
        to_cents(new.unit_price).label("unit_cents"),
    )


ORDER = EntityMapping(
    name="order",
    key=(KeyPart(name="id", type=Integer()),),
    to_new=(Projection(table=orders, key=("id",), query=_orders_from_legacy()),),
    to_legacy=(Projection(table=legacy_orders, key=("ord_no",), query=_orders_to_legacy()),),
    legacy_sources=(Source(table=legacy_orders, keys=("ord_no",)),),
    new_sources=(Source(table=orders, keys=("id",)),),
)

ORDER_LINE = EntityMapping(
    name="order_line",
    key=(KeyPart(name="id", type=Integer()),),
    to_new=(Projection(table=order_lines, key=("id",), query=_lines_from_legacy()),),
    to_legacy=(Projection(table=legacy_order_lines, key=("line_no",), query=_lines_to_legacy()),),
    legacy_sources=(Source(table=legacy_order_lines, keys=("line_no",)),),
    new_sources=(Source(table=order_lines, keys=("id",)),),
    parents=("order",),
)

# Legacy never had any of these.
SAGA = MIRRORS.entity("saga", sagas)
IDEMPOTENCY_KEY = MIRRORS.entity("idempotency_key", idempotency_keys)
PRODUCT_VIEW = MIRRORS.entity("product_view", product_view)
MESSAGES = ROOM.entities
