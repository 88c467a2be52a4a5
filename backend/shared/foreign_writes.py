"""What a process has to do with foreign programs: it tells both sides what becomes of their writes, and counts conflicts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from backend.shared.domain.errors import SideError
from backend.shared.domain.phases import Side
from backend.shared.journal.on_sides import count_open_conflicts, foreign_writes_set
from backend.shared.observability.metrics import Metrics
from backend.shared.stores.side import SideStore


class ForeignWritesWatch:
    """`in_use`: the sides that the phase has to do with. A side that was away is told as soon as it is back."""

    def __init__(
        self,
        service: str,
        stores: Mapping[Side, SideStore],
        metrics: Metrics,
        *,
        in_use: Callable[[], Sequence[Side]],
        wanted: Callable[[], str],
    ) -> None:
        self._service = service
        self._stores = stores
        self._metrics = metrics
        self._in_use = in_use
        self._wanted = wanted
        self._untold: set[Side] = set()

    async def tell(self, *sides: Side) -> None:
        """`sides`, which are there, go by what the settings say; the others will. Raises `SideError`."""
        async with foreign_writes_set(self._stores, self._wanted(), sides):
            self._untold = set(Side) - set(sides)

    @asynccontextmanager
    async def changed(self, value: str) -> AsyncIterator[None]:
        """All sides in use go by `value` when this has ended; none, if one of them or the body fails."""
        in_use = self._in_use()
        async with foreign_writes_set(self._stores, value, in_use):
            yield
        self._untold |= set(Side) - set(in_use)
        await self._tell_late(value, set(Side) - set(in_use))

    async def look(self) -> None:
        """Tell a side that is back, and count what both keep."""
        in_use = set(self._in_use())
        await self._tell_late(self._wanted(), self._untold & in_use)
        for side, count in (await count_open_conflicts(self._stores, in_use)).items():
            self._metrics.conflicts_counted(service=self._service, side=side, open_count=count)

    async def _tell_late(self, value: str, sides: set[Side]) -> None:
        for side in sides:
            try:
                async with foreign_writes_set(self._stores, value, (side,)):
                    pass
            except SideError:
                continue
            self._untold.discard(side)
