"""How money and moments stand in an old database, and in one of our own: expressions for projections, either way exact."""

from __future__ import annotations

from typing import Any

from sqlalchemy import TIMESTAMP, Column, ColumnElement, DateTime, Integer, Numeric, cast, func

_MONEY = Numeric(12, 2)


def from_cents(column: Column[Any]) -> ColumnElement[Any]:
    """Whole cents as an amount."""
    return cast(cast(column, _MONEY) / 100, _MONEY)


def to_cents(column: Column[Any]) -> ColumnElement[Any]:
    """An amount as whole cents."""
    return cast(column * 100, Integer)


def from_utc(column: Column[Any]) -> ColumnElement[Any]:
    """A time without a zone, which was meant as UTC, as a moment."""
    return func.timezone("UTC", column, type_=DateTime(timezone=True))


def to_utc(column: Column[Any]) -> ColumnElement[Any]:
    """A moment as a time in UTC, without a zone."""
    return func.timezone("UTC", column, type_=TIMESTAMP())
