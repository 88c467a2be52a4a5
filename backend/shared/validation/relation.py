"""A table as one side has it, and the questions to it: counts and hashes of its rows, by range or bucket of their keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from backend.shared.stores.postgres.key_sql import TEXT, KeyColumns, nth_key
from backend.shared.validation.images import base_type, image, record_hash

_WHOLE_NUMBERS = frozenset({"smallint", "integer", "bigint"})
_HAVE_MAX = frozenset(
    {
        *_WHOLE_NUMBERS,
        "numeric",
        "date",
        "timestamp without time zone",
        "timestamp with time zone",
        "text",
    }
)


@dataclass(frozen=True, kw_only=True)
class KeyColumn:
    """A column of the key: its name as SQL writes it, and its type. Texts are of type `text` whatever their length."""

    name: str
    sql_type: str

    @property
    def is_text(self) -> bool:
        """Whether a collation has a say in the order of its values."""
        return self.sql_type == TEXT


@dataclass(frozen=True, kw_only=True)
class ValueColumn:
    """A column that is compared: its name as SQL writes it, and its type."""

    name: str
    sql_type: str


@dataclass(frozen=True, kw_only=True)
class Relation:
    """One table on one side: `typed` is a query of its columns in the types that both sides are compared in.

    `sorts_by_bytes` says that this side orders the key's texts by their bytes of its own accord, so that an index on them
    serves ranges. Where it does not, ranges are right and slow.
    """

    typed: str
    key: tuple[KeyColumn, ...]
    columns: tuple[ValueColumn, ...]
    sorts_by_bytes: bool = False

    def chunk(self, condition: str) -> str:
        """Count and sum of hashes of the rows under `condition`."""
        return f"SELECT {self._totals} FROM ({self.typed}) AS q {condition}"

    @property
    def knows_its_last(self) -> bool:
        """Whether `next_chunk` can be asked: the key is one column, and the greatest can be told in passing."""
        return len(self.key) == 1 and base_type(self.key[0].sql_type) in _HAVE_MAX

    def next_chunk(self, *, lower: str | None, upper: str | None) -> str:
        """Count, sum of hashes and last key of the `$1` rows that follow the key `lower`, up to `upper`.

        Rows that have the last key too are among them, so that no key is cut in two.
        """
        order = ", ".join(self._ordered.columns)
        return (
            f"SELECT {self._totals}, jsonb_build_array(max({order}))::text AS k FROM (SELECT * FROM ({self.typed}) AS q "
            f"{self.between(lower=lower, upper=upper)} ORDER BY {order} FETCH FIRST ($1::bigint) ROWS WITH TIES) AS q"
        )

    def nth_key(self, *, lower: str | None, upper: str | None) -> str:
        """The `$1`th key that follows the key `lower`, up to `upper`; no row if there are fewer."""
        return nth_key(
            self.typed,
            names=self._columns().columns,
            text=self._key,
            condition=self.between(lower=lower, upper=upper),
            order=self._ordered.columns,
        )

    def parts(self, part: str, condition: str) -> str:
        """Count and sum of hashes of the rows under `condition`, by the number `part`."""
        return f"SELECT {part} AS b, {self._totals} FROM ({self.typed}) AS q {condition} GROUP BY 1"

    def bucket(self, count: int) -> str:
        """The bucket of a row: its key's hash, cut to one of `count` (a power of two)."""
        images = [image(f"q.{part.name}", part.sql_type) for part in self.key]
        return f"({record_hash(images, salt=1)} & {count - 1})"

    def key_hashes(self, condition: str) -> str:
        """Key and hash of each row under `condition`."""
        return f"SELECT {self._key} AS k, {self._hash} AS h FROM ({self.typed}) AS q {condition}"

    def keys(self, condition: str) -> str:
        """Key of each row under `condition`; the other columns are not computed, so none of them can fail."""
        return f"SELECT {self._key} AS k FROM ({self.typed}) AS q {condition}"

    def texts(self, condition: str) -> str:
        """One JSON object for the rows under `condition`: by key, a list of its rows, each with its fields as text."""
        fields = ", ".join(f"(q.{column.name})::text AS {column.name}" for column in self.columns)
        return (
            "SELECT coalesce(json_object_agg(x.k, x.r), '{}')::text FROM ("
            f"SELECT {self._key} AS k, json_agg((SELECT to_json(tandem_f) FROM (SELECT {fields}) AS tandem_f)) AS r "
            f"FROM ({self.typed}) AS q {condition} GROUP BY 1) AS x"
        )

    def bounds(self, *, lower: str | None) -> str:
        """Every `$1`th key in the `$2` rows that follow the key `lower`, in order."""
        names, order = ", ".join(self._columns().columns), ", ".join(self._ordered.columns)
        return (
            f"SELECT {self._columns('b').text} AS k FROM (SELECT {names}, row_number() OVER (ORDER BY {order}) AS tandem_n "
            f"FROM ({self.typed}) AS q {self.between(lower=lower, upper=None)} ORDER BY {order} LIMIT $2::bigint) AS b "
            "WHERE b.tandem_n % $1::bigint = 0 ORDER BY b.tandem_n"
        )

    @property
    def is_numbered(self) -> bool:
        """Whether the key is one whole number."""
        return len(self.key) == 1 and base_type(self.key[0].sql_type) in _WHOLE_NUMBERS

    def extremes(self, condition: str) -> str:
        """The lowest and the highest key under `condition`, where the key is one number."""
        name = f"q.{self.key[0].name}"
        return f"SELECT min({name}) AS low, max({name}) AS high FROM ({self.typed}) AS q {condition}"

    def between(self, *, lower: str | None, upper: str | None) -> str:
        """A condition on the key: above the canonical key in `lower`, up to that in `upper` (both parameters)."""
        return self._ordered.between(lower=lower, upper=upper)

    def among(self, parameter: str) -> str:
        """A condition on the key: one of the canonical keys in the array `parameter`."""
        return f"WHERE {self._columns().among(parameter)}"

    def named(self, parameter: str) -> str:
        """The same as `among`, whatever is in the key, NULL too: it reads all rows."""
        return f"WHERE {self._key} = ANY ({parameter}::text[])"

    def _columns(self, alias: str = "q") -> KeyColumns:
        return KeyColumns(
            columns=[f"{alias}.{part.name}" for part in self.key], types=[part.sql_type for part in self.key]
        )

    @property
    def _ordered(self) -> KeyColumns:
        """The key as both sides sort it, whatever their collations."""
        return self._columns() if self.sorts_by_bytes else self._columns().by_bytes

    @property
    def _key(self) -> str:
        return self._columns().text

    @property
    def _hash(self) -> str:
        return record_hash([image(f"q.{column.name}", column.sql_type) for column in self.columns])

    @property
    def _totals(self) -> str:
        return f"count(*) AS n, coalesce(sum({self._hash}), 0)::text AS h"


