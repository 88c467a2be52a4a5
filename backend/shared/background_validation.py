"""Validation in the background: what has changed, often; everything, now and then; by one process of a service at a time."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import structlog

from backend.shared.domain.errors import TandemError
from backend.shared.observability.labels import Verdict
from backend.shared.pausing import pause
from backend.shared.runtime import ServiceRuntime
from backend.shared.stores.errors import describe, is_database_error
from backend.shared.sync_validator import SyncValidator

INTERVAL_CHECKED_SECONDS = 1.0
LOOKS_PER_INTERVAL = 10

log = structlog.get_logger(__name__)


async def validate_periodically(runtime: ServiceRuntime, stop: asyncio.Event) -> None:
    """Validate in the background every `SYNC_INTERVAL` seconds until `stop`, which ends a run in hand too.

    What has changed, and everything once in each `FULL_SYNC_INTERVAL`. Of all processes of a service one is at it at a time,
    and only when it is due for the service. Goes by the settings as they are, also when they change while it waits. Trouble
    is logged and tried again.
    """
    looked, wait = time.monotonic(), 1.0
    while not stop.is_set():
        due = looked + runtime.settings.sync_interval_seconds * wait
        await pause(stop, max(0.0, min(INTERVAL_CHECKED_SECONDS, due - time.monotonic())))
        if time.monotonic() < due or stop.is_set():
            continue
        if runtime.settings.validate_sync and runtime.phase.policy.dual:
            await _until(stop, asyncio.ensure_future(_validate_once(runtime)))
        # Another process may be at it, and die: so look more often than it is due.
        looked, wait = time.monotonic(), 1 / LOOKS_PER_INTERVAL


async def _until(stop: asyncio.Event, work: asyncio.Task[None]) -> None:
    """Await `work`, or cancel it when `stop` comes first."""
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([work, stopped], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        if not work.done():
            work.cancel()
    with suppress(asyncio.CancelledError):
        await work


async def _validate_once(runtime: ServiceRuntime) -> None:
    try:
        report = await SyncValidator(runtime).run_in_background()
    except Exception as error:
        if not is_database_error(error) and not isinstance(error, TandemError):
            raise
        reason = str(error) if isinstance(error, TandemError) else describe(error)
        log.warning("validation_failed", service=runtime.service, error=reason)
        return
    if report is None:
        return
    for entity in report.entities:
        told = log.info if entity.verdict is Verdict.EQUAL else log.warning
        told(
            "entity_validated",
            service=runtime.service,
            entity=entity.entity,
            kind=entity.scope.value,
            verdict=entity.verdict.value,
            rows=entity.rows,
            mismatches=entity.mismatch_count,
            moving=entity.moving,
            seconds=round(entity.duration_seconds, 3),
        )
