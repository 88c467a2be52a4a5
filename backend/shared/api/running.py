"""What every service's process does: start its parts in order, close them in reverse, and end with one line if it cannot."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import NoReturn, Protocol

from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from backend.shared.domain.errors import TandemError
from backend.shared.dual_write_manager import DualWriteManager
from backend.shared.events.consumer import Consumer
from backend.shared.events.messaging import Messaging
from backend.shared.events.pruning import MessageRetention
from backend.shared.events.transport import Transport
from backend.shared.observability.health import HealthCheck, ProbeCheck
from backend.shared.periodic import every

EXIT_CANNOT_START = 2


class Part(Protocol):
    """Something that a service runs with."""

    async def start(self) -> None:
        """Begin. Raises `TandemError` where the service cannot do without it."""
        ...

    async def close(self) -> None:
        """End, also where it has not begun."""
        ...


@dataclass(frozen=True, kw_only=True)
class ManagerPart:
    """The manager, and the relay in this process if `run_relay`."""

    manager: DualWriteManager
    run_relay: bool

    async def start(self) -> None:
        """Nothing is carried before everything is known to be in place."""
        await self.manager.start()
        await self.manager.check_schema()
        await self.manager.start(relay=self.run_relay)

    async def close(self) -> None:
        """Finish what is under way."""
        await self.manager.close()


def messaging_part(
    manager: DualWriteManager,
    transport: Transport,
    consumer: Consumer,
    *,
    retention: MessageRetention | None,
) -> Messaging:
    """Delivers and takes in for a service that is being moved. From here on its health shows the broker too."""
    if manager.messages is None:
        raise AssertionError(f"{manager.service} has no tables for messages")
    part = Messaging(
        transport,
        manager.messages,
        manager.runtime.engines,
        consumer=consumer,
        phase=lambda: manager.phase,
        retention=retention,
    )
    manager.also_asked = (part.check(),)
    return part


@dataclass(frozen=True, kw_only=True)
class Closing:
    """Something that begins by itself, and has to be let go of."""

    aclose: Callable[[], Awaitable[None]]

    async def start(self) -> None:
        """Nothing."""

    async def close(self) -> None:
        """Let go of it."""
        await self.aclose()


class Repeating:
    """Something that is done every few seconds as long as the service runs."""

    def __init__(self, work: Callable[[], Awaitable[object]], *, seconds: float, service: str) -> None:
        self._work = work
        self._seconds = seconds
        self._service = service
        self._doing: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """From now on."""
        self._doing = asyncio.ensure_future(every(self._seconds, self._work, service=self._service))

    async def close(self) -> None:
        """No more. What is under way is rolled back."""
        if self._doing is not None:
            self._doing.cancel()
            with suppress(asyncio.CancelledError):
                await self._doing
            self._doing = None


def running(
    parts: Sequence[Part], *, on_failed_start: Callable[[TandemError], None] | None = None
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """A lifespan: all are closed in the end, however far they came. A failed start is told to `on_failed_start` first."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for part in parts:
                stack.push_async_callback(part.close)
            try:
                for part in parts:
                    await part.start()
            except TandemError as error:
                if on_failed_start:
                    on_failed_start(error)
                raise
            yield

    return lifespan


def side_checks(manager: DualWriteManager) -> list[HealthCheck]:
    """The side that answers is needed. Without the other one the service goes on, and the journal grows; in `complete` it is let go."""
    engines = manager.runtime.engines
    authoritative = manager.phase.policy.authoritative
    return [
        database_check(f"{side.value} database", engines[side], required=side is authoritative)
        for side in manager.runtime.sides_in_use
    ]


def database_check(name: str, engine: AsyncEngine, *, required: bool = True) -> HealthCheck:
    """Whether a database answers."""

    async def probe() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    return ProbeCheck(name=name, call=probe, required=required)


def end_process(service: str) -> Callable[[TandemError], NoReturn]:
    """Ends with one line: a server would print a trace of its own, and choose the exit code."""

    def end(error: TandemError) -> NoReturn:
        sys.stdout.flush()
        sys.stderr.write(f"{service}: {' '.join(str(error).split())}\n")
        sys.stderr.flush()
        os._exit(EXIT_CANNOT_START)

    return end
