"""SQL about keys: their canonical text, their parts, ranges of them, and conditions on the columns that hold them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

TEXT = "text"
"""The type in which texts are compared, whatever their length."""


class Ordered(Protocol):
    """What holds keys in an order."""

    def between(self, *, lower: str | None, upper: str | None) -> str:
        """A WHERE clause, or nothing: keys above that which the expression `lower` gives, up to that of `upper`."""
        ...


@dataclass(frozen=True, kw_only=True)
class KeyRange:
    """Keys above `lower` (or from the first) up to `upper` (or to the last), both canonical."""

    lower: str | None = None
    upper: str | None = None

    def of(self, relation: Ordered) -> tuple[str, tuple[str, ...]]:
        """The condition that this range is in `relation`, with its parameters from `$1` on."""
        bounds = tuple(bound for bound in (self.lower, self.upper) if bound is not None)
        condition = relation.between(
            lower="$1" if self.lower is not None else None,
            upper=f"${len(bounds)}" if self.upper is not None else None,
        )
        return condition, bounds

    def literally(self, relation: Ordered) -> str:
        """The same condition without parameters, for COPY, which takes none."""
        return relation.between(
            lower=None if self.lower is None else _literal(self.lower),
            upper=None if self.upper is None else _literal(self.upper),
        )


@dataclass(frozen=True, kw_only=True)
class KeyColumns:
    """The columns (or expressions) that hold a key, and the types of its parts, as SQL writes them."""

    columns: Sequence[str]
    types: Sequence[str]

    @property
    def text(self) -> str:
        """The canonical text of the key."""
        cast = ", ".join(f"({column})::{kind}" for column, kind in zip(self.columns, self.types, strict=True))
        return f"jsonb_build_array({cast})::text"

    @property
    def by_bytes(self) -> KeyColumns:
        """The same columns as every server orders them, whatever its collations: numbers by value, texts by their bytes."""
        return KeyColumns(
            columns=[
                f'{column} COLLATE "C"' if kind == TEXT else column
                for column, kind in zip(self.columns, self.types, strict=True)
            ],
            types=self.types,
        )

    def among(self, parameter: str) -> str:
        """A condition: one of the canonical keys in the array `parameter`.

        For one column it takes the form `= ANY (array)`, which PostgreSQL pushes down to the index.
        """
        keys = f"SELECT {', '.join(parts_of('k', self.types))} FROM unnest({parameter}::text[]) AS k"
        if len(self.columns) == 1:
            return f"{self.columns[0]} = ANY (ARRAY({keys}))"
        return f"({', '.join(self.columns)}) IN ({keys})"

    def between(self, *, lower: str | None, upper: str | None) -> str:
        """See `Ordered`; in the order that the columns have."""
        conditions = [
            f"({', '.join(self.columns)}) {operator} ({', '.join(parts_of(f'{bound}::text', self.types))})"
            for operator, bound in ((">", lower), ("<=", upper))
            if bound is not None
        ]
        return f"WHERE {' AND '.join(conditions)}" if conditions else ""


def parts_of(key: str, types: Iterable[str]) -> list[str]:
    """The parts of a canonical key (an SQL expression of type text) in their types."""
    return [f"({key}::jsonb ->> {n})::{kind}" for n, kind in enumerate(types)]


def also(condition: str, further: str) -> str:
    """`condition` (a WHERE clause, or nothing) and `further`."""
    return f"{condition} AND {further}" if condition else f"WHERE {further}"


def nth_key(rows: str, *, names: Iterable[str], text: str, condition: str, order: Iterable[str]) -> str:
    """The `$1`th key of the query `rows`, called `q`, under `condition` and in `order`; no row if there are fewer.

    Its `text` is made of the one row that is left, not of all that are passed over.
    """
    return (
        f"SELECT {text} AS k FROM (SELECT {', '.join(names)} FROM ({rows}) AS q {condition} "
        f"ORDER BY {', '.join(order)} OFFSET ($1::bigint - 1) LIMIT 1) AS q"
    )


def _literal(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'"
