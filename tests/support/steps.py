"""Hooks that stop, crash or watch the engine at a named step: races without sleeps."""

from __future__ import annotations

import asyncio


class Crash(BaseException):
    """The process dies here: nothing in the engine may catch it."""


class CrashAt:
    """Dies at the first passing of `step`."""

    def __init__(self, step: str) -> None:
        self.step = step
        self.reached = False

    async def __call__(self, step: str) -> None:
        if step == self.step and not self.reached:
            self.reached = True
            raise Crash(step)


class PauseAt:
    """Holds whoever comes first to `step` until `resume` is set. `steps` are all that were passed, by anybody."""

    def __init__(self, step: str) -> None:
        self.step = step
        self.steps: list[str] = []
        self.reached = asyncio.Event()
        self.resume = asyncio.Event()

    async def __call__(self, step: str) -> None:
        self.steps.append(step)
        if step == self.step and not self.reached.is_set():
            self.reached.set()
            await self.resume.wait()


class Watch:
    """Notes every step."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    async def __call__(self, step: str) -> None:
        self.steps.append(step)
