"""Keeps up with the phase row, says so to whoever changes it, and repeats what the fence has refused on the other side."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import structlog

from backend.shared.control import Control, ControlRepository
from backend.shared.domain.errors import FencedError, TandemError
from backend.shared.domain.phases import Phase
from backend.shared.replicas import Measured, ReplicaRepository, new_replica_id
from backend.shared.stores.errors import describe, is_database_error

FENCED_SECONDS = 10.0
FIRST_FENCED_WAIT_SECONDS = 0.005
LONGEST_FENCED_WAIT_SECONDS = 0.1

T = TypeVar("T")
log = structlog.get_logger(__name__)


class PhaseFollower:
    """What this process knows of the phase. `counted`: whether a change of the phase is to wait for it.

    Whoever writes for the service is; a command that only looks, or changes the phase itself, is not.
    """

    def __init__(
        self,
        *,
        service: str,
        first: Phase,
        controls: ControlRepository,
        replicas: ReplicaRepository,
        on_learnt: Callable[[Control], None],
        measured: Callable[[], Measured],
    ) -> None:
        self.control = Control(phase=first, epoch=0)
        self.counted = True
        self.replica_id = new_replica_id()
        self.changed = asyncio.Event()
        self._service = service
        self._controls = controls
        self._replicas = replicas
        self._on_learnt = on_learnt
        self._measured = measured
        self._reading = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None
        self._under_way = set[asyncio.Task[None]]()

    async def refresh(self) -> None:
        """Read the phase row again; what is known then is not older than this call.

        One reading at a time, so that an older one never comes last; and all who ask before one begins share it, since
        after a cutover every request in hand asks at once.
        """
        if self._next is None:
            self._next = asyncio.ensure_future(self._read())
            self._under_way.add(self._next)
            self._next.add_done_callback(self._under_way.discard)
        await asyncio.shield(self._next)

    async def _read(self) -> None:
        async with self._reading:
            self._next = None
            control = await self._controls.read()
            if control.phase is not self.control.phase or control.epoch != self.control.epoch:
                log.info(
                    "phase_learnt", service=self._service, phase=control.phase.value, epoch=control.epoch
                )
            self.control = control
            self._on_learnt(control)

    async def follow(self) -> None:
        """Read the phase row again, and say that this process goes by it."""
        await self.refresh()
        if self.counted:
            await self._replicas.beat(self.replica_id, self.control, self._measured())

    async def follow_at_once(self) -> None:
        """Follow whenever a change is heard of, until cancelled."""
        while True:
            await self.changed.wait()
            self.changed.clear()
            await self._without_trouble(self.follow)

    async def stop_reading(self) -> None:
        """End the readings under way.

        A reading outlives whoever asked for it, and would bring its connection back to a pool that is gone by then.
        """
        readings = list(self._under_way)
        for reading in readings:
            reading.cancel()
        await asyncio.gather(*readings, return_exceptions=True)
        self._next = None

    async def leave(self) -> None:
        """Say that this process ends; if that cannot be said, the lease runs out."""
        if self.counted:
            with suppress(Exception):
                await self._replicas.leave(self.replica_id)

    async def past_fences(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Do `attempt`; when a fence says that its side is closed, learn the phase again and repeat it, for a while.

        Between the closing of one side and the opening of the other there is a moment without any authority. Raises the
        last `FencedError` if that lasts longer than `FENCED_SECONDS`.
        """
        deadline = time.monotonic() + FENCED_SECONDS
        wait = FIRST_FENCED_WAIT_SECONDS
        while True:
            before = self.control
            try:
                return await attempt()
            except FencedError:
                if time.monotonic() > deadline:
                    raise
            await self._without_trouble(self.refresh)
            if self.control.epoch == before.epoch:
                await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                wait = min(LONGEST_FENCED_WAIT_SECONDS, wait * 2)

    async def _without_trouble(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as error:
            if not is_database_error(error) and not isinstance(error, TandemError):
                raise
            log.warning("refresh_failed", service=self._service, error=describe(error))
