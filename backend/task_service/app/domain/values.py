"""Points in time and numbers, as every store holds them."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal


def now() -> datetime:
    """The moment in UTC, in whole milliseconds."""
    return moment(datetime.now(UTC))


def moment(value: datetime) -> datetime:
    """`value` in UTC, cut to whole milliseconds: BSON holds no more, and a thing is the same in every store."""
    value = value.astimezone(UTC)
    return value.replace(microsecond=value.microsecond // 1000 * 1000)


def plain(value: Decimal) -> Decimal:
    """`value` without zeros at its end: not every store keeps them."""
    text = f"{value:f}"
    return Decimal(text.rstrip("0").rstrip(".")) if "." in text else Decimal(text)
