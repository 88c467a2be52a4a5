"""After a gap in a change stream: copies again what the authoritative side holds, in a process that carries changes."""

from __future__ import annotations

import asyncio

import structlog

from backend.shared.domain.errors import TandemError
from backend.shared.migration.backfill import Backfill
from backend.shared.pausing import pause
from backend.shared.runtime import ServiceRuntime
from backend.shared.stores.errors import describe, is_database_error
from backend.shared.stores.side import CaptureGap, ChangeStream

LOOKED_SECONDS = 1.0
AGAIN_SECONDS = 10.0

log = structlog.get_logger(__name__)


async def mend_gaps(runtime: ServiceRuntime, stop: asyncio.Event) -> None:
    """Look for gaps until `stop`; each that the authoritative side has had leads to a backfill, aloud.

    Where the side with the gap is secondary nothing is copied: what other programs wrote there meanwhile would be lost. It is
    for a validation to show.
    """
    if all(store.change_stream is None for store in runtime.stores.values()):
        return
    while not stop.is_set():
        mended = await _look(runtime)
        await pause(stop, LOOKED_SECONDS if mended else AGAIN_SECONDS)


async def _look(runtime: ServiceRuntime) -> bool:
    """Whether there is no gap, or none any more."""
    direction = runtime.phase.policy.direction
    stream = runtime.stores[direction.source].change_stream if direction else None
    if stream is None:
        return True
    try:
        gap = await stream.open_gap()
        return gap is None or await mend(runtime, stream, gap)
    except Exception as error:
        if not is_database_error(error) and not isinstance(error, TandemError):
            raise
        reason = str(error) if isinstance(error, TandemError) else describe(error)
        log.critical("gap_not_mended", service=runtime.service, error=reason)
        return False


async def mend(runtime: ServiceRuntime, stream: ChangeStream, gap: CaptureGap) -> bool:
    """Copy everything again; True when that is done. May be repeated, and by several at once."""
    log.critical("gap_backfill_started", service=runtime.service, gap=gap.number, reason=gap.reason)
    status = await Backfill(runtime).run()
    if not status.is_complete:
        return False
    await stream.mended(gap)
    log.warning(
        "gap_backfill_finished", service=runtime.service, gap=gap.number, failures=status.failures_open
    )
    return True


__all__ = ["mend", "mend_gaps"]
