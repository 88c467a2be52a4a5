"""Keys of one entity on one side, in their order, read some way ahead.

A server may have to look at a whole collection to find where a range of keys begins. So many chunks of keys are read at once,
and handed out one by one: memory stays bounded, and the looks are few.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from backend.shared.domain.mapping import EntityMapping
from backend.shared.stores.side import SideStore

CHUNKS_AHEAD = 20


class KeyPages:
    """What `keys_after` answers, but for what has come or gone since it was read ahead: who asks has to be safe from that."""

    def __init__(
        self, store: SideStore, entity: EntityMapping, *, chunk_keys: int, chunks_ahead: int = CHUNKS_AHEAD
    ) -> None:
        self._store = store
        self._entity = entity
        self._limit = chunk_keys
        self._page = chunk_keys * chunks_ahead
        self._keys: Sequence[str] = ()
        self._after: str | None = None
        self._is_read = False

    async def after(self, key: str | None) -> list[str]:
        """The next chunk of keys past `key` (None: from the first); shorter only if it is the end."""
        found = self._known(key)
        if found is None:
            async with self._store.reading() as connection:
                self._keys = await self._store.state.keys_after(
                    connection, self._entity, after=key, limit=self._page
                )
            self._after, self._is_read = key, True
            found = list(self._keys[: self._limit])
        return found

    def _known(self, key: str | None) -> list[str] | None:
        """The chunk, if it lies within what was read."""
        if not self._is_read or (self._after is not None and (key is None or key < self._after)):
            return None
        begins = 0 if key is None else bisect_right(self._keys, key)
        found = list(self._keys[begins : begins + self._limit])
        is_end = len(self._keys) < self._page
        return found if is_end or len(found) == self._limit else None
