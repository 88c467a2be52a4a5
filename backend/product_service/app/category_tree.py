"""The tree of categories, as one reading of the database has it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from backend.shared import ConflictError, NotFoundError

from .entities import MAX_CATEGORY_LEVELS, MAX_CATEGORY_PATH


@dataclass(frozen=True, kw_only=True)
class CategoryRow:
    """One category as it is stored."""

    id: int
    parent_id: int | None
    name: str


@dataclass(frozen=True, kw_only=True)
class Category:
    """A category with its place: the names from the root down to it, joined by slashes."""

    id: int
    parent_id: int | None
    name: str
    path: str


class CategoryTree:
    """All categories at one moment. Whoever decides something by it holds the lock of the tree."""

    def __init__(self, rows: Iterable[CategoryRow]) -> None:
        self._rows = {row.id: row for row in rows}
        self._children: dict[int | None, list[int]] = {}
        for row in self._rows.values():
            self._children.setdefault(row.parent_id, []).append(row.id)

    def get(self, category_id: int) -> Category:
        """Raises NotFoundError when there is no such category."""
        row = self._rows.get(category_id)
        if row is None:
            raise NotFoundError(f"category {category_id} does not exist")
        return Category(id=row.id, parent_id=row.parent_id, name=row.name, path=self.path(row.id))

    def path(self, category_id: int) -> str:
        """The names from the root down."""
        return "/".join(reversed([row.name for row in self._upwards(category_id)]))

    def children(self, category_id: int | None) -> list[Category]:
        """The categories right below, or the roots, by name."""
        found = [self._rows[child] for child in self._children.get(category_id, ())]
        return [self.get(row.id) for row in sorted(found, key=lambda row: row.name)]

    def has_children(self, category_id: int) -> bool:
        return bool(self._children.get(category_id))

    def check_place(self, *, parent_id: int | None, name: str, moved: int | None = None) -> None:
        """Raise ConflictError unless a category (`moved`, with all below it, or a new one) may stand there."""
        if parent_id is not None and parent_id not in self._rows:
            raise ConflictError(f"category {parent_id} does not exist")
        if moved is not None and moved in {row.id for row in self._upwards(parent_id)}:
            raise ConflictError("a category cannot be moved below itself")
        path = name if parent_id is None else f"{self.path(parent_id)}/{name}"
        # By path and not among the siblings only: a root that history calls 'A/B' stands in the way of B below A.
        if any(self.path(other) == path for other in self._rows if other != moved):
            raise ConflictError("there is a category of this name in this place")
        self._check_size(parent_id=parent_id, name=name, moved=moved)

    def _check_size(self, *, parent_id: int | None, name: str, moved: int | None) -> None:
        above = list(self._upwards(parent_id))
        levels, length = len(above) + 1, sum(len(row.name) + 1 for row in above) + len(name)
        below_levels, below_length = self._extent(moved) if moved is not None else (0, 0)
        if levels + below_levels > MAX_CATEGORY_LEVELS:
            raise ConflictError(f"categories may be at most {MAX_CATEGORY_LEVELS} levels deep")
        if length + below_length > MAX_CATEGORY_PATH:
            raise ConflictError(f"the path of a category may have at most {MAX_CATEGORY_PATH} characters")

    def _upwards(self, category_id: int | None) -> Iterator[CategoryRow]:
        """The category and its ancestors; stops where rows go in a circle, which only strange programs can make."""
        seen: set[int] = set()
        while category_id is not None and category_id in self._rows and category_id not in seen:
            seen.add(category_id)
            row = self._rows[category_id]
            yield row
            category_id = row.parent_id

    def _extent(self, category_id: int) -> tuple[int, int]:
        """How many levels there are below a category, and how much longer the longest path is than its own."""
        levels = length = 0
        waiting = [(child, 1, 0) for child in self._children.get(category_id, ())]
        seen = {category_id}
        while waiting:
            current, level, above = waiting.pop()
            if current in seen:
                continue
            seen.add(current)
            longer = above + 1 + len(self._rows[current].name)
            levels, length = max(levels, level), max(length, longer)
            waiting += [(child, level + 1, longer) for child in self._children.get(current, ())]
        return levels, length
