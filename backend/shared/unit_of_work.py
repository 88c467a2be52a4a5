"""One unit of work: a callable that runs in one transaction on the authoritative side, and may be run again.

The unit writes ordinary SQLAlchemy through `session`, or, where the same code has to run whichever side is
authoritative, through `shape`, `insert`, `update` and `delete`, which speak of the new side's tables and reach the
legacy tables through the entity's projections.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    FromClause,
    Select,
    Table,
    Text,
    and_,
    func,
    insert,
    select,
    tuple_,
    update,
)
from sqlalchemy import delete as delete_from
from sqlalchemy.engine import Result
from sqlalchemy.ext.asyncio import AsyncSession

from backend.shared.domain.errors import ConfigurationError, SideError
from backend.shared.domain.mapping import EntityCatalog, EntityMapping, Key, encode_key
from backend.shared.domain.phases import Side
from backend.shared.stores.errors import (
    classify,
    is_connection_loss,
    is_database_error,
    is_repeatable,
    to_side_error,
)
from backend.shared.stores.postgres.legacy_shape import LegacyShape
from backend.shared.stores.protocol import Trouble

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
        self._trouble: Exception | None = None

    def _mapping(self, entity: str | EntityMapping) -> EntityMapping:
        return self._catalog[entity] if isinstance(entity, str) else entity

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

    async def get(
        self, entity: str | EntityMapping, key: Key, *, for_update: bool = False
    ) -> dict[str, Any] | None:
        """The root row of an entity in the new shape, or None; `for_update` locks it until the unit ends."""
        mapping = self._mapping(entity)
        if for_update and not await self.lock(entity, key):
            return None
        root = mapping.to_new[0]
        relation = self.shape(root.table)
        query = select(relation).where(*_matches(relation, root.key, key))
        row = (await self.session.execute(query)).mappings().first()
        return dict(row) if row is not None else None

    async def lock(self, entity: str | EntityMapping, key: Key) -> bool:
        """Hold the entity's row on this side until the unit ends; False if there is none."""
        source = self._mapping(entity).sources(self.side)[0]
        names = source.keys if isinstance(source.keys, tuple) else ()
        query = select(*[source.table.c[name] for name in names]).where(*_matches(source.table, names, key))
        return (await self.session.execute(query.with_for_update())).first() is not None

    async def keep_still(self, entity: str | EntityMapping, keys: Sequence[Key]) -> None:
        """See to it that nobody changes these rows of this side until the unit ends; others may keep them still as well."""
        source = self._mapping(entity).sources(self.side)[0]
        columns = [source.table.c[name] for name in source.keys] if isinstance(source.keys, tuple) else []
        query = select(*columns).where(tuple_(*columns).in_([tuple(key) for key in keys])).order_by(*columns)
        await self.session.execute(query.with_for_update(read=True))

    async def hold_name(self, name: str) -> None:
        """Hold a name alone until the unit ends: for what has no row yet. Names are of the whole database: begin with the service's."""
        key = func.hashtextextended(name, 0, type_=BigInteger)
        await self.session.execute(select(func.pg_advisory_xact_lock(key, type_=Text)))

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """For `async with`: a step that may fail alone. What it wrote is taken back if the body raises, and the unit goes on.

        A deadlock, a serialization failure and a lost connection are no failure of the step: they end the unit, which is run
        again, also where somebody has caught them.
        """
        try:
            async with self.session.begin_nested():
                yield
        except Exception as error:
            if is_database_error(error) and (is_connection_loss(error) or is_repeatable(error)):
                self._trouble = error
            raise

    async def optional(self, step: Callable[[], Awaitable[object]]) -> SideError | None:
        """Do a step that the unit goes on without if the database refuses what it writes: then answers why.

        What it wrote is taken back. A database that cannot answer raises as ever, and so does what is no database error.
        """
        try:
            async with self.savepoint():
                await step()
        except Exception as error:
            if not is_database_error(error) or classify(error) is Trouble.UNAVAILABLE:
                raise
            return to_side_error(error, self.side)
        return None

    def check(self) -> None:
        """Raise what a savepoint saw that ends the unit. Whoever runs the unit asks before the commit."""
        if self._trouble is not None:
            raise self._trouble

    def touch(self, entity: str | EntityMapping, key: Key) -> None:
        """Say that this unit has written an entity by SQL of its own; only where no trigger captures is it needed."""
        self.touched.setdefault(self._mapping(entity).name, set()).add(encode_key(key))

    async def insert(self, entity: str | EntityMapping, values: Values) -> Key:
        """Insert an entity, `values` by column of the new side's tables; answers its key, made by this side if missing."""
        mapping = self._mapping(entity)
        if self.side is Side.LEGACY:
            key = await LegacyShape.of(mapping).insert(self.session, _by_table(mapping, values))
        else:
            key = await _insert_new(self.session, mapping, _by_table(mapping, values))
        self.touch(entity, key)
        return key

    async def update(self, entity: str | EntityMapping, key: Key, values: Values) -> bool:
        """Change the columns named in `values`; False if there is no such entity."""
        self.touch(entity, key)
        mapping = self._mapping(entity)
        if self.side is Side.LEGACY:
            return await LegacyShape.of(mapping).update(self.session, key, _by_table(mapping, values))
        return await _update_new(self.session, mapping, key, _by_table(mapping, values))

    async def delete(self, entity: str | EntityMapping, key: Key) -> bool:
        """Delete an entity; False if there was none."""
        self.touch(entity, key)
        mapping = self._mapping(entity)
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
