"""What a running manager is made of: engines, breakers, the phase it goes by, the relay and the background checks."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import structlog
from sqlalchemy import QueuePool, text
from sqlalchemy.ext.asyncio import AsyncEngine

from backend.shared.breaker import CircuitBreaker
from backend.shared.control import Control, ControlRepository
from backend.shared.control_listener import listen
from backend.shared.database import DatabaseLimits, create_side_engine
from backend.shared.domain.errors import (
    ConfigurationError,
    InstallationError,
    TandemError,
    ValidationError,
    side_error,
)
from backend.shared.domain.mapping import EntityCatalog
from backend.shared.domain.phases import Capture, Direction, Phase, Side
from backend.shared.dual_write_config import DualWriteSettings
from backend.shared.journal.carrier import Hook, TargetUnavailableError, no_hook
from backend.shared.journal.install import check_installation
from backend.shared.journal.relay import Relay, RelayPass, RelaySettings
from backend.shared.journal.repository import FailureRepository, JournalDepth, JournalRepository
from backend.shared.journal.synchronous import SynchronousWriter
from backend.shared.observability.metrics import Metrics
from backend.shared.phase_follower import PhaseFollower
from backend.shared.replicas import Measured, ReplicaRepository
from backend.shared.side_watch import SideWatch
from backend.shared.stores.postgres.errors import describe, is_database_error, is_unreachable
from backend.shared.stores.postgres.names import EngineNames
from backend.shared.unit_runner import UnitRunner

REFRESH_SECONDS = 1.0
CHECK_SECONDS = 30.0
SIDES_SECONDS = 5.0
START_SECONDS = 10.0
LAG_WINDOW_SECONDS = 60.0
_URL_VARIABLES = {Side.LEGACY: "LEGACY_DATABASE_URL", Side.NEW: "DATABASE_URL"}

log = structlog.get_logger(__name__)


class LagHistory:
    """What this process has measured within the last minute."""

    def __init__(self) -> None:
        self._lags: deque[tuple[float, float]] = deque()
        self._began = time.monotonic()

    def add(self, lag_seconds: float) -> None:
        """A measurement made now; older ones than a minute are forgotten."""
        now = time.monotonic()
        self._lags.append((now, lag_seconds))
        while self._lags[0][0] < now - LAG_WINDOW_SECONDS:
            self._lags.popleft()

    def highest_within(self, seconds: float) -> float:
        """The highest lag measured in so many seconds until now, in seconds."""
        since = time.monotonic() - seconds
        return max((lag for at, lag in self._lags if at >= since), default=0.0)

    @property
    def seconds(self) -> float:
        """For how long it has been measured, up to a minute."""
        return min(LAG_WINDOW_SECONDS, time.monotonic() - self._began)


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
        capture: Capture = Capture.TRIGGER,
        hook: Hook = no_hook,
    ) -> None:
        self.capture = capture
        self.names = EngineNames(service)
        self.catalog = catalog
        self.metrics = metrics
        self.hook = hook
        self.base_settings = settings
        self.settings = settings
        self.limits = limits or DatabaseLimits()
        urls = {Side.LEGACY: settings.legacy_database_url, Side.NEW: settings.database_url}
        self.engines = {side: self._engine(side, url) for side, url in urls.items()}
        self.breakers = {
            side: CircuitBreaker(engine, side, on_change=partial(self._breaker_changed, side))
            for side, engine in self.engines.items()
        }
        self.runners = {
            side: UnitRunner(
                engine, side, names=self.names, catalog=catalog, breaker=self.breakers[side], capture=capture
            )
            for side, engine in self.engines.items()
        }
        self.journal = JournalRepository(self.names)
        self.failures = FailureRepository(self.names)
        self.controls = ControlRepository(self.engines[Side.NEW], self.names)
        self.replicas = ReplicaRepository(self.engines[Side.NEW], self.names)
        self.following = PhaseFollower(
            service=service,
            first=settings.phase,
            controls=self.controls,
            replicas=self.replicas,
            on_learnt=self._learnt,
            measured=self._measured,
        )
        self.sides = SideWatch(self.names, self.engines, self.controls)
        self._lags = LagHistory()
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

    @property
    def journals_touched(self) -> bool:
        """Whether units of work write the journal themselves in the present phase."""
        return self.capture is Capture.UNIT and self.phase.policy.dual

    @property
    def relay_running(self) -> bool:
        """Whether a relay runs in this process."""
        return self._relay_started

    def _engine(self, side: Side, url: str) -> AsyncEngine:
        variable = _URL_VARIABLES[side]
        if not url:
            prefixed = f"{self.names.service.upper()}_{variable}"
            raise ConfigurationError(f"is not set, nor is {prefixed}", variable=variable)
        return create_side_engine(
            url, application_name=f"tandem-{self.names.service}", variable=variable, limits=self.limits
        )

    async def start(self) -> None:
        """Read the phase, check that both sides bear what is needed, keep up with changes from then on.

        Raises `SideError` for a database that is down and `ConfigurationError` for one that lacks something.
        """
        async with self._start_lock:
            if self._started:
                return
            self.metrics.declare(self.service, entities=[entity.name for entity in self.catalog.ordered])
            await self.reach_both()
            await self.following.refresh()
            await self.check_installation()
            await self.following.follow()
            url = self.base_settings.database_url
            for work in (
                self._every(REFRESH_SECONDS, self.refresh),
                self._every(CHECK_SECONDS, self._watch_capture),
                self._every(SIDES_SECONDS, self.sides.look),
                self.following.follow_at_once(),
                listen(url, self.controls.channel, self.following.changed.set),
            ):
                self._endless.append(asyncio.ensure_future(work))
            self._started = True

    async def check_installation(self) -> None:
        """Raise `InstallationError` unless both sides bear what this version needs in the present phase.

        While the phase is being changed capture may be there or not: then it is the controller's affair.
        """
        phase = Phase.OFF if self.control.intent else self.control.phase
        for side in Side:
            await check_installation(
                self.engines[side],
                self.names,
                self.catalog,
                side=side,
                phase=phase,
                capture=self.capture,
            )

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
            async with asyncio.timeout(START_SECONDS), self.engines[side].connect() as connection:
                await connection.execute(text("SELECT 1"))
        except Exception as error:
            if not is_database_error(error):
                raise
            raise side_error(side, f"{_URL_VARIABLES[side]}: {describe(error)}", unavailable=True) from None

    def start_relay(self) -> None:
        """Carry changes in this process, as long as the phase asks for it. One relay a process is enough."""
        if self._relay_started:
            return
        self._relay_started = True
        for direction, relay in self.relays.items():
            self.spawn(relay.run(self.stop, paused=partial(self._relay_paused, direction)))

    def _relay_paused(self, direction: Direction) -> bool:
        held = any(breaker.is_open for breaker in self.breakers.values()) or self.sides.any_wrong
        return held or self.phase.policy.direction is not direction or not self.settings.carries(self.phase)

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
        if self._started:
            await self.following.leave()
        for breaker in self.breakers.values():
            await breaker.close()
        for engine in self.engines.values():
            await engine.dispose()
        self._started = self._relay_started = False
        self.stop = asyncio.Event()

    async def refresh(self) -> None:
        """Read the phase row again, say that this process goes by it, and measure the journal."""
        await self.following.follow()
        await self.measure()

    async def measure(self) -> JournalDepth:
        """Measure journal and pools, for metrics and status."""
        policy = self.phase.policy
        for side, engine in self.engines.items():
            pool = engine.pool
            if isinstance(pool, QueuePool):
                self.metrics.pool_measured(
                    service=self.service,
                    side=side,
                    in_use_count=pool.checkedout(),
                    waiting_count=waiting_for(pool),
                    size_count=pool.size(),
                )
        async with self.engines[policy.authoritative].connect() as connection:
            self.depth = await self.journal.depth(connection)
        self._lags.add(self.depth.lag_seconds)
        direction = Direction.towards(policy.authoritative.other)
        self.metrics.journal_measured(
            service=self.service,
            direction=direction,
            rows_count=self.depth.rows,
            lag_seconds=self.depth.lag_seconds,
        )
        self.metrics.failures_counted(
            service=self.service, direction=direction, open_count=self.depth.failures
        )
        return self.depth

    def _learnt(self, control: Control) -> None:
        """Go by the settings that came with the phase row."""
        try:
            self.settings = self.base_settings.changed(control.settings)
        except ValidationError as error:
            log.warning("settings_ignored", service=self.service, error=str(error))
        self.metrics.set_enabled(self.service, enabled=self.settings.metrics_enabled)
        self.metrics.phase_changed(service=self.service, phase=control.phase)

    def _measured(self) -> Measured:
        return Measured(
            relay=self.relay_running,
            highest_lag_seconds=self._lags.highest_within(self.settings.lag_window_seconds),
            seconds=self._lags.seconds,
        )

    def _relay(self, direction: Direction) -> Relay:
        return Relay(
            source=self.engines[direction.source],
            target=self.engines[direction.target],
            names=self.names,
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
            seconds=done.seconds,
        )

    def synchronous_writer(self, direction: Direction) -> SynchronousWriter:
        """The synchronous way of writing in `direction`."""
        return SynchronousWriter(
            runner=self.runners[direction.source],
            target=self.engines[direction.target],
            target_breaker=self.breakers[direction.target],
            names=self.names,
            catalog=self.catalog,
            direction=direction,
            hook=self.hook,
        )

    def _breaker_changed(self, side: Side, state: object) -> None:
        self.metrics.breaker_changed(service=self.service, side=side, state=str(state))

    def spawn(self, work: Awaitable[None]) -> None:
        """Run `work` in the background until `close`, which sets `stop` and waits for it."""
        self._tasks.append(asyncio.ensure_future(work))

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` again and again; trouble with a database is logged and does not end it."""
        quiet_until = 0.0
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
            except Exception as error:
                if not is_database_error(error) and not isinstance(error, TandemError):
                    raise
                if time.monotonic() > quiet_until:
                    quiet_until = time.monotonic() + 30
                    log.warning("refresh_failed", service=self.service, error=describe(error))


def waiting_for(pool: QueuePool) -> int:
    """How many tasks wait for a connection of `pool`."""
    waiters = getattr(getattr(pool, "_pool", None), "_queue", None)
    return len(getattr(waiters, "_getters", ()) or ())
