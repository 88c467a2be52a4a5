"""Everything that a running service does with messages: deliver what it recorded, take in what it listens to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from backend.shared.domain.phases import Phase, Side
from backend.shared.observability.health import HealthCheck, ProbeCheck
from backend.shared.observability.labels import DeliveryOutcome
from backend.shared.periodic import every

from .consumer import Consumer
from .delivery import Delivery
from .envelope import Envelope, message_types
from .pruning import PASS_SECONDS, MessageRetention, Pruning
from .tables import EventRoom
from .transport import Transport
from .watch import LOOK_SECONDS, MessageWatch, is_delivered_from

PAUSE_SECONDS = 1.0

log = structlog.get_logger(__name__)


def one_database() -> Phase:
    """The phase of a service that has one database: it is as after its move."""
    return Phase.COMPLETE


class Messaging:
    """Starts without the broker, and without a database: each is tried again until it is there.

    `engines` are those of the sides that are delivered from, so of both while a service is being moved; `phase` is the one that
    this process goes by. In `complete` legacy is let go of. What is measured meanwhile is told to the consumer's metrics.
    """

    def __init__(
        self,
        transport: Transport,
        room: EventRoom,
        engines: Mapping[Side, AsyncEngine],
        *,
        consumer: Consumer,
        phase: Callable[[], Phase] = one_database,
        retention: MessageRetention | None = None,
    ) -> None:
        self._service = consumer.service
        self._metrics = consumer.metrics
        self._metrics.declare(self._service, messages=message_types())
        self._transport = transport
        self._phase = phase
        self._deliveries = {
            side: Delivery(engine, room.tables[side], transport, on_delivery=self._count)
            for side, engine in engines.items()
        }
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._watch = MessageWatch(
            self._service, transport, room, engines, phase=phase, metrics=self._metrics
        )
        self._pruning = Pruning(
            self._service,
            room,
            consumer.run,
            retention=retention or MessageRetention(),
            metrics=self._metrics,
        )
        consumer.listen(transport)

    def check(self) -> HealthCheck:
        """Whether the broker answers. Without it the service goes on: messages wait."""

        async def probe() -> None:
            await self._watch.ping()

        return ProbeCheck(name="broker", call=probe, required=False)

    async def start(self) -> None:
        """Begin in the background. Once."""
        self._spawn("start", self._start())
        self._spawn("watch", every(LOOK_SECONDS, self.look, service=self._service))
        self._spawn("mend", every(LOOK_SECONDS, self._transport.mend, service=self._service))
        self._spawn("prune", every(PASS_SECONDS, self._pruning.run, service=self._service))

    async def look(self) -> None:
        """Let go of what is done with, and measure the rest."""
        for side in [side for side in self._deliveries if not is_delivered_from(side, self._phase())]:
            delivery = self._deliveries.pop(side)
            await self._end(_name(side))
            await delivery.stop()
            log.info("delivery_ended", service=self._service, side=side.value)
        await self._watch.look()

    async def _start(self) -> None:
        await self._until_started("broker", self._transport.start)
        for side, delivery in self._deliveries.items():
            if is_delivered_from(side, self._phase()):
                self._spawn(_name(side), self._until_started(_name(side), delivery.start))

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._tasks[name] = asyncio.ensure_future(work)

    async def _end(self, *names: str) -> None:
        tasks = [self._tasks.pop(name) for name in names if name in self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _count(self, envelope: Envelope, outcome: DeliveryOutcome) -> None:
        self._metrics.messages.delivery_finished(service=self._service, kind=envelope.type, outcome=outcome)

    async def _until_started(self, name: str, start: Callable[[], Awaitable[None]]) -> None:
        said = False
        while True:
            try:
                await start()
            except Exception as error:  # noqa: BLE001 - each driver has its own
                if not said:
                    log.warning(
                        "messaging_waits", service=self._service, part=name, error=type(error).__name__
                    )
                said = True
            else:
                log.info("messaging_started", service=self._service, part=name)
                return
            await asyncio.sleep(PAUSE_SECONDS)

    async def close(self) -> None:
        """Finish what is in hand. May be repeated."""
        await self._end(*self._tasks)
        async with AsyncExitStack() as stack:  # all of them, whatever one of them raises
            stack.push_async_callback(self._transport.stop)  # last: what is in hand is still to be delivered
            for delivery in self._deliveries.values():
                stack.push_async_callback(delivery.stop)


def _name(side: Side) -> str:
    return f"{side.value} outbox"
