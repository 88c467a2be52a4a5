"""The relay: takes journal rows, carries the state of their keys, ends exactly those rows (R2, R5).

One pass is one transaction on the source: the rows are taken, the keys carried and durable on the target, and only
then the taking commits. A relay that dies anywhere leaves the rows to the next one; the guard makes the second carry a
no-op. Any number of relays may run.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

import structlog

from backend.shared.domain.errors import FencedError
from backend.shared.domain.mapping import EntityCatalog
from backend.shared.domain.phases import Direction
from backend.shared.journal.carrier import (
    Carrier,
    Hook,
    KeyOutcome,
    Outcome,
    Outcomes,
    TargetUnavailableError,
    no_hook,
)
from backend.shared.journal.records import Claim, ClaimedKey
from backend.shared.journal.refusals import withdraw_outdated
from backend.shared.journal.sync_telling import BUSY, SyncTelling
from backend.shared.observability.tracing import Span, span
from backend.shared.pausing import backoff
from backend.shared.stores.errors import is_database_error
from backend.shared.stores.protocol import Position
from backend.shared.stores.side import Connection, SideStore

MAX_WAIT_SECONDS = 60.0
FIRST_WAIT_SECONDS = 0.1

_EVENTS = {outcome: f"key_{outcome.value}" for outcome in Outcome}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class RelaySettings:
    """What may change between two passes. Delays are in seconds, the batch in journal rows."""

    batch_size: int = 100
    retry_attempts: int = 3
    retry_delay_seconds: float = 5.0
    epoch: int = 1
    log_all: bool = False


@dataclass(frozen=True, kw_only=True)
class RelayPass:
    """What one pass did, in keys; `rows` in journal rows."""

    rows: int = 0
    carried: int = 0
    skipped: int = 0
    waiting: int = 0
    refused: int = 0
    failed: int = 0
    failed_again: int = 0
    """Those of `failed` that had been FAILED already, and were tried again."""
    seconds: float = 0.0

    @property
    def keys(self) -> int:
        """Keys looked at."""
        return self.carried + self.skipped + self.waiting + self.refused + self.failed


class Relay:
    """Carries one service's journal in one direction. Every public method may be repeated."""

    def __init__(
        self,
        *,
        source: SideStore,
        target: SideStore,
        service: str,
        catalog: EntityCatalog,
        direction: Direction,
        settings: Callable[[], RelaySettings],
        hook: Hook = no_hook,
        on_pass: Callable[[RelayPass], None] | None = None,
        on_unavailable: Callable[[TargetUnavailableError], None] | None = None,
    ) -> None:
        self.direction = direction
        self._service = service
        self._source = source
        self._target = target
        self._catalog = catalog
        self._journal = source.journal
        self._failures = source.failures
        self._settings = settings
        self._hook = hook
        self._on_pass = on_pass
        self._on_unavailable = on_unavailable
        self._wake = asyncio.Event()
        self._telling = SyncTelling(
            source=source, target=target, catalog=catalog, direction=direction, hook=hook
        )
        self._carrier = Carrier(source=source, target=target, catalog=catalog, direction=direction, hook=hook)

    def wake(self) -> None:
        """Tell a relay that runs in this process that there is something to carry."""
        self._wake.set()

    async def run(
        self, stop: asyncio.Event, *, idle_seconds: float = 0.25, paused: Callable[[], bool] = lambda: False
    ) -> None:
        """Carry until `stop` is set. Trouble with a side slows it down and is logged, and never ends it."""
        trouble = 0
        while not stop.is_set():
            self._wake.clear()
            try:
                done = RelayPass() if paused() else await self.run_once()
                trouble = 0
            except (TargetUnavailableError, FencedError) as error:
                trouble += 1
                self._report_unavailable(error, trouble)
                await self._pause(stop, backoff(trouble, first=FIRST_WAIT_SECONDS, most=5.0))
                continue
            if done.rows < self._settings().batch_size:
                await self._pause(stop, idle_seconds)

    async def run_once(self) -> RelayPass:
        """One pass over at most one batch. Raises `TargetUnavailableError` or `FencedError` with the journal as it was."""
        with ExitStack() as spans:
            return await self._pass(spans)

    async def _pass(self, spans: ExitStack) -> RelayPass:
        settings = self._settings()
        started = time.perf_counter()
        try:
            async with self._journal.claiming(limit=settings.batch_size) as (connection, claim):
                if not claim.keys:
                    return RelayPass()
                traced = self._batch_span(spans, claim)
                await self._hook("after_claim")
                outcomes = await self._carrier.carry(self._by_entity(claim), epoch=settings.epoch)
                done, failed = await self._settle(connection, claim, outcomes, settings)
                await self._hook("before_source_commit")
            await self._hook("after_source_commit")
            await withdraw_outdated(
                failed,
                epoch=settings.epoch,
                source=self._source,
                target=self._target,
                catalog=self._catalog,
                by="relay",
            )
        except Exception as error:
            if isinstance(error, TargetUnavailableError | FencedError) or not is_database_error(error):
                raise
            raise TargetUnavailableError(error, side=self.direction.source) from error
        self._log(claim, outcomes, settings)
        done = replace(done, seconds=time.perf_counter() - started)
        traced.note(
            {
                f"tandem.keys.{name}": getattr(done, name)
                for name in ("carried", "waiting", "refused", "failed")
            }
        )
        if self._on_pass:
            self._on_pass(done)
        return done

    async def drain(self, *, timeout_seconds: float) -> bool:
        """Carry until nothing is open but FAILED keys; False if that took longer than `timeout_seconds`."""
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        while asyncio.get_running_loop().time() < deadline:
            done = await self.run_once()
            if done.rows:
                continue
            async with self._source.connect() as connection:
                if (await self._journal.depth(connection)).rows == 0:
                    return True
            await asyncio.sleep(0.02)
        return False

    def _batch_span(self, spans: ExitStack, claim: Claim) -> Span:
        """To the end of `spans`, in a trace of its own: a journal row says which key changed, and not by whom (R2)."""
        told = {
            "tandem.service": self._service,
            "tandem.direction": self.direction.value,
            "tandem.entities": sorted({entity for entity, _ in claim.keys}),
            "tandem.keys": len(claim.keys),
        }
        return spans.enter_context(span("relay batch", told, root=True))

    @staticmethod
    def _by_entity(claim: Claim) -> dict[str, list[str]]:
        keys: dict[str, list[str]] = {}
        for entity, key in claim.keys:
            keys.setdefault(entity, []).append(key)
        return keys

    async def _settle(
        self, connection: Connection, claim: Claim, outcomes: Outcomes, settings: RelaySettings
    ) -> tuple[RelayPass, Outcomes]:
        """Write back what did not go; answers what the pass did, and the keys that it made FAILED."""
        failed: Outcomes = {}
        again = 0
        counts = dict.fromkeys(Outcome, 0)
        gone: dict[tuple[str, str], Position | None] = {}
        for identity, outcome in outcomes.items():
            counts[outcome.outcome] += 1
            claimed = claim.keys.get(identity)
            if outcome.outcome in (Outcome.CARRIED, Outcome.SKIPPED):
                gone[identity] = outcome.position
            elif claimed is None:
                await self._journal.add(connection, identity[0], [identity[1]])
            elif outcome.outcome is Outcome.WAITING:
                await self._wait(connection, claimed, outcome)
            elif (repeated := await self._refuse(connection, claimed, outcome, settings)) is not None:
                failed[identity] = outcome
                again += repeated
        await self._failures.close(connection, gone, epoch=settings.epoch, by="relay")
        await self._telling.tell_target(outcomes, failed=failed, epoch=settings.epoch)
        held = await self._telling.tell_source(connection, outcomes, failed=failed)
        for identity in held & claim.keys.keys():
            busy = KeyOutcome(outcome=Outcome.WAITING, reason=BUSY)
            await self._wait(connection, claim.keys[identity], busy)
        done = RelayPass(
            rows=claim.row_count,
            carried=counts[Outcome.CARRIED],
            skipped=counts[Outcome.SKIPPED],
            waiting=counts[Outcome.WAITING],
            refused=counts[Outcome.REFUSED] - len(failed),
            failed=len(failed),
            failed_again=again,
        )
        return done, failed

    async def _wait(self, connection: Connection, claimed: ClaimedKey, outcome: KeyOutcome) -> None:
        waits = claimed.waits + 1
        delay = backoff(waits, first=FIRST_WAIT_SECONDS, most=MAX_WAIT_SECONDS)
        await self._journal.requeue(
            connection, replace(claimed, waits=waits), delay_seconds=delay, error=outcome.reason
        )

    async def _refuse(
        self, connection: Connection, claimed: ClaimedKey, outcome: KeyOutcome, settings: RelaySettings
    ) -> bool | None:
        """Count an attempt. None if another one follows, else the key is FAILED: True if it has been before."""
        tried = replace(claimed, attempts=claimed.attempts + 1)
        if tried.attempts < settings.retry_attempts:
            delay = backoff(tried.attempts, first=settings.retry_delay_seconds, most=3600.0)
            await self._journal.requeue(connection, tried, delay_seconds=delay, error=outcome.reason)
            return None
        repeated = await self._failures.record(
            connection,
            tried,
            direction=self.direction,
            epoch=settings.epoch,
            position=outcome.position,
            reason=outcome.reason,
            sqlstate=outcome.sqlstate,
        )
        log.log(
            logging.CRITICAL if repeated else logging.ERROR,
            "key_failed_again" if repeated else "key_failed",
            service=self._service,
            entity=tried.entity,
            key=tried.key,
            direction=self.direction.value,
            attempts=tried.attempts,
            reason=outcome.reason,
            request_id=tried.request_id,
        )
        return repeated

    def _log(self, claim: Claim, outcomes: Outcomes, settings: RelaySettings) -> None:
        for identity, outcome in outcomes.items():
            if outcome.outcome in (Outcome.CARRIED, Outcome.SKIPPED) and not settings.log_all:
                continue
            claimed = claim.keys.get(identity)
            log.info(
                _EVENTS[outcome.outcome],
                service=self._service,
                entity=identity[0],
                key=identity[1],
                direction=self.direction.value,
                reason=outcome.reason or None,
                request_id=claimed.request_id if claimed else None,
            )

    def _report_unavailable(self, error: TargetUnavailableError | FencedError, count: int) -> None:
        if self._on_unavailable and isinstance(error, TargetUnavailableError):
            self._on_unavailable(error)
        level = 30 if count in (1, 10, 100) or count % 1000 == 0 else 10
        log.log(
            level,
            "relay_held",
            service=self._service,
            direction=self.direction.value,
            reason=str(error),
        )

    async def _pause(self, stop: asyncio.Event, seconds: float) -> None:
        """Sleep, but not past a wake or a stop."""
        waits = [asyncio.ensure_future(self._wake.wait()), asyncio.ensure_future(stop.wait())]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


__all__ = ["Relay", "RelayPass", "RelaySettings"]
