"""People at work over HTTP, so many at a time."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from .worker import Market, Worker


class Crew(ABC):
    """Workers from `start` to `stop`; each sends one request at a time."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self._tasks: list[asyncio.Task[None]] = []

    @abstractmethod
    async def workers(self) -> Sequence[Worker]:
        """Who works; what they need is looked up first."""

    async def start(self) -> None:
        """Let everybody in."""
        self._tasks = [asyncio.create_task(worker.run()) for worker in await self.workers()]

    def check(self) -> None:
        """Raises what a worker failed with, if one did."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()

    async def hold(self) -> None:
        """Let everybody finish what she is about, and wait until `go_on`."""
        await self.market.turnstile.close()

    def go_on(self) -> None:
        """Let everybody act again."""
        self.market.turnstile.open()

    async def stop(self) -> None:
        """Let everybody finish what she is about; raises what a worker failed with."""
        self.market.stop.set()
        self.go_on()
        await asyncio.gather(*self._tasks)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
