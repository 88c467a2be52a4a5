"""Waiting for several things at once, and for what cannot be cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

T = TypeVar("T")


async def to_the_end(work: Awaitable[T]) -> T:
    """Wait for `work` to end even when cancelled meanwhile, however often; the cancellation comes out afterwards.

    For threads, which go on when their awaiter is cancelled, and for cleaning up: what they start must not come to life
    after everything has been stopped.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # looked at, so that nobody complains that it never was
        raise


async def all_to_the_end(works: Iterable[Awaitable[object]]) -> None:
    """Wait for all of `works`, as `to_the_end` does for one; then the first error among them comes out.

    `asyncio.gather` alone comes back at the first error, with the others' threads still at work.
    """
    for outcome in await to_the_end(asyncio.gather(*works, return_exceptions=True)):
        if isinstance(outcome, BaseException):
            raise outcome


async def all_at_once(*works: Awaitable[None]) -> None:
    """All at once. When one fails, the others end as well, and its error comes out."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def background(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """`work` as a task that is over when the block is left."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task
