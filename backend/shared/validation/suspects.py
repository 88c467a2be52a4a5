"""Keys that seem to differ, looked at until each is equal, different, or patience is at an end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from backend.shared.validation.recheck import Look, Recheck

LOOKED_AT_ONCE = 1_000
WAITING_MOST = 20_000
FIRST_WAIT_SECONDS = 0.02
LONGEST_WAIT_SECONDS = 1.0


@dataclass
class Suspects:
    """Keys under suspicion. `convict` gets each that truly differs.

    A key that moves waits here while other work goes on, and only in the end, or when too many wait, is time spent on
    waiting: `patience_seconds` in all. Those that move even then are counted in `still_moving`, and named in `moving` up to
    a bound; of them, a key that has FAILED is convicted, though it may be on its way once more.
    """

    recheck: Recheck
    convict: Callable[[Look], None]
    patience_seconds: float
    still_moving: int = 0
    moving: list[str] = field(default_factory=list)
    _waiting: dict[str, Look | None] = field(default_factory=dict)
    """By key, what was seen of it if it has failed: what others look like need not be kept."""

    @property
    def undecided(self) -> tuple[str, ...]:
        """Keys of which nothing can be said yet."""
        return (*self.moving, *self._waiting)

    @property
    def all_named(self) -> bool:
        """Whether `undecided` names all of them."""
        return self.still_moving == len(self.moving)

    async def add(self, keys: Iterable[str]) -> None:
        """Look at `keys` for the first time."""
        fresh = [key for key in keys if key not in self._waiting]
        for start in range(0, len(fresh), LOOKED_AT_ONCE):
            await self._look(fresh[start : start + LOOKED_AT_ONCE])
            if len(self._waiting) > WAITING_MOST:
                await self.settle()

    async def settle(self) -> None:
        """Look at those that wait again and again, less and less often, until none is left or patience has gone."""
        wait = FIRST_WAIT_SECONDS
        while self._waiting and self.patience_seconds > 0:
            started = time.monotonic()
            await asyncio.sleep(min(wait, self.patience_seconds))
            waiting = list(self._waiting)
            for start in range(0, len(waiting), LOOKED_AT_ONCE):
                await self._look(waiting[start : start + LOOKED_AT_ONCE])
            wait = min(LONGEST_WAIT_SECONDS, wait * 2)
            self.patience_seconds -= time.monotonic() - started
        for key, look in self._waiting.items():
            if look is not None:
                self.convict(look)
                continue
            self.still_moving += 1
            if len(self.moving) < WAITING_MOST:
                self.moving.append(key)
        self._waiting.clear()

    async def _look(self, keys: Sequence[str]) -> None:
        for look in await self.recheck.look(keys):
            if not look.equal and not look.settled:
                self._waiting[look.key] = look if look.failed else None
                continue
            self._waiting.pop(look.key, None)
            if not look.equal:
                self.convict(look)
