"""States of one key as a conflict has to do with them: laid on top of each other, and told apart by their fields."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backend.shared.domain.errors import ConflictError
from backend.shared.domain.mapping import EntityMapping, Projection
from backend.shared.domain.phases import Side
from backend.shared.migration.conflict_images import field, parsed
from backend.shared.migration.repair_results import FieldChange
from backend.shared.stores.protocol import StateBatch
from backend.shared.stores.state_images import comparable

Row = dict[str, Any]
Rows = list[Row]
Change = tuple[str, tuple[str | None, str | None]]
"""A field, and its value before and after; None is no row."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the authoritative side holds now, and what it is to hold."""

    now: StateBatch
    wanted: StateBatch

    @property
    def says_nothing(self) -> bool:
        """Whether there is nothing to write."""
        return not changes(self.now, self.wanted)

    @property
    def is_in_force(self) -> bool:
        """Whether the authoritative state is already what it is to be."""
        return self.says_nothing

    def fields(self, *, show_values: bool) -> tuple[FieldChange, ...]:
        """What would be written."""
        return tuple(
            shown(self.now.entity, name, before, after, show_values=show_values)
            for name, (before, after) in changes(self.now, self.wanted)
        )


def shown(
    entity: EntityMapping, name: str, before: str | None, after: str | None, *, show_values: bool
) -> FieldChange:
    """A field by its full name, as it may be shown."""
    table, _, column = name.rpartition(".")
    return field(entity, table, column, before, after, show_values=show_values)


def cannot_say(side: Side, what: str) -> ConflictError:
    """The refusal of what the mapping to `side` cannot say."""
    return ConflictError(f"the mapping to the {side.value} side cannot say it: {what}")


def unsaid(changed: Sequence[str], before: StateBatch, after: StateBatch) -> str:
    """Those of the fields to be `changed` that would be carried `after` as they were `before`, as one text.

    Such a field would undo the very write that is to be kept. Rows beside the root row count as a whole: one that is gone
    moves all behind it.
    """
    said = {_whole_table(name) for name, _ in changes(before, after)}
    return ", ".join(sorted({_whole_table(name) for name in changed} - said))


def _whole_table(name: str) -> str:
    return name.partition("[")[0]


def with_rows(batch: StateBatch, tables: Sequence[Rows]) -> StateBatch:
    """`batch` with other rows: none at all without a root row, since then there is no such entity."""
    tables = tables if tables[0] else [[] for _ in tables]
    return replace(
        batch,
        rows=tuple(json.dumps(rows, ensure_ascii=False) for rows in tables),
        present=tuple(frozenset(batch.keys) if rows else frozenset() for rows in tables),
    )


def on_top(now: StateBatch, *, without: StateBatch, with_it: StateBatch) -> StateBatch:
    """`now` with the columns changed in which `with_it` differs from `without`; rows beside the root row as a whole."""
    tables = []
    for number, projection in enumerate(now.entity.projections(now.direction)):
        states = [rows_of(batch, number) for batch in (now, without, with_it)]
        tables.append(_merged(projection, *states))
    return with_rows(now, tables)


def _merged(projection: Projection, now: Rows, without: Rows, with_it: Rows) -> Rows:
    if _compared(projection, without) == _compared(projection, with_it):
        return now
    if projection.many or not (now and with_it):
        return with_it
    old = without[0] if without else {}
    changed = {
        name: value
        for name, value in with_it[0].items()
        if not without or _differs(projection, name, old.get(name), value)
    }
    return [now[0] | changed]


def changes(one: StateBatch, other: StateBatch) -> list[Change]:
    """The fields in which two states of one key differ. Both are in the same shape."""
    found: list[Change] = []
    for number, projection in enumerate(one.entity.projections(one.direction)):
        ours, theirs = rows_of(one, number), rows_of(other, number)
        for place in range(max(len(ours), len(theirs))):
            table = projection.table.fullname + (f"[{place}]" if projection.many else "")
            found += [
                (f"{table}.{name}", values)
                for name, values in _row_changes(
                    projection, ours[place : place + 1], theirs[place : place + 1]
                )
            ]
    return found


def _row_changes(projection: Projection, one: Rows, other: Rows) -> list[Change]:
    names = dict.fromkeys(name for rows in (one, other) for row in rows for name in row)
    found: list[Change] = []
    for name in names:
        values = [rows[0].get(name) if rows else None for rows in (one, other)]
        if not (one and other) or _differs(projection, name, *values):
            first, second = [_text(rows[0].get(name)) if rows else None for rows in (one, other)]
            found.append((name, (first, second)))
    return found


def rows_of(batch: StateBatch, number: int) -> Rows:
    """The rows of one projection; none where there is no root row."""
    rows: Rows = parsed(batch.rows[number])
    return rows if batch.present[0] else []


def same_columns(projection: Projection, one: Row, other: Mapping[str, Any], names: Sequence[str]) -> bool:
    """Whether two rows are the same in these columns."""
    return not any(_differs(projection, name, one.get(name), other.get(name)) for name in names)


def _compared(projection: Projection, rows: Rows) -> list[dict[str, Any]]:
    return [{name: _comparable(projection, name, value) for name, value in row.items()} for row in rows]


def _differs(projection: Projection, name: str, one: Any, other: Any) -> bool:
    first, second = (_comparable(projection, name, value) for value in (one, other))
    return type(first) is not type(second) or bool(first != second)


def _comparable(projection: Projection, name: str, value: Any) -> Any:
    column = projection.table.columns.get(name)
    return value if column is None else comparable(column, value)


def _text(value: object) -> str:
    if value is None:
        return "NULL"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
