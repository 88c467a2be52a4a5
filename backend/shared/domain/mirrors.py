"""Tables that the legacy database never had: a twin of each lives there, in the service's own schema, for as long as it is needed.

A service goes on growing while it is moved. What is new in it (an inbox, a saga, a reservation) has to be written in the same
transaction as what is old, so on whichever side is authoritative, and it has to come along at a cutover: so it is an entity
like any other, of the same shape on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import MetaData, Table

from backend.shared.domain.errors import ConfigurationError
from backend.shared.domain.mapping import EntityMapping, entity_of_table


class Mirrors:
    """The twins of one service's tables, in schema `room` of the legacy side. `tandem install` makes them there."""

    def __init__(self, *, room: str) -> None:
        self.room = room
        self.metadata = MetaData(schema=room)

    def twin(self, table: Table) -> Table:
        """The table on the legacy side that stands for `table` of the new side."""
        found = self.metadata.tables.get(f"{self.room}.{table.name}")
        if found is not None:
            return found
        return table.to_metadata(
            self.metadata,
            schema=self.room,
            referred_schema_fn=lambda _table, to_schema, _constraint, _referred: to_schema,
        )

    def entity(
        self, name: str, table: Table, *, parents: Sequence[str] = (), secret: frozenset[str] = frozenset()
    ) -> EntityMapping:
        """`table` and its twin as an entity whose key is their primary key.

        Raises `ConfigurationError` for a key that the database makes: rows of both sides are to have the same.
        """
        if any(column.identity is not None for column in table.primary_key.columns):
            raise ConfigurationError(f"entity {name}: the key of a mirrored table is given, not made")
        return entity_of_table(name, table, twin=self.twin(table), parents=parents, secret=secret)
