"""The looks of a repair: at keys of any entities, again and again while they are on their way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

from backend.shared.domain.errors import FencedError, side_error
from backend.shared.domain.mapping import EntityMapping
from backend.shared.domain.phases import Direction
from backend.shared.migration.repair_results import Identity
from backend.shared.runtime import ServiceRuntime
from backend.shared.stores.errors import describe
from backend.shared.validation.recheck import Look
from backend.shared.validation.sides import Sides, UnreadableRowError
from backend.shared.validation.unlike import recheck_of

FIRST_WAIT_SECONDS = 0.02
LONGEST_WAIT_SECONDS = 1.0

Help = Callable[[], Awaitable[bool]]
"""Brings keys forward; answers whether there was anything to do."""


class Looks:
    """Looks at keys of one service in one direction and epoch. Reads only."""

    def __init__(self, runtime: ServiceRuntime, *, direction: Direction, epoch: int) -> None:
        self._runtime = runtime
        self._direction = direction
        self._epoch = epoch

    async def check_fence(self) -> None:
        """Raise `FencedError` unless the authoritative side is open and the other one closed, both in this epoch."""
        for side, state in ((self._direction.source, "open"), (self._direction.target, "closed")):
            sides = Sides(engines=self._runtime.engines, direction=self._direction)
            (mark,) = await sides.ask(side, f"SELECT state, epoch FROM {self._runtime.names.mark}")
            if (mark.state, mark.epoch) != (state, self._epoch):
                raise FencedError(
                    f"not {state} in epoch {self._epoch}, so nothing can be repaired",
                    side=side,
                    unavailable=True,
                )

    async def settled(
        self, identities: Iterable[Identity], *, patience_seconds: float, help_along: Help | None = None
    ) -> dict[Identity, Look]:
        """Look at keys until each is equal or can be believed to differ, or patience is at an end."""
        deadline = time.monotonic() + patience_seconds
        waiting, wait = list(identities), FIRST_WAIT_SECONDS
        found: dict[Identity, Look] = {}
        while True:
            found |= await self.once(waiting)
            waiting = [item for item in waiting if not found[item].equal and not found[item].settled]
            left = deadline - time.monotonic()
            if not waiting or left <= 0:
                return found
            if help_along is not None and await help_along():
                continue
            await asyncio.sleep(min(wait, left))
            wait = min(LONGEST_WAIT_SECONDS, wait * 2)

    async def once(self, identities: Iterable[Identity]) -> dict[Identity, Look]:
        """Look at keys once, from the authoritative side to the other."""
        return await self._look(identities, self._direction)

    async def backwards(self, identities: Iterable[Identity]) -> dict[Identity, Look]:
        """What the authoritative side would become, by the other projection, and what it holds itself.

        Only the fields of such a look mean anything: guards and journals are of the other direction.
        """
        return await self._look(identities, Direction.towards(self._direction.source))

    async def _look(self, identities: Iterable[Identity], direction: Direction) -> dict[Identity, Look]:
        by_entity: dict[str, list[str]] = {}
        for entity, key in identities:
            by_entity.setdefault(entity, []).append(key)
        found = {}
        for entity, keys in by_entity.items():
            for look in await self._of(self._runtime.catalog[entity], keys, direction):
                found[entity, look.key] = look
        return found

    async def _of(self, entity: EntityMapping, keys: list[str], direction: Direction) -> list[Look]:
        recheck = recheck_of(
            entity,
            sides=Sides(engines=self._runtime.engines, direction=direction),
            names=self._runtime.names,
            epoch=self._epoch,
            stores=self._runtime.stores,
        )
        try:
            return await recheck.look(keys)
        except UnreadableRowError as error:
            reason = describe(error.__cause__ or error)
            raise side_error(direction.source, f"cannot be read: {reason}", entity=entity.name) from error
