"""What of two tables is compared: by which key, which columns, and in which types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backend.shared.validation.any_tables.catalog import Column, TableDescription
from backend.shared.validation.any_tables.errors import DiffError
from backend.shared.validation.relation import KeyColumn, Relation, TablePair, ValueColumn

_TEXTS = frozenset({"text", "character varying"})
_WHOLE_NUMBERS = frozenset({"smallint", "integer", "bigint"})
_FLOATS = frozenset({"real", "double precision"})
_AS_THEY_ARE = frozenset(
    {
        *_FLOATS,
        "boolean",
        "numeric",
        "date",
        "timestamp without time zone",
        "timestamp with time zone",
        "time without time zone",
        "interval",
        "uuid",
        "bytea",
    }
)
_SORTED_ALIKE = frozenset(
    {*_WHOLE_NUMBERS, "date", "timestamp without time zone", "timestamp with time zone", "uuid", "text"}
)
"""Types of keys that can be gone through in order: both servers sort them alike, and what is equal prints alike."""


@dataclass(frozen=True, kw_only=True)
class SchemaDifference:
    """A column that cannot be compared, for it is on one side only (None: not there) or of different types."""

    column: str
    a: str | None
    b: str | None

    def __str__(self) -> str:
        if self.a is None:
            return f"column {self.column} is only in B ({self.b})"
        if self.b is None:
            return f"column {self.column} is only in A ({self.a})"
        return f"column {self.column} is {self.a} in A and {self.b} in B: not compared"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the user has chosen; None: by default. `where` is a condition in SQL, put to both tables."""

    key: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    where: str | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How the tables are compared. `differences` make the result *different*, whatever the rows hold; `notes` do not."""

    pair: TablePair
    key: tuple[str, ...]
    columns: tuple[str, ...]
    differences: tuple[SchemaDifference, ...]
    notes: tuple[str, ...]


def make_plan(a: TableDescription, b: TableDescription, choice: Choice) -> Plan:
    """Raises `DiffError` if there is no key, or the choice names what is not there."""
    key, notes = _key(a, b, choice)
    names, differences = _columns(a, b, key, choice)
    for name in names:
        ours, theirs = a.columns[name], b.columns[name]
        if ours.declared != theirs.declared:
            notes.append(
                f"column {name} is {ours.declared} in A and {theirs.declared} in B: compared by value"
            )
    types = {name: _common_type(a.columns[name], b.columns[name]) or "text" for name in names}
    # A key is told as JSON, whose numbers know no -0: two keys would have one name.
    types |= {name: "text" for name in key if types[name] in _FLOATS}
    is_plain = all(a.columns[name].base == b.columns[name].base or types[name] == "text" for name in key)
    has_ranges = (
        is_plain
        and all(types[name] in _SORTED_ALIKE and a.columns[name].built_in for name in key)
        and all(a.columns[name].kind != "e" for name in key)
        and all(table.is_key(key) and table.sorts(key) for table in (a, b))
    )
    source, target = (_relation(table, key, names, types, choice.where) for table in (a, b))
    return Plan(
        pair=TablePair(source=source, target=target, has_ranges=has_ranges),
        key=key,
        columns=tuple(names),
        differences=tuple(differences),
        notes=tuple(notes),
    )


def _key(a: TableDescription, b: TableDescription, choice: Choice) -> tuple[tuple[str, ...], list[str]]:
    if choice.key is None:
        for key in a.unique_keys():
            if all(name in b.columns for name in key) and b.is_key(key) and not _incomparable(a, b, key):
                return key, []
        raise DiffError(
            f"no key that both have: A has {_listed(a)}, B has {_listed(b)}; name its columns with --key"
        )
    key = choice.key
    for label, table in (("A", a), ("B", b)):
        for name in key:
            _must_have(table, name, label)
    if wrong := _incomparable(a, b, key):
        name = wrong[0]
        raise DiffError(
            f"the key's column {name} is {a.columns[name].declared} in A and {b.columns[name].declared} in B"
        )
    unsure = [label for label, table in (("A", a), ("B", b)) if not table.is_key(key)]
    if not unsure:
        return key, []
    who, names = " and ".join(unsure), ", ".join(key)
    note = f"no index of {who} holds the key ({names}) to be unique: rows of one key are compared as a bag"
    return key, [note]


def _columns(
    a: TableDescription, b: TableDescription, key: Sequence[str], choice: Choice
) -> tuple[list[str], list[SchemaDifference]]:
    """Columns to compare, the key's first, and those that cannot be."""
    wanted = [*a.columns, *(name for name in b.columns if name not in a.columns)]
    for name in (*(choice.columns or ()), *choice.exclude):
        if name not in a.columns and name not in b.columns:
            raise DiffError(f"neither A nor B has a column {name}")
    if choice.columns is not None:
        wanted = [name for name in choice.columns if name not in choice.exclude]
    if clash := [name for name in key if name in choice.exclude]:
        raise DiffError(f"column {clash[0]} is of the key and cannot be left out")
    names: list[str] = list(key)
    differences: list[SchemaDifference] = []
    for name in wanted:
        if name in choice.exclude or name in names:
            continue
        ours, theirs = a.columns.get(name), b.columns.get(name)
        if ours is None or theirs is None or _common_type(ours, theirs) is None:
            differences.append(
                SchemaDifference(
                    column=name, a=ours.declared if ours else None, b=theirs.declared if theirs else None
                )
            )
        else:
            names.append(name)
    return names, differences


def _must_have(table: TableDescription, name: str, label: str) -> None:
    if name not in table.columns:
        raise DiffError(f"{label} has no column {name}")


def _incomparable(a: TableDescription, b: TableDescription, names: Sequence[str]) -> list[str]:
    return [name for name in names if _common_type(a.columns[name], b.columns[name]) is None]


def _listed(table: TableDescription) -> str:
    keys = [f"({', '.join(key)})" for key in table.unique_keys()]
    return " and ".join(keys) or "none"


def _common_type(a: Column, b: Column) -> str | None:
    """The type in which the values of both can be compared without loss; None if they are different things.

    Whole numbers of all sizes are one thing, and so are texts of all lengths. Else a type is itself alone: 1.5 is no text,
    json is not jsonb, and a time with zone is not one without.
    """
    if a.base in _WHOLE_NUMBERS and b.base in _WHOLE_NUMBERS:
        return a.base if a.base == b.base else "bigint"
    if a.base in _TEXTS and b.base in _TEXTS:
        return "text"
    if (_unqualified(a), a.kind) != (_unqualified(b), b.kind):
        return None
    # What has no hash that tells all values apart is compared by its text.
    return a.base if a.built_in and a.base in _AS_THEY_ARE else "text"


def _unqualified(column: Column) -> str:
    """The type's name without schema: what a user has made may lie elsewhere on the other side."""
    return column.base if column.built_in else column.base.rpartition(".")[2]


def _relation(
    table: TableDescription,
    key: Sequence[str],
    names: Sequence[str],
    types: dict[str, str],
    where: str | None,
) -> Relation:
    fields = ", ".join(
        f"p.{table.columns[name].quoted}::{types[name]} AS {table.columns[name].quoted}" for name in names
    )
    # The line breaks end a comment that the condition may end with.
    condition = f" WHERE (\n{where}\n)" if where else ""
    return Relation(
        typed=f"SELECT {fields} FROM {table.name} AS p{condition}",
        key=tuple(KeyColumn(name=table.columns[name].quoted, sql_type=types[name]) for name in key),
        columns=tuple(ValueColumn(name=table.columns[name].quoted, sql_type=types[name]) for name in names),
    )
