"""`SyncValidator`: says whether both sides of a service hold the same, and which keys do not (R9)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache

import structlog

from backend.shared.domain.errors import TandemError, side_error
from backend.shared.domain.mapping import EntityMapping, Key, encode_key
from backend.shared.domain.phases import Direction, Phase, Side
from backend.shared.observability.admin_views import FieldDifferenceView, ValidationView
from backend.shared.observability.labels import Verdict
from backend.shared.runtime import ServiceRuntime
from backend.shared.stores.postgres.errors import describe, is_database_error
from backend.shared.validation.entity_run import EntityRun
from backend.shared.validation.keys import parse_key
from backend.shared.validation.recheck import Recheck
from backend.shared.validation.report import EntityReport, ValidationReport
from backend.shared.validation.sides import Sides, UnreadableRowError
from backend.shared.validation.statements import EntityStatements

CHUNK_ROWS = 10_000
PATIENCE_SECONDS = 10.0
MISMATCHES_LISTED = 1_000
INTERVAL_CHECKED_SECONDS = 1.0

log = structlog.get_logger(__name__)


@lru_cache(maxsize=1024)
def _statements(entity: EntityMapping, direction: Direction) -> EntityStatements:
    return EntityStatements.of(entity, entity.projections(direction))


class SyncValidator:
    """Compares the sides of one service. Reads only; may run at any time, beside anything.

    `chunk_rows` bounds the rows that are compared at once, and `mismatches_listed` the mismatches that a report names;
    it counts them all.
    """

    def __init__(
        self,
        runtime: ServiceRuntime,
        *,
        chunk_rows: int = CHUNK_ROWS,
        mismatches_listed: int = MISMATCHES_LISTED,
    ) -> None:
        self._runtime = runtime
        self._chunk_rows = chunk_rows
        self._listed = mismatches_listed

    @property
    def direction(self) -> Direction:
        """From the authoritative side to the other; also in a phase that carries nothing any more or yet."""
        return Direction.towards(self._runtime.phase.policy.authoritative.other)

    async def run(
        self,
        entities: Sequence[str] | None = None,
        *,
        show_values: bool = False,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> ValidationReport:
        """Compare all rows of `entities` (all, if None); each has `patience_seconds` for keys that are on their way.

        Raises `SideError` when a side does not answer, and `ConfigurationError` for an entity that there is not.
        """
        runtime, catalog = self._runtime, self._runtime.catalog
        chosen = [catalog[name] for name in entities] if entities else list(catalog.ordered)
        notes = () if runtime.phase.policy.dual else (_not_carried(runtime.phase),)
        reports = []
        for entity in chosen:
            run = EntityRun(
                recheck=self._recheck(entity, show_values=show_values),
                chunk_rows=self._chunk_rows,
                listed=self._listed,
                patience_seconds=patience_seconds,
            )
            report = await self._finished(run, entity)
            runtime.metrics.entity_validated(
                service=runtime.service, entity=entity.name, verdict=report.verdict
            )
            reports.append(report)
        return ValidationReport(entities=tuple(reports), notes=notes)

    async def _finished(self, run: EntityRun, entity: EntityMapping) -> EntityReport:
        try:
            return await run.run()
        except UnreadableRowError as error:
            side = run.recheck.sides.direction.source
            reason = describe(error.__cause__ or error)
            raise side_error(side, f"its keys cannot be read: {reason}", entity=entity.name) from error

    async def validate_key(self, mapping: EntityMapping, key: Key, *, show_values: bool) -> ValidationView:
        """Compare one key now, looking once: a key still on its way is *incomplete*."""
        recheck = self._recheck(mapping, show_values=show_values)
        (look,) = await recheck.look([encode_key(key)])
        direction = recheck.sides.direction
        there = {
            direction.source: look.source.is_there if look.source else None,
            direction.target: look.target.is_there,
        }
        verdict = Verdict.EQUAL
        differences: tuple[FieldDifferenceView, ...] = ()
        if not look.equal:
            verdict = Verdict.DIFFERENT if look.settled else Verdict.INCOMPLETE
            differences = tuple(
                FieldDifferenceView(field=item.field, legacy=item.legacy, new=item.new)
                for item in recheck.mismatch(look).fields
            )
        return ValidationView(
            service=self._runtime.service,
            entity=mapping.name,
            key=look.key,
            verdict=verdict,
            in_legacy=there[Side.LEGACY],
            in_new=there[Side.NEW],
            differences=differences,
            detail=_detail(failed=look.failed, unreadable=look.source is None),
        )

    def _recheck(self, entity: EntityMapping, *, show_values: bool) -> Recheck:
        return Recheck(
            sides=Sides(engines=self._runtime.engines, direction=self.direction),
            names=self._runtime.names,
            statements=_statements(entity, self.direction),
            epoch=self._runtime.control.epoch,
            show_values=show_values,
        )


def _not_carried(phase: Phase) -> str:
    source = phase.policy.authoritative
    return (
        f"phase {phase.value} carries nothing to the {source.other.value} side: it is held against {source.value} "
        "all the same, and what is written meanwhile differs"
    )


def _detail(*, failed: bool, unreadable: bool) -> str | None:
    if failed:
        return "it could not be carried: see the failures"
    return "its row cannot be read in the types of the other side" if unreadable else None


async def validate_periodically(runtime: ServiceRuntime, stop: asyncio.Event) -> None:
    """Validate in the background every `SYNC_INTERVAL` seconds until `stop`, which ends a run in hand too.

    Goes by the settings as they are, also when they change while it waits. Trouble is logged and tried again.
    """
    ended = time.monotonic()
    while not stop.is_set():
        due = ended + runtime.settings.sync_interval_seconds
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, min(INTERVAL_CHECKED_SECONDS, due - time.monotonic()))):
                await stop.wait()
        if time.monotonic() < due or stop.is_set():
            continue
        if runtime.settings.validate_sync and runtime.phase.policy.dual:
            await _until(stop, asyncio.ensure_future(_validate_once(runtime)))
        ended = time.monotonic()


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
        report = await SyncValidator(runtime).run()
    except Exception as error:
        if not is_database_error(error) and not isinstance(error, TandemError):
            raise
        reason = str(error) if isinstance(error, TandemError) else describe(error)
        log.warning("validation_failed", service=runtime.service, error=reason)
        return
    for entity in report.entities:
        told = log.info if entity.verdict is Verdict.EQUAL else log.warning
        told(
            "entity_validated",
            service=runtime.service,
            entity=entity.entity,
            verdict=entity.verdict.value,
            rows=max(entity.rows_legacy, entity.rows_new),
            mismatches=entity.mismatch_count,
            moving=entity.moving,
            seconds=round(entity.duration_seconds, 3),
        )


__all__ = ["SyncValidator", "parse_key", "validate_periodically"]
