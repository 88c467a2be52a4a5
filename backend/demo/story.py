"""What happens in the demo, in order: from `off` to `complete`, with faults, a way back and a look at everything."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from backend.shared.domain.phases import Phase

from .errors import StepError
from .faults import Faults
from .frame import AFTER_SECONDS, Cast, Story
from .old_writer import OldWriter
from .stack import Stack
from .traffic import Traffic
from .waiting import all_at_once, to_the_end

GOES_BACK = "cart"
"""The service that is taken from `live` back to `shadow`, and up again."""
BEFORE_SECONDS = 1.0
"""So long the shop is open before anything is begun."""


@dataclass(kw_only=True)
class ShopCast(Cast[Traffic, Faults]):
    """The shop's cast, with the old program."""

    old: OldWriter


class ShopStory(Story[ShopCast]):
    """The shop's story. The faults while history is moved are spread over `seconds`."""

    def __init__(
        self,
        stack: Stack,
        cast: ShopCast,
        *,
        seconds: float,
        before_comparison: Callable[[], Awaitable[None]],
        say: Callable[[str], None],
    ) -> None:
        super().__init__(
            stack,
            cast,
            act="the shop is open, legacy holds everything",
            before_comparison=before_comparison,
            say=say,
        )
        self._seconds = seconds

    def check(self) -> None:
        """Raise what anything that runs beside failed with."""
        self.cast.old.read()
        super().check()

    async def run(self) -> None:
        """All of it. Raises `StepError` when something could not be done at all."""
        await asyncio.sleep(BEFORE_SECONDS)
        await self._copy()
        await self._cut_over()
        await self._go_back_and_up_again()
        await self._break_while_live()
        await self._ramp_down()
        await self.compare(what="all rows of both sides")
        await self._complete()

    async def _copy(self) -> None:
        """Every change is carried from now on; then history is moved. One fault after the other meanwhile."""
        cast = self.cast
        self.begin("to dualwrite: changes are carried from now on")
        await cast.walk.all_to(Phase.DUALWRITE)
        if cast.walk.stuck:
            service, reason = next(iter(cast.walk.stuck.items()))
            raise StepError(f"{service}: {reason}")
        await self.all_answered()
        self.begin("moving history, under faults")
        self.moves_history = True
        await all_at_once(
            asyncio.sleep(self._seconds),
            cast.backfills.run(),
            cast.faults.before_cutover(seconds=self._seconds),
        )
        self.moves_history = False

    async def _cut_over(self) -> None:
        cast = self.cast
        self.begin("to shadow: both sides are compared")
        await cast.walk.all_to(Phase.SHADOW)
        await self.validate(*cast.walk.phases)
        # What it writes would be a conflict as soon as legacy is closed. From here on its end surprises nobody.
        del self._stack.processes[cast.old.process.name]
        await to_the_end(cast.old.stop())
        self.say("the old program has been stopped: legacy is about to be closed to everybody but Tandem")
        self.begin("to live: the new side takes over")
        await cast.walk.all_to(Phase.LIVE)

    async def _go_back_and_up_again(self) -> None:
        self.begin(f"{GOES_BACK}: back to shadow, and up again")
        await self.cast.walk.to(GOES_BACK, Phase.SHADOW)
        await self.validate(GOES_BACK)
        await self.cast.walk.to(GOES_BACK, Phase.LIVE)

    async def _break_while_live(self) -> None:
        await self.all_answered()
        self.begin("live, under faults")
        await self.cast.faults.after_cutover()

    async def _ramp_down(self) -> None:
        self.begin("to rampdown: reads are compared no more")
        await self.validate(*self.cast.walk.phases)
        await self.cast.walk.all_to(Phase.RAMPDOWN)

    async def _complete(self) -> None:
        cast = self.cast
        self.begin("to complete: legacy is let go")
        for service in cast.walk.phases:
            if await cast.walk.to(service, Phase.COMPLETE):
                await cast.comparison.service_complete(service)
        await asyncio.sleep(AFTER_SECONDS)
