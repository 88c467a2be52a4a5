"""What a process measures once a second: its pools, and the journal of the authoritative side."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping

from backend.shared.domain.phases import Direction, Side
from backend.shared.journal.records import JournalDepth
from backend.shared.observability.metrics import Metrics
from backend.shared.stores.side import SideStore

LAG_WINDOW_SECONDS = 60.0


class LagHistory:
    """What this process has measured within the last minute."""

    def __init__(self) -> None:
        self._lags: deque[tuple[float, float]] = deque()
        self._began = time.monotonic()

    def add(self, lag_seconds: float) -> None:
        """A measurement made now; older ones than a minute are forgotten."""
        now = time.monotonic()
        self._lags.append((now, lag_seconds))
        while self._lags[0][0] < now - LAG_WINDOW_SECONDS:
            self._lags.popleft()

    def highest_within(self, seconds: float) -> float:
        """The highest lag measured in so many seconds until now, in seconds."""
        since = time.monotonic() - seconds
        return max((lag for at, lag in self._lags if at >= since), default=0.0)

    @property
    def seconds(self) -> float:
        """For how long it has been measured, up to a minute."""
        return min(LAG_WINDOW_SECONDS, time.monotonic() - self._began)


class Measuring:
    """Measures, and tells the metrics."""

    def __init__(
        self,
        service: str,
        stores: Mapping[Side, SideStore],
        metrics: Metrics,
    ) -> None:
        self.lags = LagHistory()
        self._service = service
        self._stores = stores
        self._metrics = metrics

    async def measure(self, authoritative: Side) -> JournalDepth:
        """Measure now; raises what the database does when it does not answer."""
        for side, store in self._stores.items():
            if pool := store.pool():
                self._metrics.pool_measured(
                    service=self._service,
                    side=side,
                    in_use_count=pool.in_use,
                    waiting_count=pool.waiting,
                    size_count=pool.size,
                )
        store = self._stores[authoritative]
        async with store.connect() as connection:
            depth = await store.journal.depth(connection)
        self.lags.add(depth.lag_seconds)
        direction = Direction.towards(authoritative.other)
        self._metrics.journal_measured(
            service=self._service,
            direction=direction,
            rows_count=depth.rows,
            lag_seconds=depth.lag_seconds,
        )
        self._metrics.failures_counted(service=self._service, direction=direction, open_count=depth.failures)
        return depth
