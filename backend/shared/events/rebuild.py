"""Builds a read model anew under live traffic: its owner tells of everything once more, and what it no longer has goes.

What is told is taken in by the services that run, like any message: it waits its turn, and by its position it never puts
an older state in the place of a newer one. Broken off at any moment this leaves a model that is no worse than before, and
nothing else; run again, it begins again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from backend.shared.domain.errors import AwayError
from backend.shared.domain.phases import Side
from backend.shared.journal.carrier import Hook, no_hook
from backend.shared.unit_of_work import UnitOfWork

from .aggregates import Aggregates, ToldAnew
from .consumer import RunUnit
from .read_models import Position, ReadModel

AT_ONCE = 50
"""Aggregates that are held, and told of, in one transaction."""
ON_THE_WAY = 150
"""No more is told while so much is not taken in: live messages stand behind so many of history and no more."""
GIVE_UP_SECONDS = 60.0
LOOK_SECONDS = 0.05

Say = Callable[["Rebuilt"], None]


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """How far a rebuild is: aggregates told of, those of them that were taken in, and rows removed."""

    told: int = 0
    taken_in: int = 0
    removed: int = 0


class RebuildStalledError(AwayError):
    """What was told is not taken in: the rebuild was given up, and may be begun again."""


class Rebuild:
    """Builds `model` anew. `owner` and `reader` run units of work of the two services, on their authoritative sides.

    Memory is bounded by `ON_THE_WAY`, however much there is. Each `say` tells of progress.
    """

    def __init__(
        self,
        model: ReadModel[Any],
        aggregates: Aggregates,
        *,
        owner: RunUnit,
        reader: RunUnit,
        say: Say = lambda _: None,
        give_up_seconds: float = GIVE_UP_SECONDS,
        hook: Hook = no_hook,
    ) -> None:
        self._model = model
        self._aggregates = aggregates
        self._owner = owner
        self._reader = reader
        self._say = say
        self._give_up_seconds = give_up_seconds
        self._hook = hook
        self._story = f"rebuild-{uuid4()}"
        self._on_the_way: dict[Any, Position] = {}
        self._told = self._taken_in = self._removed = 0
        self._first: Position | None = None
        self._moved_at = time.monotonic()

    async def run(self) -> Rebuilt:
        """Returns when the model holds everything that its owner has, as late as when this was called, and nothing else.

        Raises `SideError` where a database does not answer, and `RebuildStalledError` where for `give_up_seconds` nothing
        that was told was taken in.
        """
        await self._tell_all()
        await self._until_no_more_than(0)
        await self._hook("rebuild_taken_in")
        await self._sweep()
        return self._done

    @property
    def _done(self) -> Rebuilt:
        return Rebuilt(told=self._told, taken_in=self._taken_in, removed=self._removed)

    async def _tell_all(self) -> None:
        after: Any = None
        side: Side | None = None
        while True:
            some = await self._tell(after, side)
            # After a cutover keys may come in another order: from the first on again.
            after, side = (None, some.side) if some.has_moved else (some.last, some.side)
            self._note(some)
            await self._hook("rebuild_told")
            if some.is_last:
                return
            await self._until_no_more_than(ON_THE_WAY - AT_ONCE)

    async def _tell(self, after: Any, side: Side | None) -> ToldAnew:
        async def unit(work: UnitOfWork) -> ToldAnew:
            return await self._aggregates.tell(
                work, after=after, side=side, limit=AT_ONCE, correlation_id=self._story
            )

        return await self._owner("tell_anew", unit)

    def _note(self, some: ToldAnew) -> None:
        for key, position in some.positions.items():
            self._first = min(self._first or position, position)
            self._on_the_way[key] = position
        self._told += len(some.positions)
        self._moved_at = time.monotonic()
        self._say(self._done)

    async def _until_no_more_than(self, count: int) -> None:
        """Wait until no more than so many of those told of are still to be taken in."""
        while True:
            if self._on_the_way:
                await self._look()
            if len(self._on_the_way) <= count:
                return
            if time.monotonic() - self._moved_at > self._give_up_seconds:
                raise RebuildStalledError(
                    f"{len(self._on_the_way)} of {self._told} messages that {self._model.owner} told were not taken in by "
                    f"{self._model.service} within {self._give_up_seconds:g} s: do both run, with the broker, and are "
                    f"there dead letters?"
                )
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        keys = list(self._on_the_way)

        async def unit(work: UnitOfWork) -> dict[Any, Position]:
            return await self._model.positions(work, keys)

        there = await self._reader("look_at_read_model", unit)
        taken_in = [key for key, position in self._on_the_way.items() if there.get(key, (-1, 0)) >= position]
        for key in taken_in:
            del self._on_the_way[key]
        if taken_in:
            self._taken_in += len(taken_in)
            self._moved_at = time.monotonic()
            self._say(self._done)

    async def _sweep(self) -> None:
        """Remove rows older than all that was told, of aggregates that their owner, asked for each, no longer has.

        Whatever is heard between a look and a removal moves the row's position, and it stays.
        """
        kept: set[Any] = set()
        while found := await self._old(len(kept) + AT_ONCE, kept):
            await self._hook("rebuild_found_old")
            existing = await self._existing(list(found))
            kept |= existing
            gone = {key: position for key, position in found.items() if key not in existing}
            await self._hook("rebuild_asked_owner")
            await self._remove(gone)

    async def _old(self, limit: int, but: set[Any]) -> dict[Any, Position]:
        async def unit(work: UnitOfWork) -> dict[Any, Position]:
            return await self._model.before(work, self._first, limit=limit)

        found = await self._reader("look_at_read_model", unit)
        return {key: position for key, position in found.items() if key not in but}

    async def _existing(self, keys: list[Any]) -> frozenset[Any]:
        async def unit(work: UnitOfWork) -> frozenset[Any]:
            return await self._aggregates.existing(work, keys)

        return await self._owner("look_at_aggregates", unit)

    async def _remove(self, gone: dict[Any, Position]) -> None:
        async def unit(work: UnitOfWork) -> int:
            done = [await self._model.remove(work, key, gone[key]) for key in sorted(gone)]
            return done.count(True)

        if gone:
            self._removed += await self._reader("sweep_read_model", unit)
            self._say(self._done)
