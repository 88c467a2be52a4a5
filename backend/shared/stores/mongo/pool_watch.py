"""What a client's connection pools are like just now: the driver tells it only to listeners."""

# ruff: noqa: ARG002 - the driver passes each event
from __future__ import annotations

from pymongo.monitoring import (
    ConnectionCheckedInEvent,
    ConnectionCheckedOutEvent,
    ConnectionCheckOutFailedEvent,
    ConnectionCheckOutStartedEvent,
    ConnectionClosedEvent,
    ConnectionCreatedEvent,
    ConnectionPoolListener,
    ConnectionReadyEvent,
    PoolClearedEvent,
    PoolClosedEvent,
    PoolCreatedEvent,
    PoolReadyEvent,
)

from backend.shared.stores.side import Pool


class PoolWatch(ConnectionPoolListener):
    """Counts what is lent out and who waits, over all servers that the client knows. Called by the driver, in its loop."""

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._pools: set[object] = set()
        self._in_use = self._waiting = 0

    def pool(self) -> Pool:
        """As it is now. `size`: as many connections as may be opened to the servers that have a pool."""
        return Pool(size=self._most * max(1, len(self._pools)), in_use=self._in_use, waiting=self._waiting)

    def pool_created(self, event: PoolCreatedEvent) -> None:
        """A server was found."""
        self._pools.add(event.address)

    def pool_closed(self, event: PoolClosedEvent) -> None:
        """A server is gone, or the client was closed."""
        self._pools.discard(event.address)

    def connection_check_out_started(self, event: ConnectionCheckOutStartedEvent) -> None:
        """Somebody asks for a connection."""
        self._waiting += 1

    def connection_check_out_failed(self, event: ConnectionCheckOutFailedEvent) -> None:
        """And has not got one."""
        self._waiting -= 1

    def connection_checked_out(self, event: ConnectionCheckedOutEvent) -> None:
        """And has got one."""
        self._waiting -= 1
        self._in_use += 1

    def connection_checked_in(self, event: ConnectionCheckedInEvent) -> None:
        """And has given it back."""
        self._in_use -= 1

    def pool_ready(self, event: PoolReadyEvent) -> None:
        """Counts for nothing here, as what follows."""

    def pool_cleared(self, event: PoolClearedEvent) -> None:
        """See `pool_ready`."""

    def connection_created(self, event: ConnectionCreatedEvent) -> None:
        """See `pool_ready`."""

    def connection_ready(self, event: ConnectionReadyEvent) -> None:
        """See `pool_ready`."""

    def connection_closed(self, event: ConnectionClosedEvent) -> None:
        """See `pool_ready`."""
