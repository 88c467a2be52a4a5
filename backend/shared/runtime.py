"""What a running manager is made of: engines, breakers, the phase it goes by, the relay and the background checks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import structlog

from backend.shared.breaker import CircuitBreaker
from backend.shared.control import Control, ControlRepository
from backend.shared.control_listener import listen
from backend.shared.database import DatabaseLimits
from backend.shared.domain.errors import (
    ConfigurationError,
    ConflictError,
    InstallationError,
    SideError,
    TandemError,
    ValidationError,
    side_error,
)
from backend.shared.domain.mapping import EntityCatalog
from backend.shared.domain.phases import Capture, Direction, Phase, Side
from backend.shared.dual_write_config import Availability, DualWriteSettings
from backend.shared.events.tables import EventRoom
from backend.shared.foreign_writes import ForeignWritesWatch
from backend.shared.journal.carrier import Hook, TargetUnavailableError, no_hook
from backend.shared.journal.records import JournalDepth
from backend.shared.journal.relay import Relay, RelayPass, RelaySettings
from backend.shared.measuring import Measuring
from backend.shared.observability.metrics import Metrics
from backend.shared.open_sides import URL_VARIABLES, SideOpener, engines_of
from backend.shared.periodic import every, kept_up
from backend.shared.phase_follower import PhaseFollower
from backend.shared.replicas import Measured, ReplicaRepository, ShadowTally
from backend.shared.side_watch import SideWatch
from backend.shared.stores.errors import describe, is_database_error, is_unreachable
from backend.shared.stores.mongo.limits import DocumentLimits
from backend.shared.stores.postgres.names import EngineNames
from backend.shared.stores.side import CaptureGap, Connection, StoreKind
from backend.shared.unit_runner import UnitRunner

REFRESH_SECONDS = 1.0
CHECK_SECONDS = 30.0
SIDES_SECONDS = 5.0
START_SECONDS = 10.0

log = structlog.get_logger(__name__)


class ServiceRuntime:
    """The parts of one service's engine in this process. `start` before use, `close` at the end; both may be repeated."""

    def __init__(
        self,
        *,
        service: str,
        catalog: EntityCatalog,
        settings: DualWriteSettings,
        metrics: Metrics,
        limits: DatabaseLimits | None = None,
        document_limits: DocumentLimits | None = None,
        capture: Capture = Capture.TRIGGER,
        messages: EventRoom | None = None,
        hook: Hook = no_hook,
    ) -> None:
        settings.check_entities(catalog)
        self.capture = capture
        self.messages = messages
        self.names = EngineNames(service)
        self.catalog = catalog
        self.metrics = metrics
        self.hook = hook
        self.base_settings = settings
        self.settings = settings
        self.limits = limits or DatabaseLimits()
        self.document_limits = document_limits or DocumentLimits()
        self._opener = SideOpener(
            names=self.names,
            catalog=catalog,
            settings=settings,
            capture=capture,
            limits=self.limits,
            document_limits=self.document_limits,
            hook=hook,
        )
        self.stores = self._opener.open()
        self.engines = engines_of(self.stores)
        """Of the sides that are SQL databases; the new one is, since it keeps the phase row."""
        self.breakers = {
            side: CircuitBreaker(store.ping, side, on_change=partial(self._breaker_changed, side))
            for side, store in self.stores.items()
        }
        self.runners = {side: self._opener.runner(self.stores[side], self.breakers[side]) for side in Side}
        self.controls = ControlRepository(self.engines[Side.NEW], self.names)
        self.replicas = ReplicaRepository(self.engines[Side.NEW], self.names)
        self.shadow_tally = ShadowTally()
        self.following = PhaseFollower(
            service=service,
            first=settings.phase,
            controls=self.controls,
            replicas=self.replicas,
            on_learnt=self._learnt,
            measured=self._measured,
        )
        self.sides = SideWatch(service, self.stores, self.controls, in_use=lambda: self.sides_in_use)
        self.foreign_writes = ForeignWritesWatch(
            service,
            self.stores,
            metrics,
            in_use=lambda: self.sides_in_use,
            wanted=lambda: self.settings.foreign_writes.value,
        )
        self._measuring = Measuring(service, self.stores, metrics)
        self.relays = {direction: self._relay(direction) for direction in Direction}
        self.depth = JournalDepth(rows=0, lag_seconds=0.0, failures=0)
        self._tasks: list[asyncio.Task[None]] = []
        self._endless: list[asyncio.Task[None]] = []
        self.stop = asyncio.Event()
        self._started = False
        self._relay_started = False
        self._start_lock = asyncio.Lock()

    @property
    def service(self) -> str:
        """The service's name."""
        return self.names.service

    @property
    def control(self) -> Control:
        """The phase row as this process knows it."""
        return self.following.control

    @property
    def phase(self) -> Phase:
        """The phase that this process goes by."""
        return self.control.phase

    def journals_touched(self, side: Side) -> bool:
        """Whether units of work on `side` write the journal themselves in the present phase."""
        by_unit = self.capture is Capture.UNIT or self.stores[side].kind is StoreKind.MONGO
        return by_unit and self.phase.policy.dual

    @property
    def relay_running(self) -> bool:
        """Whether a relay runs in this process."""
        return self._relay_started

    @property
    def both_sql(self) -> bool:
        """Whether both sides are SQL databases: then rows need not pass through Python."""
        return all(store.kind is StoreKind.POSTGRES for store in self.stores.values())

    def sql_runner(self, side: Side) -> UnitRunner:
        """The runner of a side that is an SQL database; raises `ConflictError` where it is none."""
        runner = self.runners[side]
        if not isinstance(runner, UnitRunner):
            raise ConflictError(f"the {side.value} side holds documents: this is for SQL databases only")
        return runner

    async def start(self) -> None:
        """Read the phase, check that both sides bear what is needed, keep up with changes from then on.

        Raises `SideError` for a database that is down and `ConfigurationError` for one that lacks something. Without
        legacy it starts where that is secondary and cannot be reached, or was let go.
        """
        async with self._start_lock:
            if self._started:
                return
            self.metrics.declare(self.service, entities=[entity.name for entity in self.catalog.ordered])
            there = await self._reach_at_start()
            await self.check_installation(*there)
            await self.following.follow()
            if self.following.counted:  # a command that only looks has no say
                await self.foreign_writes.tell(*there)
            url = self.base_settings.database_url
            for work in (
                every(REFRESH_SECONDS, self.refresh, service=self.service),
                every(CHECK_SECONDS, self._watch_capture, service=self.service),
                every(SIDES_SECONDS, self.sides.look, service=self.service),
                every(SIDES_SECONDS, self.foreign_writes.look, service=self.service),
                kept_up(self.following.follow_at_once, stop=self.stop, service=self.service),
                kept_up(
                    partial(listen, url, self.controls.channel, self.following.changed.set),
                    stop=self.stop,
                    service=self.service,
                ),
            ):
                self._endless.append(asyncio.ensure_future(work))
            self._started = True

    @property
    def sides_in_use(self) -> tuple[Side, ...]:
        """The sides that the phase has anything to do with. The new one holds the phase row."""
        return (Side.NEW,) if self.phase is Phase.COMPLETE else tuple(Side)

    async def _reach_at_start(self) -> tuple[Side, ...]:
        """Read the phase row; answers the sides that are there, of those in use.

        Only a secondary that cannot be reached may be missing.
        """
        reaching = asyncio.ensure_future(self._trouble_with_legacy())
        try:
            try:
                await self._reach(Side.NEW)
                await self.following.refresh()
            except (SideError, InstallationError):
                trouble = await reaching
                if isinstance(trouble, SideError):
                    raise trouble from None
                raise
            if Side.LEGACY not in self.sides_in_use:
                return (Side.NEW,)
            trouble = await reaching
        finally:
            reaching.cancel()
        if trouble is None:
            return tuple(Side)
        cause = trouble.__context__
        without = self.phase.policy.authoritative is Side.NEW or self._takes_either
        if not without or not (cause and is_unreachable(cause)):
            raise trouble
        log.warning("started_without_legacy", service=self.service, error=str(trouble))
        return (Side.NEW,)

    @property
    def _takes_either(self) -> bool:
        return self.settings.availability is Availability.ANY and self.settings.carries(self.phase)

    async def _trouble_with_legacy(self) -> TandemError | None:
        if not self.base_settings.legacy_database_url:
            return self._opener.not_set(Side.LEGACY)
        try:
            await self._reach(Side.LEGACY)
        except SideError as error:
            return error
        return None

    async def check_installation(self, *sides: Side) -> None:
        """Raise `InstallationError` unless `sides` (all in use, if none) bear what this version needs in this phase.

        While the phase is being changed capture may be there or not: then it is the controller's affair.
        """
        phase = Phase.OFF if self.control.intent else self.control.phase
        for side in sides or self.sides_in_use:
            await self.stores[side].check_installation(phase=phase)

    async def capture_token(self, connection: Connection, side: Side) -> str:
        """A text that stays the same as long as capture on `side` has had no gap in this phase, "" while it has one now."""
        return await self.stores[side].capture_token(connection, phase=self.phase)

    async def _watch_capture(self) -> None:
        """Say aloud that a trigger is gone: from then on other sides miss writes that nobody will carry."""
        try:
            await self.check_installation()
        except InstallationError as error:
            log.critical("capture_found_broken", service=self.service, error=str(error))

    async def reach_both(self) -> None:
        """Raise an unavailable `SideError` that names side and variable unless both databases answer."""
        for side in Side:
            await self._reach(side)

    async def _reach(self, side: Side) -> None:
        try:
            async with asyncio.timeout(START_SECONDS):
                await self.stores[side].ping()
        except Exception as error:
            if not is_database_error(error):
                raise
            raise side_error(side, f"{URL_VARIABLES[side]}: {describe(error)}", unavailable=True) from None

    def start_relay(self) -> None:
        """Carry changes in this process, as long as the phase asks for it. One relay a process is enough."""
        if self._relay_started:
            return
        self._relay_started = True
        for direction, relay in self.relays.items():
            self.spawn(partial(relay.run, self.stop, paused=partial(self._relay_paused, direction)))
        for side, store in self.stores.items():
            if store.change_stream is not None:
                store.change_stream.on_gap = partial(self._capture_broken, side)
                self.spawn(partial(store.change_stream.run, self.stop, paused=self._stream_paused))

    def _relay_paused(self, direction: Direction) -> bool:
        held = any(breaker.is_open for breaker in self.breakers.values()) or self.sides.any_wrong
        return held or self.phase.policy.direction is not direction or not self.settings.carries(self.phase)

    def _stream_paused(self) -> bool:
        return not self.phase.policy.dual or any(breaker.is_open for breaker in self.breakers.values())

    def _capture_broken(self, side: Side, _gap: CaptureGap) -> None:
        self.metrics.capture_broken(service=self.service, side=side)

    async def close(self) -> None:
        """Stop everything; waits for the pass in hand."""
        self.stop.set()
        for task in self._endless:
            task.cancel()
        for task in (*self._endless, *self._tasks):
            with suppress(asyncio.CancelledError):
                await task
        self._endless.clear()
        self._tasks.clear()
        await self.following.stop_reading()
        if self._started:
            await self.following.leave()
        for breaker in self.breakers.values():
            await breaker.close()
        for store in self.stores.values():
            await store.dispose()
        self._started = self._relay_started = False
        self.stop = asyncio.Event()

    async def refresh(self) -> None:
        """Read the phase row again, say that this process goes by it and what it compared, and measure the journal."""
        await self.following.follow()
        await self.shadow_tally.write_down(self.replicas)
        await self.measure()

    async def measure(self) -> JournalDepth:
        """Measure journal and pools, for metrics and status."""
        self.depth = await self._measuring.measure(self.phase.policy.authoritative)
        return self.depth

    def _learnt(self, control: Control) -> None:
        """Go by the settings that came with the phase row."""
        try:
            changed = self.base_settings.changed(control.settings)
            changed.check_entities(self.catalog)
            self.settings = changed
        except (ValidationError, ConfigurationError) as error:
            log.warning("settings_ignored", service=self.service, error=str(error))
        self.metrics.set_enabled(self.service, enabled=self.settings.metrics_enabled)
        self.metrics.phase_changed(service=self.service, phase=control.phase)

    def _measured(self) -> Measured:
        return Measured(
            relay=self.relay_running,
            highest_lag_seconds=self._measuring.lags.highest_within(self.settings.lag_window_seconds),
            seconds=self._measuring.lags.seconds,
        )

    def _relay(self, direction: Direction) -> Relay:
        return Relay(
            source=self.stores[direction.source],
            target=self.stores[direction.target],
            service=self.service,
            catalog=self.catalog,
            direction=direction,
            settings=self._relay_settings,
            hook=self.hook,
            on_pass=partial(self._relay_passed, direction),
            on_unavailable=self._side_unavailable,
        )

    def _side_unavailable(self, error: TargetUnavailableError) -> None:
        if is_unreachable(error.cause):
            self.breakers[error.side].failed()

    def _relay_settings(self) -> RelaySettings:
        return RelaySettings(
            batch_size=self.settings.batch_size,
            retry_attempts=self.settings.retry_attempts,
            retry_delay_seconds=self.settings.retry_delay_seconds,
            epoch=self.control.epoch,
            log_all=self.settings.log_all,
        )

    def _relay_passed(self, direction: Direction, done: RelayPass) -> None:
        self.breakers[direction.target].succeeded()
        self.metrics.relay_batch_finished(
            service=self.service,
            direction=direction,
            carried=done.carried,
            skipped=done.skipped,
            refused=done.refused + done.failed,
            waiting=done.waiting,
            failed=done.failed,
            failed_again=done.failed_again,
            seconds=done.seconds,
        )

    def _breaker_changed(self, side: Side, state: object) -> None:
        self.metrics.breaker_changed(service=self.service, side=side, state=str(state))

    def spawn(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` in the background until `close`, which sets `stop` and waits for it; what fails is begun again."""
        self._tasks.append(asyncio.ensure_future(kept_up(work, stop=self.stop, service=self.service)))
