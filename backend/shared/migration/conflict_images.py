"""What a conflict's images say: which columns a foreign program changed, and the SQL that does it, or takes it back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from backend.shared.domain.errors import ConflictError
from backend.shared.domain.mapping import EntityCatalog, EntityMapping
from backend.shared.journal.conflict_records import BY_KEY, Conflict
from backend.shared.migration.repair_results import FieldChange
from backend.shared.stores.postgres.projection_sql import quoted, table_name

Row = Mapping[str, Any]
HIDDEN = "***"


def parsed(document: str | None) -> Any:
    """JSON with fractions as they are written, since a float would round them; a zero keeps its sign."""
    return json.loads(document, parse_float=str, parse_int=_whole) if document is not None else None


def _whole(text: str) -> int | str:
    return text if text == "-0" else int(text)


@dataclass(frozen=True, kw_only=True)
class RowImages:
    """One row of `table` before and after a foreign write, in the columns that the mapping knows."""

    entity: EntityMapping
    table: Table
    before: Row | None
    after: Row | None

    @property
    def changed(self) -> tuple[str, ...]:
        """The columns that the statement changed, in the table's order."""
        before, after = self.before or {}, self.after or {}
        return tuple(
            column.name
            for column in self.table.columns
            if column.name in {**before, **after}
            and (
                self.before is None or self.after is None or before.get(column.name) != after.get(column.name)
            )
        )

    @property
    def row_names(self) -> tuple[str, ...]:
        """The columns by which the row is found."""
        keys = next(
            source.keys
            for sources in (self.entity.legacy_sources, self.entity.new_sources)
            for source in sources
            if source.table is self.table and isinstance(source.keys, tuple)
        )
        primary = [column.name for column in self.table.primary_key.columns]
        return tuple(dict.fromkeys([*keys, *primary]))


def images_of(catalog: EntityCatalog, conflict: Conflict) -> RowImages | None:
    """The images of a foreign write; None for a FAILED key, a table that is only looked up, and one no longer mapped."""
    if not conflict.has_images or conflict.operation in BY_KEY:
        return None
    if conflict.entity not in catalog:
        return None
    entity = catalog[conflict.entity]
    for source in entity.sources(conflict.side):
        if source.is_direct and table_name(source.table) == conflict.source_table:
            return RowImages(
                entity=entity,
                table=source.table,
                before=parsed(conflict.before),
                after=parsed(conflict.after),
            )
    return None


def fields_of(catalog: EntityCatalog, conflict: Conflict, *, show_values: bool) -> tuple[FieldChange, ...]:
    """The fields that a conflict is about; values only if asked for, and never those of secret ones."""
    if conflict.entity not in catalog:
        return ()
    entity = catalog[conflict.entity]
    if conflict.operation in BY_KEY:
        return tuple(_failed_fields(entity, conflict, show_values=show_values))
    images = images_of(catalog, conflict)
    if images is None:
        return ()
    return tuple(
        field(
            entity, images.table.fullname, name, _cell(images.before, name), _cell(images.after, name),
            show_values=show_values,
        )
        for name in images.changed
    )  # fmt: skip


def _failed_fields(entity: EntityMapping, conflict: Conflict, *, show_values: bool) -> list[FieldChange]:
    """What either side held: the other one's values stand before, this one's after."""
    there, here = parsed(conflict.before) or {}, parsed(conflict.after) or {}
    found = []
    for tables, is_before in ((there, True), (here, False)):
        for table, rows in tables.items():
            for row in rows:
                for name in row:
                    value = _cell(row, name)
                    before, after = (value, None) if is_before else (None, value)
                    found.append(field(entity, table, name, before, after, show_values=show_values))
    return found


def field(
    entity: EntityMapping, table: str, name: str, before: str | None, after: str | None, *, show_values: bool
) -> FieldChange:
    """A changed field as it may be shown."""
    if not show_values:
        return FieldChange(field=f"{table}.{name}")
    if name in entity.secret:
        before, after = before and HIDDEN, after and HIDDEN
    return FieldChange(field=f"{table}.{name}", before=before, after=after)


