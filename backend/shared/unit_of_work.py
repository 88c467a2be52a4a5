"""One unit of work: a callable that runs in one transaction on the authoritative side, and may be run again.

The unit writes ordinary SQLAlchemy through `session`, or, where the same code has to run whichever side is
authoritative, through `shape`, `insert`, `update` and `delete`, which speak of the new side's tables and reach the
legacy tables through the entity's projections.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Column, FromClause, Select, Table, and_, insert, select, update
from sqlalchemy import delete as delete_from
from sqlalchemy.engine import Result
from sqlalchemy.ext.asyncio import AsyncSession

from backend.shared.domain.errors import ConfigurationError
from backend.shared.domain.mapping import EntityCatalog, EntityMapping, Key, encode_key
from backend.shared.domain.phases import Side
from backend.shared.stores.postgres.legacy_shape import LegacyShape

Values = Mapping[Column[Any], Any]


class UnitOfWork:
    """What a unit of work writes through. It does not commit: whoever runs the unit does."""

    def __init__(self, session: AsyncSession, *, side: Side, catalog: EntityCatalog, request_id: str) -> None:
        self.session = session
        self.side = side
        self.request_id = request_id
        self.touched: dict[str, set[str]] = {}
        """Canonical keys that this unit has written through `insert`, `update`, `delete` or `touch`, by entity."""
        self.shaped: set[Table] = set()
        """Tables of the new side that this unit has asked for in that shape."""
        self._catalog = catalog

    def shape(self, table: Table) -> FromClause:
        """A relation with the mapped columns of `table`, on the side that this unit runs on.

        On the new side it is the table itself, on legacy the projection that yields its rows.
        """
        self.shaped.add(table)
        if self.side is Side.NEW:
            return table
        return LegacyShape.of(self._catalog.owner_of(table)).relation(table)

    async def execute(self, statement: Any, parameters: Any = None) -> Result[Any]:
        """Run any statement on this side."""
        result: Result[Any] = await self.session.execute(statement, parameters)
        return result

    async def rows(self, query: Select[Any]) -> list[dict[str, Any]]:
        """All rows of a query as dictionaries."""
        return [dict(row) for row in (await self.session.execute(query)).mappings()]

    async def get(self, entity: str, key: Key, *, for_update: bool = False) -> dict[str, Any] | None:
        """The root row of an entity in the new shape, or None; `for_update` locks it until the unit ends."""
        mapping = self._catalog[entity]
        if for_update and not await self.lock(entity, key):
            return None
        root = mapping.to_new[0]
        relation = self.shape(root.table)
        query = select(relation).where(*_matches(relation, root.key, key))
        row = (await self.session.execute(query)).mappings().first()
        return dict(row) if row is not None else None

    async def lock(self, entity: str, key: Key) -> bool:
        """Hold the entity's row on this side until the unit ends; False if there is none."""
        source = self._catalog[entity].sources(self.side)[0]
        names = source.keys if isinstance(source.keys, tuple) else ()
        query = select(*[source.table.c[name] for name in names]).where(*_matches(source.table, names, key))
        return (await self.session.execute(query.with_for_update())).first() is not None

    def touch(self, entity: str, key: Key) -> None:
        """Say that this unit has written an entity by SQL of its own; only where no trigger captures is it needed."""
        self.touched.setdefault(self._catalog[entity].name, set()).add(encode_key(key))

    async def insert(self, entity: str, values: Values) -> Key:
        """Insert an entity, `values` by column of the new side's tables; answers its key, made by this side if missing."""
        mapping = self._catalog[entity]
        if self.side is Side.LEGACY:
            key = await LegacyShape.of(mapping).insert(self.session, _by_table(mapping, values))
        else:
            key = await _insert_new(self.session, mapping, _by_table(mapping, values))
        self.touch(entity, key)
        return key

    async def update(self, entity: str, key: Key, values: Values) -> bool:
        """Change the columns named in `values`; False if there is no such entity."""
        self.touch(entity, key)
        mapping = self._catalog[entity]
        if self.side is Side.LEGACY:
            return await LegacyShape.of(mapping).update(self.session, key, _by_table(mapping, values))
        return await _update_new(self.session, mapping, key, _by_table(mapping, values))

    async def delete(self, entity: str, key: Key) -> bool:
        """Delete an entity; False if there was none."""
        self.touch(entity, key)
        mapping = self._catalog[entity]
        if self.side is Side.LEGACY:
            return await LegacyShape.of(mapping).delete(self.session, key)
        found = False
        for projection in reversed(mapping.to_new):
            condition = _matches(projection.table, projection.key, key)
            result = await self.session.execute(
                delete_from(projection.table).where(*condition).returning(projection.key_columns[0])
            )
            found = result.first() is not None
        return found


def _matches(relation: FromClause, names: tuple[str, ...], key: Key) -> list[Any]:
    return [relation.c[name] == part for name, part in zip(names, key, strict=True)]


def _by_table(mapping: EntityMapping, values: Values) -> dict[str, dict[str, Any]]:
    """`values` by table name; a column that belongs to no table of the entity is a mistake of the programmer's."""
    tables = {table.name: {} for table in mapping.new_tables()}  # type: dict[str, dict[str, Any]]
    for item, value in values.items():
        if item.table.name not in tables:
            raise ConfigurationError(f"entity {mapping.name} is not kept in {item}")
        tables[item.table.name][item.key] = value
    return tables


async def _insert_new(
    session: AsyncSession, mapping: EntityMapping, values: dict[str, dict[str, Any]]
) -> Key:
    root, *others = mapping.to_new
    statement = insert(root.table).values(values[root.table.name]).returning(*root.key_columns)
    key = tuple((await session.execute(statement)).one())
    for projection in others:
        row = dict(zip(projection.key, key, strict=True)) | values[projection.table.name]
        await session.execute(insert(projection.table).values(row))
    return key


async def _update_new(
    session: AsyncSession, mapping: EntityMapping, key: Key, values: dict[str, dict[str, Any]]
) -> bool:
    found = False
    for number, projection in enumerate(mapping.to_new):
        changed = values[projection.table.name]
        condition = and_(*_matches(projection.table, projection.key, key))
        if changed:
            result = await session.execute(
                update(projection.table).where(condition).values(changed).returning(projection.key_columns[0])
            )
            done = result.first() is not None
        elif number == 0:
            done = (
                await session.execute(select(*projection.key_columns).where(condition))
            ).first() is not None
        else:
            continue
        if number == 0 and not done:
            return False
        if not done:
            row = dict(zip(projection.key, key, strict=True)) | changed
            await session.execute(insert(projection.table).values(row))
        found = True
    return found
