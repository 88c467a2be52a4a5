"""The legacy shop's wide `users` table, and how it and the new side's two tables become each other.

Text is carried letter by letter, NULL and '' included. What legacy holds but no program of ours can mean (an unknown
role, a flag that is neither 0 nor 1, a registration date that is no date) reads as NULL: the new side then refuses the
row, and the engine keeps and shows it as failed, instead of anybody guessing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import (
    CHAR,
    TIMESTAMP,
    Boolean,
    Column,
    ColumnElement,
    Integer,
    MetaData,
    Select,
    SmallInteger,
    String,
    Table,
    Text,
    case,
    cast,
    false,
    func,
    or_,
    select,
    true,
)
from sqlalchemy.types import DateTime

from backend.shared import EntityMapping, KeyPart, Projection, Source

from .models import ROOM, user_profiles, users

LEGACY_METADATA = MetaData()
SHOP_ZONE = "Europe/London"
_WALL_CLOCK = "YYYY-MM-DD HH24:MI:SS"
_DAY = r"(0[13578]|1[02])-(0[1-9]|[12]\d|3[01])|(0[469]|11)-(0[1-9]|[12]\d|30)|02-(0[1-9]|1\d|2[0-8])"
_HOUR = r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d"
_TIME = rf"^(?!0000)\d{{4}}-({_DAY}) {_HOUR}$"
_LEAP_DAY = rf"^(?!0000)(\d\d(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29 {_HOUR}$"

legacy_users = Table(
    "users",
    LEGACY_METADATA,
    Column("usr_id", String(40), primary_key=True),
    Column("login_email", String(255), nullable=False, unique=True),
    Column("pwd_hash", String(255)),
    Column("first_nm", String(100)),
    Column("last_nm", String(100)),
    Column("phone_no", String(40)),
    Column("addr_line", String(200)),
    Column("city", String(100)),
    Column("country", String(100)),
    Column("role_cd", CHAR(1), nullable=False, server_default="U"),
    Column("is_active", SmallInteger, nullable=False, server_default="1"),
    Column("newsletter", SmallInteger, nullable=False, server_default="0"),
    # The accounts program's own; not ours to carry.
    Column("credit_cents", Integer, nullable=False, server_default="0"),
    Column("reg_date", String(19), nullable=False),
    Column("last_upd", String(19)),
)


def storable(moment: datetime) -> datetime:
    """`moment` as both sides can hold it: whole seconds, and with a wall clock time that leads back to itself.

    The hour that London's clocks repeat in autumn has one text for two moments, which PostgreSQL reads as the later. So
    a moment of its first pass is given as that later one.
    """
    return moment.astimezone(ZoneInfo(SHOP_ZONE)).replace(microsecond=0, fold=1).astimezone(UTC)


def _text(column: ColumnElement[str] | Column[str]) -> ColumnElement[str]:
    return cast(column, Text)


def _moment(column: Column[str]) -> ColumnElement[datetime]:
    """A wall clock text as a moment; NULL for any text that is none. A cast would fail the whole query instead."""
    is_time = or_(column.regexp_match(_TIME), column.regexp_match(_LEAP_DAY))
    read = func.timezone(SHOP_ZONE, cast(column, TIMESTAMP))
    return cast(case((is_time, read)), DateTime(timezone=True))


def _wall_clock(column: Column[datetime]) -> ColumnElement[str]:
    return cast(func.to_char(func.timezone(SHOP_ZONE, column), _WALL_CLOCK), String)


def _flag(column: Column[int]) -> ColumnElement[bool]:
    return cast(case((column == 1, true()), (column == 0, false())), Boolean)


def _zero_or_one(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return cast(case((condition, 1), else_=0), SmallInteger)


def _columns(*columns: ColumnElement[Any]) -> Select[Any]:
    return select(*columns)


_old = legacy_users.c
_to_users = _columns(
    _text(_old.usr_id).label("id"),
    _text(_old.login_email).label("email"),
    _text(_old.pwd_hash).label("password_hash"),
    cast(case((_old.role_cd == "A", "admin"), (_old.role_cd == "U", "user")), Text).label("role"),
    _flag(_old.is_active).label("is_active"),
    _moment(_old.reg_date).label("created_at"),
    _moment(_old.last_upd).label("updated_at"),
)
_to_profiles = _columns(
    _text(_old.usr_id).label("user_id"),
    _text(_old.first_nm).label("first_name"),
    _text(_old.last_nm).label("last_name"),
    _text(_old.phone_no).label("phone"),
    _text(_old.addr_line).label("address_line"),
    _text(_old.city).label("city"),
    _text(_old.country).label("country"),
    _flag(_old.newsletter).label("newsletter"),
)


def _varchar(column: Column[str]) -> ColumnElement[str]:
    # Without a length: with one, the cast would silently cut what does not fit.
    return cast(column, String)


_new, _profile = users.c, user_profiles.c
_to_legacy = _columns(
    _varchar(_new.id).label("usr_id"),
    _varchar(_new.email).label("login_email"),
    _varchar(_new.password_hash).label("pwd_hash"),
    _varchar(_profile.first_name).label("first_nm"),
    _varchar(_profile.last_name).label("last_nm"),
    _varchar(_profile.phone).label("phone_no"),
    _varchar(_profile.address_line).label("addr_line"),
    _varchar(_profile.city).label("city"),
    _varchar(_profile.country).label("country"),
    cast(case((_new.role == "admin", "A"), else_="U"), CHAR(1)).label("role_cd"),
    _zero_or_one(_new.is_active).label("is_active"),
    _zero_or_one(_profile.newsletter).label("newsletter"),
    _wall_clock(_new.created_at).label("reg_date"),
    _wall_clock(_new.updated_at).label("last_upd"),
).select_from(users.outerjoin(user_profiles, _profile.user_id == _new.id))

USER = EntityMapping(
    name="user",
    key=(KeyPart(name="id", type=Text()),),
    to_new=(
        Projection(table=users, key=("id",), query=_to_users),
        Projection(table=user_profiles, key=("user_id",), query=_to_profiles),
    ),
    to_legacy=(Projection(table=legacy_users, key=("usr_id",), query=_to_legacy),),
    legacy_sources=(Source(table=legacy_users, keys=("usr_id",)),),
    new_sources=(Source(table=users, keys=("id",)), Source(table=user_profiles, keys=("user_id",))),
    secret=frozenset({"password_hash", "pwd_hash"}),
)

# Legacy never had these.
MESSAGES = ROOM.entities
