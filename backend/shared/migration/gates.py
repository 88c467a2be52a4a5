"""Gates: what must hold before a service goes a step up, and before it goes one down.

Each gate says what it looked at, with its figure, and what to do where it is shut. It changes nothing. An operator may force
one by its name; that is written down with the change.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

from backend.shared.domain.errors import ConfigurationError, InstallationError, TandemError
from backend.shared.domain.phases import Direction, Phase, Side
from backend.shared.events.watch import outbox_depth
from backend.shared.migration.backfill import Backfill
from backend.shared.migration.capture_proof import whole_since
from backend.shared.migration.conflicts import Conflicts
from backend.shared.migration.sequences import sequences_of
from backend.shared.observability.labels import Verdict
from backend.shared.runtime import ServiceRuntime
from backend.shared.stores.errors import describe, is_database_error
from backend.shared.sync_validator import SyncValidator


class GateName(StrEnum):
    """By these an operator forces a gate."""

    REPLICAS = "replicas"
    SIDES = "sides"
    SCHEMA = "schema"
    CAPTURE = "capture"
    BACKFILL = "backfill"
    FAILURES = "failures"
    CONFLICTS = "conflicts"
    LAG = "lag"
    VALIDATION = "validation"
    SHADOW_READS = "shadow-reads"
    SEQUENCES = "sequences"
    STRANDED = "stranded"
    OUTBOX = "outbox"


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One gate as it was found. `figure` is what was measured against what is asked for; `remedy` how to open it."""

    name: GateName
    is_open: bool
    figure: str
    remedy: str = ""
    forced: bool = False


_ALWAYS = (GateName.REPLICAS,)
_UP: dict[Phase, tuple[GateName, ...]] = {
    Phase.DUALWRITE: (GateName.SIDES, GateName.SCHEMA),
    Phase.SHADOW: (
        GateName.SIDES,
        GateName.SCHEMA,
        GateName.BACKFILL,
        GateName.FAILURES,
        GateName.LAG,
    ),
    Phase.LIVE: (
        GateName.SIDES,
        GateName.SCHEMA,
        GateName.CAPTURE,
        GateName.BACKFILL,
        GateName.FAILURES,
        GateName.CONFLICTS,
        GateName.LAG,
        GateName.VALIDATION,
        GateName.SHADOW_READS,
        GateName.SEQUENCES,
    ),
    Phase.RAMPDOWN: (
        GateName.SIDES,
        GateName.SCHEMA,
        GateName.FAILURES,
        GateName.LAG,
        GateName.VALIDATION,
        GateName.SHADOW_READS,
    ),
    Phase.COMPLETE: (
        GateName.SIDES,
        GateName.SCHEMA,
        GateName.FAILURES,
        GateName.CONFLICTS,
        GateName.LAG,
        GateName.VALIDATION,
    ),
}
# The way back is for bad nights: only what would lose a write stands in it.
_DOWN: dict[Phase, tuple[GateName, ...]] = {
    Phase.SHADOW: (
        GateName.SIDES,
        GateName.SCHEMA,
        GateName.CAPTURE,
        GateName.BACKFILL,
        GateName.FAILURES,
        # What another program wrote over a write of the service's would be the truth again, without anybody's decision.
        GateName.CONFLICTS,
        GateName.SEQUENCES,
    ),
}


def gates_between(now: Phase, to: Phase) -> tuple[GateName, ...]:
    """The gates of one step."""
    return _ALWAYS + (_UP if to.is_above(now) else _DOWN).get(to, ())


