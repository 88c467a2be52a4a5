"""SQL of the validator: both sides in the types of the target's columns, hashed where they are.

A row's image is the text of its columns in those types, as a record: NULL is not '', a trailing blank counts, -0 is not 0,
time goes to the microsecond. Images are compared by the sum of their 64-bit hashes and by count per chunk, by hash per
key, and by text per field. Both sides run with the same session settings (UTC), so equal values have equal texts.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Column
from sqlalchemy.types import CHAR, String

from backend.shared.domain.mapping import EntityMapping, Projection
from backend.shared.stores.postgres.names import EngineNames
from backend.shared.stores.postgres.projection_sql import (
    POSITION,
    ProjectionSql,
    key_in,
    key_text,
    quoted,
    sql_type,
)


@dataclass(frozen=True, kw_only=True)
class Relation:
    """One table of the target, as one side has it: name of each column by its typed expression."""

    sql: ProjectionSql
    source: str

    @property
    def typed(self) -> str:
        """A query of the mapped columns in the types of the target."""
        columns = ", ".join(
            f"{_typed(column)} AS {quoted(column.name)}" for column in self.sql.projection.columns
        )
        return f"SELECT {columns} FROM {self.source} AS p"

    def chunk(self, condition: str) -> str:
        """Count and sum of hashes of the rows under `condition`."""
        return f"SELECT count(*) AS n, coalesce(sum({self._hash}::numeric), 0)::text AS h FROM ({self.typed}) AS q {condition}"

    def key_hashes(self, condition: str) -> str:
        """Key and hash of each row under `condition`."""
        return f"SELECT {self._key} AS k, {self._hash}::text AS h FROM ({self.typed}) AS q {condition}"

    def keys(self, condition: str) -> str:
        """Key of each row under `condition`; the other columns are not computed, so none of them can fail."""
        return f"SELECT {self._key} AS k FROM ({self.typed}) AS q {condition}"

    def texts(self) -> str:
        """One JSON object for the keys in `$1`: by key, the fields as text."""
        fields = ", ".join(f"(q.{name})::text AS {name}" for name in self.sql.columns)
        where = key_in(tuple(f"q.{name}" for name in self.sql.key), self.sql.entity, "$1")
        return (
            "SELECT coalesce(json_object_agg(x.k, x.r), '{}')::text FROM ("
            f"SELECT {self._key} AS k, (SELECT to_json(f) FROM (SELECT {fields}) AS f) AS r "
            f"FROM ({self.typed}) AS q WHERE {where}) AS x"
        )

    @property
    def _key(self) -> str:
        return key_text([f"q.{name}" for name in self.sql.key], self.sql.entity.key)

    @property
    def _hash(self) -> str:
        columns = ", ".join(f"q.{name}" for name in self.sql.columns)
        return f"hashtextextended(ROW({columns})::text, 0)"

    def ordered_key(self) -> tuple[str, ...]:
        """The key's columns as both sides sort them, whatever their collations."""
        parts = zip(self.sql.key, self.sql.entity.key, strict=True)
        return tuple(
            f'q.{name} COLLATE "C"' if isinstance(part.type, String) else f"q.{name}" for name, part in parts
        )

    def between(self, *, lower: str | None, upper: str | None) -> str:
        """A condition on the key: above the canonical key in `lower`, up to that in `upper` (both parameters)."""
        conditions = []
        for operator, parameter in ((">", lower), ("<=", upper)):
            if parameter:
                left, right = ", ".join(self.ordered_key()), ", ".join(self._bound(parameter))
                conditions.append(f"({left}) {operator} ({right})")
        return f"WHERE {' AND '.join(conditions)}" if conditions else ""

    def _bound(self, parameter: str) -> list[str]:
        return [
            f"({parameter}::text::jsonb ->> {n})::{sql_type(part.type)}"
            for n, part in enumerate(self.sql.entity.key)
        ]

    def next_bound(self, *, lower: str | None) -> str:
        """The canonical key that stands `$1` rows further on, or none."""
        order = ", ".join(self.ordered_key())
        return (
            f"SELECT {self._key} AS k FROM ({self.typed}) AS q {self.between(lower=lower, upper=None)} "
            f"ORDER BY {order} OFFSET $1 LIMIT 1"
        )


def _typed(column: Column[object]) -> str:
    """`column` in its own type, but never cut to its length: a cast would make a value fit that does not."""
    kind = "bpchar" if isinstance(column.type, CHAR) else "text" if isinstance(column.type, String) else None
    return f"p.{quoted(column.name)}::{kind or sql_type(column.type)}"


@dataclass(frozen=True, kw_only=True)
class EntityStatements:
    """The relations of one entity in one direction, on the source and on the target."""

    entity: EntityMapping
    source: tuple[Relation, ...]
    target: tuple[Relation, ...]

    @classmethod
    def of(cls, entity: EntityMapping, projections: tuple[Projection, ...]) -> EntityStatements:
        """Statements for `projections`."""
        compiled = [ProjectionSql(entity, projection) for projection in projections]
        return cls(
            entity=entity,
            source=tuple(Relation(sql=sql, source=f"({sql.query})") for sql in compiled),
            target=tuple(Relation(sql=sql, source=sql.table) for sql in compiled),
        )

    def look_at_source(self, names: EngineNames) -> str:
        """Position, open and failed keys and fields of the keys `$1` of entity `$2`, in one snapshot."""
        return (
            f"SELECT pos.major, pos.minor, "
            f"(SELECT array_agg(DISTINCT j.key) FROM {names.journal} AS j WHERE j.entity = $2 "
            "AND j.key = ANY ($1::text[])) AS open, "
            f"(SELECT array_agg(f.key) FROM {names.failure} AS f WHERE f.entity = $2 AND f.state = 'open' "
            f"AND f.key = ANY ($1::text[])) AS failed, {_fields(self.source)} FROM ({POSITION}) AS pos"
        )

    def look_at_target(self, names: EngineNames) -> str:
        """Guards and fields of the keys `$1` of entity `$2`, in one snapshot."""
        return (
            f"SELECT (SELECT coalesce(json_object_agg(g.key, json_build_array(g.epoch, g.major, g.minor)), '{{}}')::text "
            f"FROM {names.guard} AS g WHERE g.entity = $2 AND g.key = ANY ($1::text[])) AS guards, "
            f"{_fields(self.target)}"
        )


def _fields(relations: tuple[Relation, ...]) -> str:
    return ", ".join(f"({relation.texts()}) AS rows{n}" for n, relation in enumerate(relations))