@dataclass(frozen=True, kw_only=True)
class TablePair:
    """A table as the two sides have it. Where a Python function makes the rows, `received` is the table that they make.

    `has_ranges` says that both sides have an index on the key as it stands in `typed`, so that ranges of it are cheap.
    """

    source: Relation
    target: Relation
    received: Relation | None = None
    has_ranges: bool = True


class Tables(Protocol):
    """The tables that are compared together: of one entity, root first."""

    @property
    def tables(self) -> Sequence[TablePair]:
        """See `Tables`."""
        ...


class Selection(Protocol):
    """Some keys."""

    def of(self, relation: Relation) -> tuple[str, tuple[Any, ...]]:
        """The condition (a WHERE clause, or nothing) that these are in `relation`, with its parameters from `$1` on."""
        ...


@dataclass(frozen=True, kw_only=True)
class Among:
    """Keys by name, canonical."""

    keys: tuple[str, ...]

    def of(self, relation: Relation) -> tuple[str, tuple[list[str]]]:
        """See `Selection`."""
        return relation.among("$1"), (list(self.keys),)


@dataclass(frozen=True, kw_only=True)
class InBuckets:
    """Keys of some buckets of `count`."""

    buckets: tuple[int, ...]
    count: int

    def of(self, relation: Relation) -> tuple[str, tuple[Any, ...]]:
        """See `Selection`."""
        return f"WHERE {relation.bucket(self.count)} = ANY ($1::bigint[])", (list(self.buckets),)
