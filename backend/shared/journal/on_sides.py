"""What is asked of, or told to, several sides at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from backend.shared.domain.phases import Side
from backend.shared.stores.errors import is_database_error, to_side_error
from backend.shared.stores.side import Connection, SideStore


async def count_open_conflicts(stores: Mapping[Side, SideStore], sides: Iterable[Side]) -> dict[Side, int]:
    """How many conflicts are open on each of `sides` that answers."""
    counts = {}
    for side in sides:
        try:
            async with stores[side].connect() as connection:
                counts[side] = await stores[side].conflicts.count(connection)
        except Exception as error:
            if not is_database_error(error):
                raise
    return counts


@asynccontextmanager
async def foreign_writes_set(
    stores: Mapping[Side, SideStore], value: str, sides: Iterable[Side]
) -> AsyncIterator[None]:
    """All of `sides` go by `value` from when this has ended; none, if the body or a side fails (`SideError`)."""
    async with AsyncExitStack() as stack:
        for side in sides:
            connection = await stack.enter_async_context(_transaction(stores[side]))
            try:
                await stores[side].marks.set_foreign_writes(connection, value)
            except Exception as error:
                if not is_database_error(error):
                    raise
                raise to_side_error(error, side) from error
        yield


@asynccontextmanager
async def _transaction(store: SideStore) -> AsyncIterator[Connection]:
    try:
        async with store.begin() as connection:
            yield connection
    except Exception as error:
        if not is_database_error(error):
            raise
        raise to_side_error(error, store.side) from error
