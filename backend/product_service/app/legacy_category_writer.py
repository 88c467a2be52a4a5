"""Writes categories to the legacy table, where a name stands in the paths of all categories below."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from backend.shared import ConflictError, Key

from .legacy_tables import cat
from .models import categories

Rows = dict[str, dict[str, Any]]


class LegacyCategoryWriter:
    """A category's place and name are its path; changing either renames everything below in the same statement."""

    async def insert(self, session: AsyncSession, rows: Rows) -> Key:
        """Raises ConflictError when the parent does not exist."""
        row = rows[categories.name]
        values: dict[str, Any] = {"cat_path": await self._path(session, row.get("parent_id"), row["name"])}
        if row.get("id") is not None:
            values["cat_no"] = row["id"]
        made = await session.execute(insert(cat).values(values).returning(cat.c.cat_no))
        return (made.scalar_one(),)

    async def update(self, session: AsyncSession, key: Key, rows: Rows) -> bool:
        """Rename, move, or both, with all descendants. Raises ConflictError for a move below itself."""
        found = select(cat.c.cat_path).where(cat.c.cat_no == key[0]).with_for_update()
        old = (await session.execute(found)).scalar_one_or_none()
        if old is None:
            return False
        changed = rows[categories.name]
        above, _, last = old.rpartition("/")
        is_child = "/" in old and await self._exists(session, above)
        name = changed.get("name", last if is_child else old)
        if "parent_id" in changed:
            new = await self._path(session, changed["parent_id"], name)
        else:
            new = f"{above}/{name}" if is_child else name
        if new.startswith(f"{old}/"):
            raise ConflictError("a category cannot be moved below itself")
        if new != old:
            await session.execute(
                update(cat)
                .where(or_(cat.c.cat_path == old, func.starts_with(cat.c.cat_path, f"{old}/")))
                .values(cat_path=func.concat(new, func.substr(cat.c.cat_path, len(old) + 1)))
            )
        return True

    async def delete(self, session: AsyncSession, key: Key) -> bool:
        """The caller has seen to it that nothing stands below."""
        gone = await session.execute(delete(cat).where(cat.c.cat_no == key[0]).returning(cat.c.cat_no))
        return gone.first() is not None

    async def _path(self, session: AsyncSession, parent_id: int | None, name: str) -> str:
        if parent_id is None:
            return name
        query = select(cat.c.cat_path).where(cat.c.cat_no == parent_id)
        parent = (await session.execute(query)).scalar_one_or_none()
        if parent is None:
            raise ConflictError(f"category {parent_id} does not exist")
        return f"{parent}/{name}"

    async def _exists(self, session: AsyncSession, path: str) -> bool:
        query = select(cat.c.cat_no).where(cat.c.cat_path == path)
        return (await session.execute(query)).first() is not None
