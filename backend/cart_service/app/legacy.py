"""The legacy shop's tables of carts and wishes, and how they and the service's own become each other.

Nothing is lost either way: text is carried letter by letter, money to the cent, history with quantities and prices of zero
and below as it is. What legacy holds but nobody can read (an unknown state, an opening time that is no time) reads as NULL:
the new side then refuses the row, and the engine keeps it and shows it, instead of anybody guessing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import (
    CHAR,
    TIMESTAMP,
    Column,
    ColumnElement,
    Date,
    DateTime,
    ForeignKey,
    Integer,
    MetaData,
    Select,
    String,
    Table,
    Text,
    case,
    cast,
    func,
    select,
)

from backend.shared import EntityMapping, KeyPart, Projection, Source
from backend.shared.domain.column_forms import from_cents, from_utc, to_cents, to_utc

from .models import MIRRORS, ROOM, cart_items, cart_orders, carts, user_view, wish_items

LEGACY_METADATA = MetaData()
SHOP_ZONE = "Europe/London"

_STATES = {"O": "open", "C": "closed", "X": "cancelled"}
_WALL_CLOCK = "YYYY-MM-DD HH24:MI:SS"
_LOOKS_LIKE_A_TIME = r"^(?!0000)\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01]) ([01]\d|2[0-3]):[0-5]\d:[0-5]\d$"
_INSTANT = DateTime(timezone=True)

legacy_carts = Table(
    "carts",
    LEGACY_METADATA,
    Column("cart_no", Integer, primary_key=True),
    Column("cust", String(40)),
    Column("state", CHAR(1), nullable=False, server_default="O"),
    Column("ext_ref", String(20)),
    Column("opened", String(19), nullable=False),
    Column("chg", TIMESTAMP),
)

legacy_cart_lines = Table(
    "cart_lines",
    LEGACY_METADATA,
    Column("line_no", Integer, primary_key=True),
    Column("cart_no", Integer, ForeignKey(legacy_carts.c.cart_no, ondelete="CASCADE"), nullable=False),
    Column("prod_no", Integer, nullable=False),
    Column("qty", Integer, nullable=False),
    Column("unit_cents", Integer, nullable=False),
    Column("added", TIMESTAMP, nullable=False),
)

legacy_wish = Table(
    "wish",
    LEGACY_METADATA,
    Column("wish_no", Integer, primary_key=True),
    Column("cust", String(40), nullable=False),
    Column("prod_no", Integer, nullable=False),
    Column("added", TIMESTAMP, nullable=False),
)


def storable(moment: datetime) -> datetime:
    """`moment` as the wall clock text of legacy can hold it: whole seconds, and one moment per text.

    The hour that London's clocks show twice in autumn has one text for two moments; PostgreSQL reads it as the later one,
    so the earlier is given as the later.
    """
    return moment.astimezone(ZoneInfo(SHOP_ZONE)).replace(microsecond=0, fold=1).astimezone(UTC)


def _text(column: Column[str]) -> ColumnElement[str]:
    return cast(column, Text)


def _varchar(column: Column[str]) -> ColumnElement[str]:
    # Without a length: a cast to one would cut off what does not fit, and legacy is to refuse it instead.
    return cast(column, String)


def _from_wall_clock(column: Column[str]) -> ColumnElement[datetime]:
    """The moment that a text stands for; NULL for one that is no time, where a cast would fail the whole query."""
    day = cast(func.left(column, 7) + "-01", Date) + cast(func.substr(column, 9, 2), Integer) - 1
    # A day that its month does not have comes out as one of the next month.
    exists = func.to_char(day, "YYYY-MM-DD") == func.left(column, 10)
    moment = case((exists, func.timezone(SHOP_ZONE, cast(column, TIMESTAMP))))
    return cast(case((column.regexp_match(_LOOKS_LIKE_A_TIME), moment)), _INSTANT)


def _to_wall_clock(column: Column[datetime]) -> ColumnElement[str]:
    return cast(func.to_char(func.timezone(SHOP_ZONE, column), _WALL_CLOCK), String)


def _carts_from_legacy() -> Select[Any]:
    old = legacy_carts.c
    return select(
        old.cart_no.label("id"),
        _text(old.cust).label("user_id"),
        cast(case(*[(old.state == letter, name) for letter, name in _STATES.items()]), Text).label("status"),
        _text(old.ext_ref).label("reference"),
        _from_wall_clock(old.opened).label("created_at"),
        from_utc(old.chg).label("updated_at"),
    )


def _carts_to_legacy() -> Select[Any]:
    new = carts.c
    return select(
        new.id.label("cart_no"),
        _varchar(new.user_id).label("cust"),
        cast(case(*[(new.status == name, letter) for letter, name in _STATES.items()]), CHAR(1)).label(
            "state"
        ),
        _varchar(new.reference).label("ext_ref"),
        _to_wall_clock(new.created_at).label("opened"),
        to_utc(new.updated_at).label("chg"),
    )


def _items_from_legacy() -> Select[Any]:
    old = legacy_cart_lines.c
    return select(
        old.line_no.label("id"),
        old.cart_no.label("cart_id"),
        old.prod_no.label("product_id"),
        old.qty.label("quantity"),
        from_cents(old.unit_cents).label("unit_price"),
        from_utc(old.added).label("added_at"),
    )


def _items_to_legacy() -> Select[Any]:
    new = cart_items.c
    return select(
        new.id.label("line_no"),
        new.cart_id.label("cart_no"),
        new.product_id.label("prod_no"),
        new.quantity.label("qty"),
        to_cents(new.unit_price).label("unit_cents"),
        to_utc(new.added_at).label("added"),
    )


def _wishes_from_legacy() -> Select[Any]:
    old = legacy_wish.c
    return select(
        old.wish_no.label("id"),
        _text(old.cust).label("user_id"),
        old.prod_no.label("product_id"),
        from_utc(old.added).label("added_at"),
    )


def _wishes_to_legacy() -> Select[Any]:
    new = wish_items.c
    return select(
        new.id.label("wish_no"),
        _varchar(new.user_id).label("cust"),
        new.product_id.label("prod_no"),
        to_utc(new.added_at).label("added"),
    )


CART = EntityMapping(
    name="cart",
    key=(KeyPart(name="id", type=Integer()),),
    to_new=(Projection(table=carts, key=("id",), query=_carts_from_legacy()),),
    to_legacy=(Projection(table=legacy_carts, key=("cart_no",), query=_carts_to_legacy()),),
    legacy_sources=(Source(table=legacy_carts, keys=("cart_no",)),),
    new_sources=(Source(table=carts, keys=("id",)),),
)

CART_ITEM = EntityMapping(
    name="cart_item",
    key=(KeyPart(name="id", type=Integer()),),
    to_new=(Projection(table=cart_items, key=("id",), query=_items_from_legacy()),),
    to_legacy=(Projection(table=legacy_cart_lines, key=("line_no",), query=_items_to_legacy()),),
    legacy_sources=(Source(table=legacy_cart_lines, keys=("line_no",)),),
    new_sources=(Source(table=cart_items, keys=("id",)),),
    parents=("cart",),
)

WISH_ITEM = EntityMapping(
    name="wish_item",
    key=(KeyPart(name="id", type=Integer()),),
    to_new=(Projection(table=wish_items, key=("id",), query=_wishes_from_legacy()),),
    to_legacy=(Projection(table=legacy_wish, key=("wish_no",), query=_wishes_to_legacy()),),
    legacy_sources=(Source(table=legacy_wish, keys=("wish_no",)),),
    new_sources=(Source(table=wish_items, keys=("id",)),),
)

# Legacy never had any of these.
CART_ORDER = MIRRORS.entity("cart_order", cart_orders)
USER_VIEW = MIRRORS.entity("user_view", user_view)
MESSAGES = ROOM.entities
