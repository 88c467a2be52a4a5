"""What happens in the task service's demo, in order: from `off` to `complete`, with faults and a way back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from backend.demo.backfills import Backfills
from backend.demo.comparison import Comparison
from backend.demo.errors import StepError
from backend.demo.ledger import Ledger
from backend.demo.operator import Operator
from backend.demo.phase_walk import PhaseWalk
from backend.demo.shop import Shop
from backend.demo.waiting import all_at_once
from backend.demo.watch import JournalWatch
from backend.shared.domain.phases import Phase

from .faults import TaskFaults
from .mending import Mender
from .stack import SERVICE, TaskStack
from .traffic import TaskTraffic

BEFORE_SECONDS = 1.0
"""So long the service runs before anything is begun."""
AFTER_SECONDS = 4.0
"""So long it goes on when it is `complete`."""
VALIDATIONS = 5
VALIDATION_SECONDS = 900.0
_INCOMPLETE = 2


@dataclass(kw_only=True)
class Cast:
    """Who and what takes part."""

    ledger: Ledger
    shop: Shop
    traffic: TaskTraffic
    faults: TaskFaults
    watch: JournalWatch
    backfills: Backfills
    operator: Operator
    walk: PhaseWalk
    mender: Mender
    comparison: Comparison
    traffic_began: float = 0.0
    traffic_seconds: float = 0.0


class Story:
    """Told from beginning to end by `run`, beside the traffic. `act` says what it is at."""

    def __init__(
        self,
        stack: TaskStack,
        cast: Cast,
        *,
        seconds: float,
        before_comparison: Callable[[TaskStack], Awaitable[None]],
        say: Callable[[str], None],
    ) -> None:
        self.act = "the service is open, MongoDB holds everything"
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
        await self._mend()
        self._begin("to shadow: both sides are compared")
        await self._to(Phase.SHADOW)
        await self._validate()
        self._begin("to live: PostgreSQL takes over")
        await self._to(Phase.LIVE)
        self._begin("back to shadow, and up again")
        await self._to(Phase.SHADOW)
        await self._validate()
        await self._to(Phase.LIVE)
        await self._break_while_live()
        self._begin("to rampdown: reads are compared no more")
        await self._validate()
        await self._to(Phase.RAMPDOWN)
        await self._compare()
        await self._complete()

    async def _copy(self) -> None:
        """Every change is carried from now on; then history is moved, under faults."""
        self._begin("to dualwrite: changes are carried from now on")
        if not await self._to(Phase.DUALWRITE):
            raise StepError(f"{SERVICE}: {self._cast.walk.stuck[SERVICE]}")
        await self._all_answered()
        self._begin("moving history, under faults")
        self.moves_history = True
        await all_at_once(
            self._cast.backfills.run(), self._cast.faults.while_legacy_answers(seconds=self._seconds)
        )
        self.moves_history = False

    async def _mend(self) -> None:
        cast = self._cast
        await cast.faults.quiet()
        self._begin("listing the documents that fit no table")
        await cast.mender.list_all()
        self._begin("mending them")
        await cast.mender.mend_all(somebody=cast.traffic.desk.users[0])

    async def _break_while_live(self) -> None:
        await self._all_answered()
        self._begin("live, under faults")
        await self._cast.faults.while_new_answers()

    async def _compare(self) -> None:
        """Everybody waits meanwhile, so that nothing is on its way."""
        comparison = self._cast.comparison
        self._begin("everybody waits: draining the journals")
        await self._cast.traffic.hold()
        await comparison.drain()
        await self._before_comparison(self._stack)
        self._begin("everybody waits: comparing all documents with their rows")
        await comparison.compare_sides()
        self._begin("everybody waits: holding the ledger against both sides")
        await comparison.hold_ledger()
        self._cast.traffic.go_on()

    async def _complete(self) -> None:
        self._begin("to complete: MongoDB is let go")
        if await self._to(Phase.COMPLETE):
            await self._cast.comparison.service_complete(SERVICE)
        await asyncio.sleep(AFTER_SECONDS)

    async def _to(self, phase: Phase) -> bool:
        return await self._cast.walk.to(SERVICE, phase)

    async def _all_answered(self) -> None:
        """Wait until nothing is under way that was so during the last change: a fault would be taken for its work."""
        await self._cast.traffic.hold()
        self._cast.traffic.go_on()

    async def _validate(self) -> None:
        """`tandem validate`. What it finds is for the gates to judge."""
        await self._cast.faults.quiet()
        for _ in range(VALIDATIONS):
            told = await self._cast.operator.run(
                "validate", SERVICE, "--json", within_seconds=VALIDATION_SECONDS
            )
            if told.code != _INCOMPLETE:
                break

    def _begin(self, act: str) -> None:
        self.act = act
        self._say(act)
