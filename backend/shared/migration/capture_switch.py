"""Switches capture on and off, on both sides, as the phase asks (R1).

To switch it waits for whoever writes, and makes the next ones wait: so each side is one transaction with a short timeout, tried
again. Under the number of the change that it belongs to: a controller that comes
late, with a lower number, touches nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from backend.shared.control import Intent
from backend.shared.domain.phases import Phase, Side
from backend.shared.journal.carrier import Hook, no_hook
from backend.shared.migration.cutover import (
    GIVE_UP_SECONDS,
    LOCK_MS,
    ChangeGivenUpError,
    ChangeOvertakenError,
)
from backend.shared.runtime import ServiceRuntime
from backend.shared.stores.side import LockHeldError

_PAUSE_SECONDS = 0.5


class CaptureSwitch:
    """Makes capture on both sides what `phase` asks for. May be repeated."""

    def __init__(
        self,
        runtime: ServiceRuntime,
        intent: Intent,
        *,
        hook: Hook = no_hook,
        give_up_seconds: float = GIVE_UP_SECONDS,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._runtime = runtime
        self._intent = intent
        self._hook = hook
        self._give_up_seconds = give_up_seconds
        self._say = say

    async def put(self, phase: Phase, *, number: int) -> None:
        """Raises `ChangeGivenUpError` if tables stay locked, and `ChangeOvertakenError` where a later change has been.

        A side that was done by then stays done.
        """
        # The closed side first: what foreign programs write there is noticed before anything is built on it.
        for side in sorted(Side, key=lambda side: side is phase.policy.authoritative):
            await self._side(side, phase, number=number)
            await self._hook(f"capture_switched_{side.value}")

    async def _side(self, side: Side, phase: Phase, *, number: int) -> None:
        deadline = time.monotonic() + self._give_up_seconds
        while True:
            try:
                await self._switch(side, phase, number=number)
            except LockHeldError as error:
                if time.monotonic() > deadline:
                    raise ChangeGivenUpError(
                        f"capture on the {side.value} side could not be changed within {self._give_up_seconds:g} s: "
                        "a transaction holds one of the tables"
                    ) from error
            else:
                return
            self._say(f"not yet: a transaction holds a table of the {side.value} side")
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _switch(self, side: Side, phase: Phase, *, number: int) -> None:
        store = self._runtime.stores[side]
        async with store.begin() as connection:
            if not await store.switch_capture(connection, phase=phase, number=number, timeout_ms=LOCK_MS):
                raise ChangeOvertakenError(
                    f"capture on the {side.value} side was changed by a later change already"
                )
            if phase is Phase.OFF and side is Side.LEGACY:
                # Nothing will carry these: whoever goes on from here copies everything again.
                await store.journal.forget(connection)
