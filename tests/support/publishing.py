"""A broker that does with a message what the test says. Nobody listens to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection

from backend.shared.events.envelope import Envelope, Message
from backend.shared.events.transport import Take


class Publishing:
    """`keep` returns when a message has been kept, and raises where it has not. Implements `Transport`."""

    def __init__(self, keep: Callable[[Envelope], Awaitable[None]]) -> None:
        self._keep = keep

    async def start(self) -> None:
        """There is nothing to connect to."""

    async def stop(self) -> None:
        """Nor to disconnect from."""

    async def ping(self) -> None:
        """It is always there."""

    async def mend(self) -> None:
        """It loses nothing."""

    async def publish(self, envelope: Envelope, body: bytes, *, again: str = "") -> None:
        """As the test says."""
        await self._keep(envelope)

    def subscribe(self, consumer: str, messages: Collection[type[Message]], take: Take) -> None:
        """Nobody does."""
        raise NotImplementedError
