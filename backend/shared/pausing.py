"""Waiting: in the background without keeping the end of the process waiting, and before trying again."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Wait for so long, or until `stop` is set."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()


def backoff(attempt: int, *, first: float, most: float) -> float:
    """Seconds to wait after the `attempt`th failure: doubling, between half and all of it at random, at most `most`.

    "Equal jitter" of M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    return min(most, first * 2.0 ** min(attempt - 1, 40)) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