class Gates:
    """Looks at the gates of a service. `check_schema` raises `InstallationError` where migrations are missing."""

    def __init__(self, runtime: ServiceRuntime, *, check_schema: Callable[[], Awaitable[None]]) -> None:
        self._runtime = runtime
        self._check_schema = check_schema

    async def look(self, now: Phase, to: Phase, *, forced: tuple[str, ...] = ()) -> list[Gate]:
        """Every gate of the step, in order. What cannot be looked at is shut."""
        found: list[Gate] = []
        names = gates_between(now, to)
        if not self._runtime.both_sql:
            names += (GateName.STRANDED,)
        if to is Phase.COMPLETE and self._runtime.messages is not None:
            names += (GateName.OUTBOX,)
        for name in names:
            try:
                is_open, figure, remedy = await self._look_at(name, to)
            except Exception as error:
                if not isinstance(error, TandemError) and not is_database_error(error):
                    raise
                reason = str(error) if isinstance(error, TandemError) else describe(error)
                is_open, figure, remedy = False, reason, "it could not be looked at"
            found.append(
                Gate(
                    name=name,
                    is_open=is_open,
                    figure=figure,
                    remedy="" if is_open else remedy,
                    forced=not is_open and name.value in forced,
                )
            )
        return found

    async def _look_at(self, name: GateName, to: Phase) -> tuple[bool, str, str]:
        looks: dict[GateName, Callable[[], Awaitable[tuple[bool, str, str]]]] = {
            GateName.REPLICAS: self._replicas,
            GateName.SIDES: self._sides,
            GateName.SCHEMA: self._schema,
            GateName.CAPTURE: self._capture,
            GateName.BACKFILL: self._backfill,
            GateName.FAILURES: self._failures,
            GateName.CONFLICTS: self._conflicts,
            GateName.LAG: self._lag,
            GateName.VALIDATION: self._validation,
            GateName.SHADOW_READS: self._shadow_reads,
            GateName.SEQUENCES: lambda: self._sequences(to.policy.authoritative),
            GateName.STRANDED: self._stranded,
            GateName.OUTBOX: self._outbox,
        }
        return await looks[name]()

    async def _replicas(self) -> tuple[bool, str, str]:
        control = self._runtime.control
        live = await self._runtime.replicas.live()
        behind = [replica for replica in live if not replica.follows(control)]
        if not behind:
            return (
                True,
                f"{len(live)} live, all go by epoch {control.epoch} and phase {control.phase.value}",
                "",
            )
        first = behind[0]
        return (
            False,
            (
                f"{len(behind)} of {len(live)} have not followed the last change: {first.name} goes by phase "
                f"{first.phase.value} in epoch {first.epoch}, seen {first.seconds_since_seen:.1f} s ago"
            ),
            "wait, or end that process; after 5 s without a sign of life it is not waited for",
        )

    async def _sides(self) -> tuple[bool, str, str]:
        runtime = self._runtime
        for side in Side:
            if wrong := await runtime.sides.found_wrong(side):
                return False, wrong, f"run `tandem restored {runtime.service} {side.value}`"
        authoritative = runtime.phase.policy.authoritative
        return True, f"both answer; {authoritative.value} open, {authoritative.other.value} closed", ""

    async def _schema(self) -> tuple[bool, str, str]:
        try:
            await self._runtime.check_installation()
            await self._check_schema()
        except (InstallationError, ConfigurationError) as error:
            return False, str(error), "then try again"
        return True, "tables, fence and capture are those of this version", ""

    async def _capture(self) -> tuple[bool, str, str]:
        """Whether every change on the authoritative side was captured since it was opened."""
        runtime = self._runtime
        side = runtime.phase.policy.authoritative
        async with runtime.stores[side].connect() as source:
            token = await runtime.capture_token(source, side)
            whole = await whole_since(runtime, source, side=side)
        if token and token in whole:
            return True, f"without a gap since the {side.value} side was opened, or was copied from", ""
        return (
            False,
            f"capture on the {side.value} side has had a gap: changes may be missing on the other side",
            f"run `tandem backfill {runtime.service}`, then `tandem validate {runtime.service}`",
        )

    async def _backfill(self) -> tuple[bool, str, str]:
        backfill = Backfill(self._runtime)
        status = await backfill.status()
        remedy = f"run `tandem backfill {self._runtime.service}`"
        if backfill.direction is Direction.TO_LEGACY and not status.entities:
            return True, "legacy has had everything from the start", ""
        if status.is_complete:
            rows = sum(item.progress.rows_copied for item in status.entities)
            return True, f"complete, {rows} rows", ""
        if status.missing:
            return False, f"not begun: {', '.join(status.missing)}", remedy
        states = [f"{item.progress.entity} {item.summary}" for item in status.entities]
        return False, "; ".join(states), remedy

    async def _failures(self) -> tuple[bool, str, str]:
        runtime = self._runtime
        store = runtime.stores[runtime.phase.policy.authoritative]
        async with store.connect() as connection:
            count = sum((await store.failures.count_by_entity(connection)).values())
        return (
            count == 0,
            f"{count} keys could not be carried" if count else "none open",
            (
                f"look at `tandem failures {runtime.service}`, mend, `tandem retry {runtime.service}`; forced, they "
                "become conflicts that keep both states"
            ),
        )

    async def _conflicts(self) -> tuple[bool, str, str]:
        runtime = self._runtime
        count = await Conflicts(runtime).count()
        return (
            count == 0,
            f"{count} are not settled" if count else "none open",
            f"look at `tandem conflicts {runtime.service}`, then `tandem settle`",
        )

    async def _stranded(self) -> tuple[bool, str, str]:
        """Whether all that was written on one side alone is on the other too."""
        count = 0
        for store in self._runtime.stores.values():
            async with store.reading() as connection:
                count += await store.stranded.count(connection)
        return (
            count == 0,
            f"{count} keys were written on one side alone" if count else "none open",
            "wait: a process that relays settles them as soon as both sides answer",
        )

    async def _outbox(self) -> tuple[bool, str, str]:
        """Whether all that was told on legacy is delivered: it is no entity, so nobody carries it. Nothing is told there since `live`."""
        runtime = self._runtime
        if runtime.messages is None or Side.LEGACY not in runtime.messages.tables:
            return True, "nothing is told on the legacy side", ""
        async with runtime.engines[Side.LEGACY].connect() as connection:
            depth = await outbox_depth(connection, runtime.messages.tables[Side.LEGACY])
        if depth.rows:
            return (
                False,
                f"{depth.rows} messages wait on the legacy side, the oldest for {depth.age_seconds:.0f} s",
                f"run the service {runtime.service} with its broker: it delivers from both sides until then",
            )
        return (
            depth.undelivered == 0,
            (
                f"the delivery of {depth.undelivered} messages on the legacy side was given up"
                if depth.undelivered
                else "none waits on the legacy side"
            ),
            "look at what is in outbox_undelivered on the legacy side, and delete what nobody needs",
        )

    async def _lag(self) -> tuple[bool, str, str]:
        runtime, settings = self._runtime, self._runtime.settings
        depth = await runtime.measure()
        live = [item for item in await runtime.replicas.live() if item.id != runtime.following.replica_id]
        window = settings.lag_window_seconds
        watched = max((item.measured_seconds for item in live), default=0.0)
        highest = max([depth.lag_seconds, *(item.highest_lag_seconds for item in live)])
        figure = (
            f"now {depth.lag_seconds:.1f} s, at most {highest:.1f} s within the last {min(watched, window):.0f} s; "
            f"asked for: at most {settings.max_lag_seconds:g} s for {window:g} s"
        )
        if highest > settings.max_lag_seconds:
            return False, figure, "see why the relay falls behind (`tandem status`), and wait"
        if watched < window:
            who = (
                f"wait {window - watched:.0f} s more"
                if live
                else "nobody watches it: run the service, or `tandem relay`"
            )
            return False, figure, who
        return True, figure, ""

    async def _validation(self) -> tuple[bool, str, str]:
        settings, service = self._runtime.settings, self._runtime.service
        remedy = f"run `tandem validate {service}`"
        oldest = 0.0
        for item in await SyncValidator(self._runtime).standing():
            if item.verdict is None:
                return False, f"{item.entity} was never compared as a whole in this phase", remedy
            if item.verdict is not Verdict.EQUAL or item.open_mismatches:
                return (
                    False,
                    f"{item.entity} is {item.verdict.value}, {item.open_mismatches} mismatches open",
                    f"look at what `tandem validate {service}` lists, and `tandem repair {service}`",
                )
            oldest = max(oldest, item.seconds_ago)
        figure = f"equal, {oldest:.0f} s old; asked for: at most {settings.validation_max_age_seconds:g} s"
        return oldest <= settings.validation_max_age_seconds, figure, remedy

    async def _shadow_reads(self) -> tuple[bool, str, str]:
        runtime, settings = self._runtime, self._runtime.settings
        counted = await runtime.replicas.shadow_reads(
            runtime.control, since_seconds=settings.validation_max_age_seconds
        )
        rate = counted.mismatches / counted.compared if counted.compared else 0.0
        figure = (
            f"{counted.compared} reads compared, {counted.mismatches} differed ({rate:.4%}); asked for: at least "
            f"{settings.min_shadow_reads}, at most {settings.max_mismatch_rate:.4%}"
        )
        if rate > settings.max_mismatch_rate:
            return False, figure, "the log names keys and fields of a sample (`shadow_read_differs`)"
        return (
            counted.compared >= settings.min_shadow_reads,
            figure,
            "wait for more, or raise SHADOW_READ_SAMPLE_RATE; a service that is not read: MIN_SHADOW_READS=0",
        )

    async def _sequences(self, side: Side) -> tuple[bool, str, str]:
        runtime = self._runtime
        if not runtime.both_sql:
            return True, "keys are made by the application", ""
        async with runtime.engines[side].connect() as own, runtime.engines[side.other].connect() as other:
            states = await sequences_of(own, other, runtime.catalog, side)
        for state in states:
            if state.highest + 1 >= state.most:
                return (
                    False,
                    f"{state.sequence} has no number left past {state.highest}",
                    f"give {state.table}.{state.column} a wider type",
                )
        if not states:
            return True, f"the {side.value} side makes no keys of its own", ""
        return (
            True,
            "; ".join(
                f"{state.sequence} at {state.next_value}, highest key {state.highest}"
                + (f", will be moved to {state.target}" if state.target > state.next_value else "")
                for state in states
            ),
            "",
        )
