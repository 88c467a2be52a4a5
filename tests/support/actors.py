"""Several pieces of the engine's work on one event loop, each of which can be held, let go on, or die at a named step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from tests.support.steps import Crash

GLANCE_SECONDS = 0.005


@dataclass(eq=False)
class Actor:
    """One piece of work. At the `passing`th passing of `step` it is held, or dies if it `crashes`."""

    name: str
    step: str | None = None
    passing: int = 1
    crashes: bool = False
    held: asyncio.Event = field(default_factory=asyncio.Event)
    _go_on: asyncio.Event = field(default_factory=asyncio.Event)
    _passed: int = 0
    task: asyncio.Task[Any] | None = None

    def start(self, work: Awaitable[Any]) -> None:
        """Begin `work` in a context of its own, by which `actors_hook` knows whom it is called by."""

        async def run() -> Any:
            _acting.set(self)
            return await work

        self.task = asyncio.get_running_loop().create_task(run(), name=self.name)

    @property
    def is_over(self) -> bool:
        """Whether the work has ended, in whatever way."""
        return self.task is not None and self.task.done()

    @property
    def is_held(self) -> bool:
        """Whether it stands at its step."""
        return self.held.is_set() and not self._go_on.is_set() and not self.is_over

    def let_go(self, *, crash: bool = False) -> None:
        """Let it go on from its step, or die there; if it has not come there yet, it will not stop."""
        self.crashes = crash
        self._go_on.set()

    async def passes(self, step: str) -> None:
        """Called at each step of the work."""
        if step != self.step:
            return
        self._passed += 1
        if self._passed != self.passing:
            return
        if not self.crashes:
            self.held.set()
            await self._go_on.wait()
        if self.crashes:
            raise Crash(step)


_acting: ContextVar[Actor | None] = ContextVar("acting", default=None)


async def actors_hook(step: str) -> None:
    """The hook of an engine that several actors share."""
    actor = _acting.get()
    if actor is not None:
        await actor.passes(step)


async def settle(
    actors: Sequence[Actor], *, waiting_count: Callable[[], Awaitable[int]], most_seconds: float
) -> None:
    """Wait until each actor has ended, is held, or waits for a lock: then what comes next is for the test to say.

    `waiting_count` says how many connections wait for one.
    Work that waits for something else (a pause after trouble, another's chunk) goes on by itself after `most_seconds`.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + most_seconds
    while running := [actor for actor in actors if not actor.is_over and not actor.is_held]:
        left = deadline - loop.time()
        if left <= 0:
            return
        waits = [asyncio.ensure_future(actor.held.wait()) for actor in running if not actor.held.is_set()]
        tasks = [actor.task for actor in running if actor.task is not None]
        try:
            done, _ = await asyncio.wait(
                [*waits, *tasks], timeout=min(left, GLANCE_SECONDS), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for wait in waits:
                wait.cancel()
        if done:
            continue
        if await waiting_count() >= len(running):
            return
