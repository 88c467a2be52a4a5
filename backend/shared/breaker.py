"""A circuit breaker per side: after some failures in a row nobody asks, until a probe in the background succeeds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from backend.shared.domain.errors import SideError, side_error
from backend.shared.domain.outages import Outage
from backend.shared.domain.phases import Side
from backend.shared.observability.labels import BreakerState
from backend.shared.stores.errors import describe, is_database_error

log = structlog.get_logger(__name__)


class CircuitBreaker:
    """Guards the calls to one side.

    Opens after `threshold` unavailabilities in a row. While it is open a background task calls `ping` every
    `probe_seconds`, and the first success closes it. Nothing is asked before a call: a healthy side pays nothing.
    """

    def __init__(
        self,
        ping: Callable[[], Awaitable[None]],
        side: Side,
        *,
        threshold: int = 3,
        probe_seconds: float = 0.5,
        on_change: Callable[[BreakerState], None] | None = None,
    ) -> None:
        self.side = side
        self.state = BreakerState.CLOSED
        self._ping = ping
        self._threshold = threshold
        self._probe_seconds = probe_seconds
        self._on_change = on_change
        self._failures = 0
        self._probe: asyncio.Task[None] | None = None
        self._closed = asyncio.Event()
        self._closed.set()

    @property
    def is_open(self) -> bool:
        """Whether calls are refused."""
        return self.state is BreakerState.OPEN

    def check(self) -> None:
        """Raise an unavailable `SideError` at once if the breaker is open."""
        if self.is_open:
            raise self.error()

    def error(self) -> SideError:
        """What a refused call gets."""
        return side_error(
            self.side,
            "not reachable, circuit breaker is open",
            unavailable=True,
            outage=Outage.CIRCUIT_OPEN,
        )

    def succeeded(self) -> None:
        """A call came through."""
        self._failures = 0

    def failed(self) -> None:
        """A call found the side unavailable."""
        self._failures += 1
        if self._failures >= self._threshold and not self.is_open:
            self._change(BreakerState.OPEN)
            self._closed.clear()
            self._probe = asyncio.get_running_loop().create_task(self._probe_until_closed())

    async def wait_closed(self, timeout_seconds: float) -> bool:
        """Wait until the side is reachable; False if it is not by then."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._closed.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Stop probing."""
        if self._probe:
            self._probe.cancel()
            with suppress(asyncio.CancelledError):
                await self._probe

    async def _probe_until_closed(self) -> None:
        while True:
            await asyncio.sleep(self._probe_seconds)
            try:
                await self._ping()
            except Exception as error:
                if not is_database_error(error):
                    raise
                log.debug("side_probed", side=self.side.value, error=describe(error))
                continue
            self._failures = 0
            self._change(BreakerState.CLOSED)
            self._closed.set()
            return

    def _change(self, state: BreakerState) -> None:
        self.state = state
        log.warning("breaker_changed", side=self.side.value, state=state.value)
        if self._on_change:
            self._on_change(state)
