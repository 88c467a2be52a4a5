"""Short transactions that are simply run again after a conflict: a deadlock, a serialization failure, a write conflict."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from backend.shared.pausing import backoff
from backend.shared.stores.errors import is_repeatable
from backend.shared.stores.side import Connection, SideStore

T = TypeVar("T")
MAX_RUNS = 8


async def repeated(attempt: Callable[[], Awaitable[T]], *, runs: int = MAX_RUNS) -> T:
    """Call `attempt`, each time in a fresh transaction, while it fails by a conflict; with jittered back-off, `runs` times."""
    for run in range(1, runs + 1):
        try:
            return await attempt()
        except Exception as error:
            if run == runs or not is_repeatable(error):
                raise
        await asyncio.sleep(backoff(run, first=0.004, most=0.5))
    raise AssertionError("unreachable: the last run returns or raises")


async def in_transaction(store: SideStore, work: Callable[[Connection], Awaitable[T]]) -> T:
    """Do `work` in a transaction of its own, again after a conflict: it must have no effect outside of it."""

    async def attempt() -> T:
        async with store.begin() as connection:
            return await work(connection)

    return await repeated(attempt)
