"""Fields whose values are alike in PostgreSQL and in SQLite, and in SQLite as SQLAlchemy writes them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from peewee import Database, Field, FieldDatabaseHook, SqliteDatabase


class KeyField(Field):
    """24 hex digits."""

    field_type = "VARCHAR"

    def get_modifiers(self) -> list[int]:
        return [24]


class MomentField(FieldDatabaseHook, Field):
    """A point in time with its zone, as PostgreSQL has it; in SQLite, which has no type for it, in UTC and as text."""

    field_type = "TIMESTAMPTZ"
    _as_text = False

    def _db_hook(self, database: Database | None) -> None:
        self._as_text = isinstance(database, SqliteDatabase)

    def db_value(self, value: datetime | None) -> datetime | str | None:
        if value is None or not self._as_text:
            return value
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")

    def python_value(self, value: datetime | str | None) -> datetime | None:
        return datetime.fromisoformat(value).replace(tzinfo=UTC) if isinstance(value, str) else value


class NumberField(Field):
    """A decimal number of any size: `numeric` in PostgreSQL, text in SQLite."""

    field_type = "NUMERIC"

    def python_value(self, value: Decimal | str | None) -> Decimal | None:
        return None if value is None else Decimal(value)


class JsonField(Field):
    """A JSON value. The driver for PostgreSQL takes it as text and answers it parsed."""

    field_type = "JSON"

    def db_value(self, value: Any) -> str | None:
        return None if value is None else json.dumps(value, ensure_ascii=False)

    def python_value(self, value: Any) -> Any:
        return json.loads(value) if isinstance(value, str) else value
