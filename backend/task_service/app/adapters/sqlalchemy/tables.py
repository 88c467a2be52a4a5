"""The tables as each kind of database can hold them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Any

from sqlalchemy import CheckConstraint, DateTime, Dialect, MetaData, Numeric, Table, Text, UniqueConstraint
from sqlalchemy.types import TypeDecorator

from ...models import METADATA

_POSTGRESQL_ONLY = re.compile(r" ~ |octet_length\(")


class _Moment(TypeDecorator[datetime]):
    """SQLite keeps no zone: all times there are in UTC."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else value.replace(tzinfo=UTC)


class _Number(TypeDecorator[Decimal]):
    """SQLite has no exact numbers: they are kept as text."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Decimal | None:  # noqa: ARG002
        return None if value is None else Decimal(value)


def tables(dialect: str) -> Mapping[str, Table]:
    """The tables by name: those of `app.models`, or what SQLite makes of them."""
    return (sqlite_metadata() if dialect == "sqlite" else METADATA).tables


@cache
def sqlite_metadata() -> MetaData:
    """The same tables, columns and rules, less what SQLite has no word for."""
    plain = MetaData()
    for declared in METADATA.sorted_tables:
        table = declared.to_metadata(plain)
        for constraint in list(table.constraints):
            if isinstance(constraint, UniqueConstraint):
                constraint.deferrable = constraint.initially = None
            if isinstance(constraint, CheckConstraint) and _POSTGRESQL_ONLY.search(str(constraint.sqltext)):
                table.constraints.remove(constraint)  # a copy forgets what kind of database it was meant for
        for column in table.columns:
            column.type = _on_sqlite(column.type)
    return plain


def _on_sqlite(kind: Any) -> Any:
    match kind:
        case DateTime():
            return _Moment()
        case Numeric():
            return _Number()
        case _:
            return kind