def _cell(row: Row | None, name: str) -> str | None:
    """A value as text: NULL for none, None for no row."""
    if row is None:
        return None
    value = row.get(name)
    if value is None:
        return "NULL"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class ImageWriter:
    """Does to a row what its images say, or takes that back, in the caller's transaction on the side of the conflict."""

    def __init__(self, connection: AsyncConnection, conflict: Conflict, images: RowImages) -> None:
        self._connection = connection
        self._conflict = conflict
        self._images = images
        self._table = table_name(images.table)

    async def put(self) -> None:
        """The row is as after the foreign write, in the columns that it changed; with all of them where it was not there."""
        images = self._images
        if images.after is None:
            await self._delete()
        elif await self._exists():
            columns = [name for name in await self._written() if name in images.changed]
            assignments = ", ".join(f"{quoted(name)} = i.{quoted(name)}" for name in columns)
            if assignments:
                await self._run(
                    f"UPDATE {self._table} AS t SET {assignments} FROM {self._record('$1')} AS i WHERE {self._same('i')}",
                    self._conflict.after,
                )
        else:
            await self._insert(self._conflict.after)

    async def take_back(self) -> None:
        """The row is as before the foreign write, where it still is as that left it.

        Raises `ConflictError` if it has been written since, so that there is nothing to take back.
        """
        images = self._images
        if images.after is None:
            if await self._exists():
                raise ConflictError("the row has been written again since: that write stands")
            await self._insert(self._conflict.before)
            return
        columns = [name for name in await self._written() if name in images.changed]
        same = " AND ".join(
            f"t.{quoted(name)}::text IS NOT DISTINCT FROM a.{quoted(name)}::text" for name in columns
        )
        if images.before is None:
            changed = await self._run(
                f"DELETE FROM {self._table} AS t USING {self._record('$1')} AS a WHERE {self._same('a')} AND {same or 'true'}",
                self._conflict.after,
            )
        else:
            assignments = ", ".join(f"{quoted(name)} = b.{quoted(name)}" for name in columns)
            changed = (
                await self._run(
                    f"UPDATE {self._table} AS t SET {assignments} FROM {self._record('$1')} AS a, {self._record('$2')} AS b "
                    f"WHERE {self._same('a')} AND {same}",
                    self._conflict.after,
                    self._conflict.before,
                )
                if columns
                else 1
            )
        if not changed:
            raise ConflictError("the row has been written again since: that write stands")

    async def _exists(self) -> bool:
        image = self._conflict.after if self._conflict.after is not None else self._conflict.before
        found = await self._connection.exec_driver_sql(
            f"SELECT 1 FROM {self._table} AS t, {self._record('$1')} AS i WHERE {self._same('i')} FOR UPDATE OF t",
            (image,),
        )
        return found.first() is not None

    async def _delete(self) -> None:
        await self._run(
            f"DELETE FROM {self._table} AS t USING {self._record('$1')} AS i WHERE {self._same('i')}",
            self._conflict.before,
        )

    async def _insert(self, image: str | None) -> None:
        columns = ", ".join(quoted(name) for name in await self._written())
        await self._run(
            f"INSERT INTO {self._table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {self._record('$1')} AS i",
            image,
        )

    async def _written(self) -> list[str]:
        """The columns of the table that can be written, and that the images have."""
        rows = await self._connection.exec_driver_sql(
            "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped "
            "AND attgenerated = '' ORDER BY attnum",
            (self._table,),
        )
        known = {**(self._images.before or {}), **(self._images.after or {})}
        return [row.attname for row in rows if row.attname in known]

    def _record(self, parameter: str) -> str:
        return f"json_populate_record(NULL::{self._table}, {parameter}::json)"

    def _same(self, alias: str) -> str:
        return " AND ".join(f"t.{quoted(name)} = {alias}.{quoted(name)}" for name in self._images.row_names)

    async def _run(self, statement: str, *images: str | None) -> int:
        return int((await self._connection.exec_driver_sql(statement, images)).rowcount)
