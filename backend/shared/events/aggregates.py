"""What a service tells of its aggregates, said once more: for a read model that is new, or that was damaged."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.shared.domain.phases import Side
from backend.shared.unit_of_work import UnitOfWork

from .delivered_by import delivered_by
from .envelope import Message
from .outbox import Outbox
from .read_models import Position
from .tables import EventRoom

Page = Callable[[UnitOfWork, Any, int], Awaitable[Sequence[Any]]]
"""Up to so many keys past one (None: from the first on), in an order that the side has, whatever it is."""
Hold = Callable[[UnitOfWork, Sequence[Any]], Awaitable[Mapping[Any, Message]]]
"""What is told of those of some aggregates that exist, by key; nobody changes them until the unit ends."""


@dataclass(frozen=True, kw_only=True)
class ToldAnew:
    """Some aggregates that were told of again, with the positions of that; `last` is the key to go on from.

    `is_last`: there are no more. `has_moved`: nothing was told, for the side is another one, whose order is another.
    """

    side: Side
    last: Any = None
    positions: Mapping[Any, Position]
    is_last: bool = False
    has_moved: bool = False


@dataclass(frozen=True, kw_only=True)
class Aggregates:
    """All aggregates of `service` that it tells of with messages of `kind`. Each method is part of one unit of work."""

    service: str
    kind: type[Message]
    room: EventRoom
    page: Page
    hold: Hold

    async def tell(
        self, work: UnitOfWork, *, after: Any, side: Side | None, limit: int, correlation_id: str
    ) -> ToldAnew:
        """Tell of up to `limit` aggregates past the key `after`, which was learnt on `side`, as they are now.

        They are held from before they are looked at until it is told: so of this and of a change at the same time, whichever
        is the later has the later position.
        """
        if side not in (None, work.side):
            return ToldAnew(side=work.side, positions={}, has_moved=True)
        keys = await self.page(work, after, limit)
        outbox = Outbox(self.room, tells={self.kind}, delivered_by=delivered_by(self.service))
        positions: dict[Any, Position] = {}
        for key, message in (await self.hold(work, keys)).items():
            told = await outbox.record(work, message, correlation_id=correlation_id)
            positions[key] = told.position or (0, 0)
        return ToldAnew(
            side=work.side,
            last=keys[-1] if keys else after,
            positions=positions,
            is_last=len(keys) < limit,
        )

    async def existing(self, work: UnitOfWork, keys: Sequence[Any]) -> frozenset[Any]:
        """Those of `keys` that there are."""
        return frozenset(await self.hold(work, keys))
