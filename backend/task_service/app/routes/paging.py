"""Pages of things, by rising id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from backend.shared import ValidationError
from backend.shared.api.pagination import Page, PageRequest

from ..domain.ids import is_id


class _Keyed(Protocol):
    @property
    def id(self) -> str: ...


Item = TypeVar("Item", bound=_Keyed)
Shown = TypeVar("Shown")


def after_id(page: PageRequest, listing: str) -> str | None:
    """The id to go on behind. Raises ValidationError for a cursor that this listing has not given out."""
    after = page.after(listing, types=(str,))
    if after is None:
        return None
    last = str(after[0])
    if not is_id(last):
        raise ValidationError("the cursor is not one that this listing has given out")
    return last


def page_of(
    found: Sequence[Item], *, page: PageRequest, listing: str, shown: Callable[[Item], Shown]
) -> Page[Shown]:
    """A page of `found`, of which the caller fetched up to `limit + 1`."""
    paged = page.page(found, listing=listing, key=lambda item: (item.id,))
    return Page(items=[shown(item) for item in paged.items], next_cursor=paged.next_cursor)
