"""A repository over rows: what is the same whatever package talks to the database."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from .shapes import KEY, POSITION, Items, Row, Rows, Shape

Item = TypeVar("Item")
Wanted = TypeVar("Wanted")
_RowLists = dict[str, list[Row]]


class Statements(ABC):
    """The statements that a repository needs, in one transaction, which whoever made it owns.

    The database's errors come out as they are: whoever runs the transaction has to know them in order to repeat it.
    """

    @abstractmethod
    async def find(
        self,
        shape: Shape[Any],
        *,
        equal: Mapping[str, Any],
        within: Mapping[tuple[str, str, str], Any],
        after: str | None = None,
        limit: int,
        lock: bool = False,
    ) -> list[Row]:
        """Rows of the root, by rising key. `within` maps (table, its owner's column, column) to a value to be there."""

    @abstractmethod
    async def items(self, items: Items[Any], *, owners: Sequence[str]) -> list[Row]:
        """The rows of an array of several things, by rising position."""

    @abstractmethod
    async def insert(self, table: str, rows: Sequence[Row]) -> None: ...

    @abstractmethod
    async def update(self, table: str, key: str, values: Row) -> None: ...

    @abstractmethod
    async def delete(self, table: str, *, column: str, value: str) -> bool:
        """Whether there were any."""


class RowRepository(Generic[Item, Wanted]):
    """Things of one shape. `Wanted` is a dataclass whose names the shape knows."""

    def __init__(self, statements: Statements, shape: Shape[Item]) -> None:
        self._statements = statements
        self._shape = shape

    async def get(self, item_id: str, *, lock: bool = False) -> Item | None:
        there = await self._there(item_id, lock=lock)
        return None if there is None else self._shape.of_rows(*there)

    async def list(self, wanted: Wanted, *, after: str | None = None, limit: int) -> list[Item]:
        given = {name: value for name, value in vars(wanted).items() if value is not None}
        owners = {items.table: items.owner for items in self._shape.items}
        within = {
            (table, owners[table], column): given[name]
            for name, (table, column) in self._shape.within.items()
            if name in given
        }
        equal = {column: given[name] for name, column in self._shape.equal.items() if name in given}
        roots = await self._statements.find(self._shape, equal=equal, within=within, after=after, limit=limit)
        items = await self._items([root[KEY] for root in roots])
        return [self._shape.of_rows(root, items[root[KEY]]) for root in roots]

    async def save(self, item: Item) -> None:
        row = self._shape.to_row(item)
        there = await self._there(row[KEY], lock=True)
        if there is None:
            await self._statements.insert(self._shape.table, [row])
        else:
            changed = {name: value for name, value in row.items() if there[0][name] != value}
            if changed:
                await self._statements.update(self._shape.table, row[KEY], changed)
        for items in self._shape.items:
            await self._replace(items, item, key=row[KEY], there=there[1][items.table] if there else ())

    async def delete(self, item_id: str) -> bool:
        for items in self._shape.items:
            await self._statements.delete(items.table, column=items.owner, value=item_id)
        return await self._statements.delete(self._shape.table, column=KEY, value=item_id)

    async def _there(self, item_id: str, *, lock: bool) -> tuple[Row, Mapping[str, Rows]] | None:
        roots = await self._statements.find(self._shape, equal={KEY: item_id}, within={}, limit=1, lock=lock)
        if not roots:
            return None
        return roots[0], (await self._items([item_id]))[item_id]

    async def _items(self, owners: Sequence[str]) -> dict[str, _RowLists]:
        found: dict[str, _RowLists] = {
            owner: {items.table: [] for items in self._shape.items} for owner in owners
        }
        if owners:
            for items in self._shape.items:
                for row in await self._statements.items(items, owners=owners):
                    found[row[items.owner]][items.table].append(row)
        return found

    async def _replace(self, items: Items[Item], item: Item, *, key: str, there: Rows) -> None:
        """Replace the rows of an array as a whole, if they differ."""
        rows = items.rows(item, there)
        if rows == [{name: row[name] for name in items.columns} for row in there]:
            return
        if there:
            await self._statements.delete(items.table, column=items.owner, value=key)
        if rows:
            placed = [{items.owner: key, POSITION: position, **row} for position, row in enumerate(rows)]
            await self._statements.insert(items.table, placed)
