"""What a repair of one key does to the rows of the side that is written, as SQL that people can read.

The repair itself runs the statements of a carry, which say the same for many keys at once: insert or update the rows that
are there, delete those that are not, and touch no column that is equal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlalchemy import Column
from sqlalchemy.types import Boolean, Integer, Numeric

from backend.shared.domain.mapping import decode_key
from backend.shared.migration.repair_results import FieldChange
from backend.shared.stores.postgres.projection_sql import quoted
from backend.shared.validation.recheck import Entity, Look
from backend.shared.validation.statements import EntityStatements, TableStatements

HIDDEN = "'***'"
NO_ROW = "(no row)"
_NUMBER = re.compile(r"-?\d+(\.\d+)?")

Row = dict[str, str | None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What would be done to one key: the fields that change, and the statements that change them."""

    fields: tuple[FieldChange, ...]
    sql: tuple[str, ...]

    def without_values(self) -> Plan:
        """The same, with the names of the fields only."""
        return Plan(fields=tuple(FieldChange(field=item.field) for item in self.fields), sql=())


def plan_of(statements: EntityStatements, look: Look) -> Plan:
    """The plan that makes the target of `look` what its source is; values of secret fields are hidden.

    A source that cannot be read in the target's types has no plan: the answer is empty.
    """
    if look.source is None:
        return Plan(fields=(), sql=())
    deletes: list[str] = []
    writes: list[str] = []
    fields: list[FieldChange] = []
    for table in statements.tables:
        change = _TableChange(
            table=table,
            key=look.key,
            before=_row(table, look.target),
            after=_row(table, look.source),
            secret=statements.entity.secret,
        )
        fields += change.fields()
        statement = change.sql()
        if statement:
            (deletes if change.after is None else writes).append(statement)
    return Plan(fields=tuple(fields), sql=(*reversed(deletes), *writes))


def _row(table: TableStatements, entity: Entity) -> Row | None:
    names = [f"{table.name}.{column.name}" for column in table.sql.projection.columns]
    if not any(name in entity.fields for name in names):
        return None
    return {name.rpartition(".")[2]: entity.fields.get(name) for name in names}


@dataclass(frozen=True, kw_only=True)
class _TableChange:
    """The row that one table has of a key, before and after; None is no row."""

    table: TableStatements
    key: str
    before: Row | None
    after: Row | None
    secret: frozenset[str]

    def fields(self) -> list[FieldChange]:
        return [
            FieldChange(
                field=f"{self.table.name}.{column.name}",
                before=self._value(column, self.before),
                after=self._value(column, self.after),
            )
            for column in self._changed()
        ]

    def sql(self) -> str:
        name, columns = self.table.sql.table, self.table.sql.projection.columns
        if self.before is None and self.after is None:
            return ""
        if self.after is None:
            return f"DELETE FROM {name} WHERE {self._where()};"
        if self.before is None:
            names = ", ".join(quoted(column.name) for column in columns)
            values = ", ".join(self._value(column, self.after) for column in columns)
            return f"INSERT INTO {name} ({names}) VALUES ({values});"
        changed = self._changed()
        if not changed:
            return ""
        values = ", ".join(f"{quoted(column.name)} = {self._value(column, self.after)}" for column in changed)
        return f"UPDATE {name} SET {values} WHERE {self._where()};"

    def _changed(self) -> list[Column[object]]:
        if self.before == self.after:
            return []
        return [
            column
            for column in self.table.sql.projection.columns
            if self.before is None
            or self.after is None
            or self.before[column.name] != self.after[column.name]
        ]

    def _where(self) -> str:
        columns = self.table.sql.projection.key_columns
        return " AND ".join(
            f"{quoted(column.name)} = {literal(column, str(part))}"
            for column, part in zip(columns, decode_key(self.key), strict=True)
        )

    def _value(self, column: Column[object], row: Row | None) -> str:
        if row is None:
            return NO_ROW
        return HIDDEN if column.name in self.secret else literal(column, row[column.name])


def literal(column: Column[object], text: str | None) -> str:
    """`text`, as PostgreSQL prints a value of `column`, as an SQL literal that the column's type reads back."""
    if text is None:
        return "NULL"
    if isinstance(column.type, Boolean) or (
        isinstance(column.type, Integer | Numeric) and _NUMBER.fullmatch(text)
    ):
        return text
    return "'" + text.replace("'", "''") + "'"
