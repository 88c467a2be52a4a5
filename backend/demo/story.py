"""What happens in the demo, in order: from `off` to `complete`, with faults, a way back and a look at everything."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from backend.shared.domain.phases import Phase

from .backfills import Backfills
from .comparison import Comparison
from .errors import StepError
from .faults import Faults
from .ledger import Ledger
from .old_writer import OldWriter
from .operator import Operator
from .phase_walk import PhaseWalk
from .shop import Shop
from .stack import Stack
from .traffic import Traffic
from .waiting import all_at_once, to_the_end
from .watch import JournalWatch

GOES_BACK = "cart"
"""The service that is taken from `live` back to `shadow`, and up again."""
BEFORE_SECONDS = 1.0
"""So long the shop is open before anything is begun."""
AFTER_SECONDS = 4.0
"""So long it goes on when all services are `complete`."""
VALIDATIONS = 5
_INCOMPLETE = 2


@dataclass(kw_only=True)
class Cast:
    """Who and what takes part."""

    ledger: Ledger
    shop: Shop
    traffic: Traffic
    faults: Faults
    old: OldWriter
    watch: JournalWatch
    backfills: Backfills
    operator: Operator
    walk: PhaseWalk
    comparison: Comparison
    traffic_began: float = 0.0
    traffic_seconds: float = 0.0


class Story:
    """Told from beginning to end by `run`, beside the traffic. `act` says what it is at."""

    def __init__(
        self,
        stack: Stack,
        cast: Cast,
        *,
        seconds: float,
        before_comparison: Callable[[Stack], Awaitable[None]],
        say: Callable[[str], None],
    ) -> None:
        self.act = "the shop is open, legacy holds everything"
        self.moves_history = False
        self._stack = stack
        self._cast = cast
        self._seconds = seconds
        self._before_comparison = before_comparison
        self._say = say

    async def run(self) -> None:
        """All of it. Raises `StepError` when something could not be done at all."""
        await asyncio.sleep(BEFORE_SECONDS)
        await self._copy()
        await self._cut_over()
        await self._go_back_and_up_again()
        await self._break_while_live()
        await self._ramp_down()
        await self._compare()
        await self._complete()

    async def _copy(self) -> None:
        """Every change is carried from now on; then history is moved. One fault after the other meanwhile."""
        cast = self._cast
        self._begin("to dualwrite: changes are carried from now on")
        await cast.walk.all_to(Phase.DUALWRITE)
        if cast.walk.stuck:
            service, reason = next(iter(cast.walk.stuck.items()))
            raise StepError(f"{service}: {reason}")
        await self._all_answered()
        self._begin("moving history, under faults")
        self.moves_history = True
        await all_at_once(
            asyncio.sleep(self._seconds),
            cast.backfills.run(),
            cast.faults.before_cutover(seconds=self._seconds),
        )
        self.moves_history = False

    async def _cut_over(self) -> None:
        cast = self._cast
        self._begin("to shadow: both sides are compared")
        await cast.walk.all_to(Phase.SHADOW)
        await self._validate(*cast.walk.phases)
        # What it writes would be a conflict as soon as legacy is closed. From here on its end surprises nobody.
        del self._stack.processes[cast.old.process.name]
        await to_the_end(cast.old.stop())
        self._say("the old program has been stopped: legacy is about to be closed to everybody but Tandem")
        self._begin("to live: the new side takes over")
        await cast.walk.all_to(Phase.LIVE)

    async def _go_back_and_up_again(self) -> None:
        self._begin(f"{GOES_BACK}: back to shadow, and up again")
        await self._cast.walk.to(GOES_BACK, Phase.SHADOW)
        await self._validate(GOES_BACK)
        await self._cast.walk.to(GOES_BACK, Phase.LIVE)

    async def _break_while_live(self) -> None:
        await self._all_answered()
        self._begin("live, under faults")
        await self._cast.faults.after_cutover()

    async def _ramp_down(self) -> None:
        self._begin("to rampdown: reads are compared no more")
        await self._validate(*self._cast.walk.phases)
        await self._cast.walk.all_to(Phase.RAMPDOWN)

    async def _compare(self) -> None:
        """Everybody waits meanwhile, so that nothing is on its way."""
        comparison = self._cast.comparison
        self._begin("everybody waits: draining the journals")
        await self._cast.traffic.hold()
        await comparison.drain()
        await self._before_comparison(self._stack)
        self._begin("everybody waits: comparing all rows of both sides")
        await comparison.compare_sides()
        self._begin("everybody waits: holding the ledger against both sides")
        await comparison.hold_ledger()
        self._cast.traffic.go_on()

    async def _complete(self) -> None:
        cast = self._cast
        self._begin("to complete: legacy is let go")
        for service in cast.walk.phases:
            if await cast.walk.to(service, Phase.COMPLETE):
                await cast.comparison.service_complete(service)
        await asyncio.sleep(AFTER_SECONDS)

    async def _all_answered(self) -> None:
        """Wait until nothing is under way that was so during the last change: a fault would be taken for its work."""
        await self._cast.traffic.hold()
        self._cast.traffic.go_on()

    async def _validate(self, *services: str) -> None:
        """`tandem validate`, all at once. What it finds is for the gates to judge."""
        await self._cast.faults.quiet()
        await all_at_once(*(self._validate_one(service) for service in services))

    async def _validate_one(self, service: str) -> None:
        for _ in range(VALIDATIONS):
            told = await self._cast.operator.run("validate", service, "--json")
            if told.code != _INCOMPLETE:
                break

    def _begin(self, act: str) -> None:
        self.act = act
        self._say(act)
