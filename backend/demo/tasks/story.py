"""What happens in the task service's demo, in order: from `off` to `complete`, with faults and a way back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from backend.demo.errors import StepError
from backend.demo.frame import AFTER_SECONDS, Cast, Story
from backend.demo.waiting import all_at_once
from backend.shared.domain.phases import Phase

from .faults import TaskFaults
from .mending import Mender
from .stack import SERVICE, TaskStack
from .traffic import TaskTraffic

BEFORE_SECONDS = 1.0
"""So long the service runs before anything is begun."""


@dataclass(kw_only=True)
class TasksCast(Cast[TaskTraffic, TaskFaults]):
    """The task service's cast, with who mends the documents that fit no table."""

    mender: Mender


class TasksStory(Story[TasksCast]):
    """The task service's story. The faults while history is moved are spread over `seconds`."""

    def __init__(
        self,
        stack: TaskStack,
        cast: TasksCast,
        *,
        seconds: float,
        before_comparison: Callable[[], Awaitable[None]],
        say: Callable[[str], None],
    ) -> None:
        super().__init__(
            stack,
            cast,
            act="the service is open, MongoDB holds everything",
            before_comparison=before_comparison,
            say=say,
        )
        self._seconds = seconds

    async def run(self) -> None:
        """All of it. Raises `StepError` when something could not be done at all."""
        await asyncio.sleep(BEFORE_SECONDS)
        await self._copy()
        await self._mend()
        self.begin("to shadow: both sides are compared")
        await self._to(Phase.SHADOW)
        await self.validate(SERVICE)
        self.begin("to live: PostgreSQL takes over")
        await self._to(Phase.LIVE)
        self.begin("back to shadow, and up again")
        await self._to(Phase.SHADOW)
        await self.validate(SERVICE)
        await self._to(Phase.LIVE)
        await self._break_while_live()
        self.begin("to rampdown: reads are compared no more")
        await self.validate(SERVICE)
        await self._to(Phase.RAMPDOWN)
        await self.compare(what="all documents with their rows")
        await self._complete()

    async def _copy(self) -> None:
        """Every change is carried from now on; then history is moved, under faults."""
        self.begin("to dualwrite: changes are carried from now on")
        if not await self._to(Phase.DUALWRITE):
            raise StepError(f"{SERVICE}: {self.cast.walk.stuck[SERVICE]}")
        await self.all_answered()
        self.begin("moving history, under faults")
        self.moves_history = True
        await all_at_once(
            self.cast.backfills.run(), self.cast.faults.while_legacy_answers(seconds=self._seconds)
        )
        self.moves_history = False

    async def _mend(self) -> None:
        cast = self.cast
        await cast.faults.quiet()
        self.begin("listing the documents that fit no table")
        await cast.mender.list_all()
        self.begin("mending them")
        await cast.mender.mend_all(somebody=cast.traffic.desk.users[0])

    async def _break_while_live(self) -> None:
        await self.all_answered()
        self.begin("live, under faults")
        await self.cast.faults.while_new_answers()

    async def _complete(self) -> None:
        self.begin("to complete: MongoDB is let go")
        if await self._to(Phase.COMPLETE):
            await self.cast.comparison.service_complete(SERVICE)
        await asyncio.sleep(AFTER_SECONDS)

    async def _to(self, phase: Phase) -> bool:
        return await self.cast.walk.to(SERVICE, phase)
