"""A turnstile: whoever wants to act goes through it, and it can be closed for a while."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class Turnstile:
    """Open at first. `async with` it round each act."""

    def __init__(self) -> None:
        self._is_open = asyncio.Event()
        self._is_open.set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._inside = 0

    async def close(self) -> None:
        """Let nobody in any more, and wait until everybody is out."""
        self._is_open.clear()
        await self._empty.wait()

    def open(self) -> None:
        """Let in who waits, and who comes."""
        self._is_open.set()

    async def __aenter__(self) -> Self:
        while not self._is_open.is_set():  # it may be closed again before this task has its turn
            await self._is_open.wait()
        self._inside += 1
        self._empty.clear()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inside -= 1
        if self._inside == 0:
            self._empty.set()
