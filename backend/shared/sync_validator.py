"""`SyncValidator`: says whether both sides of a service hold the same, and which keys do not (R9)."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from backend.shared.domain.errors import ValidationError, side_error
from backend.shared.domain.mapping import EntityMapping, Key, encode_key
from backend.shared.domain.phases import Direction, Phase, Side
from backend.shared.observability.admin_views import FieldDifferenceView, ValidationView
from backend.shared.observability.labels import RunKind, Verdict
from backend.shared.runtime import ServiceRuntime
from backend.shared.stores.errors import describe, is_database_error, to_side_error
from backend.shared.validation.changes import Changes, being_copied, estimated_rows
from backend.shared.validation.chunks import EntityComparer
from backend.shared.validation.entity_run import EntityRun, Progress, Tell
from backend.shared.validation.keeper import RunKeeper
from backend.shared.validation.keys import parse_key
from backend.shared.validation.mismatches import KeptMismatch, MismatchRepository
from backend.shared.validation.plans import EntityPlan, Known, Planner, known_before
from backend.shared.validation.recheck import Recheck
from backend.shared.validation.report import EntityReport, ValidationReport
from backend.shared.validation.run_records import (
    Circumstances,
    EntityStanding,
    Intervals,
    KeptRun,
    RunRequest,
)
from backend.shared.validation.runs import SILENT_SECONDS, RunRepository
from backend.shared.validation.sides import Sides, UnreadableRowError
from backend.shared.validation.statements import statements_of
from backend.shared.validation.unlike import UnlikeChanges, UnlikeComparer, UnlikeRecheck, recheck_of

CHUNK_ROWS = 10_000
PATIENCE_SECONDS = 10.0
MISMATCHES_LISTED = 1_000


def _untold(_progress: Progress) -> None:
    """Nobody wants to know."""


class SyncValidator:
    """Compares the sides of one service. May run at any time, beside anything; writes nothing but its own records.

    These are kept on the new side: runs, and the mismatches found. `chunk_rows` is how often a run can be taken up again,
    `mismatches_listed` bounds the mismatches that a report names; it counts them all.
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
        self._runs = RunRepository(runtime.engines[Side.NEW], runtime.names)
        self._mismatches = MismatchRepository(runtime.names)

    @property
    def direction(self) -> Direction:
        """From the authoritative side to the other; also in a phase that carries nothing any more or yet."""
        return Direction.towards(self._runtime.phase.policy.authoritative.other)

    async def run(
        self,
        entities: Sequence[str] | None = None,
        *,
        changed: bool = False,
        share: float = 1.0,
        show_values: bool = False,
        patience_seconds: float = PATIENCE_SECONDS,
        resume: bool = True,
        tell: Tell = _untold,
    ) -> ValidationReport:
        """Compare `entities` (all, if None); each has `patience_seconds` for keys that are on their way.

        With `changed`, only the keys that have changed since the last full run, in proportion to whose number it costs; it
        cannot see what was changed on the other side behind the engine's back. With `share` below 1, a random sample of
        about that share of the rows. A run of the same kind and choice that was interrupted in the last day is resumed,
        unless `resume` is False. `tell` is called after each chunk.

        Raises `SideError` when a side does not answer, `ValidationError` for a share that is none, `ConfigurationError` for
        an entity that there is not.
        """
        names = self._chosen(entities)
        request = RunRequest(
            kind=_kind(changed=changed, share=share),
            entities=names,
            share=share,
            seed=secrets.randbits(31) if share < 1 else 0,
        )
        circumstances = await self._circumstances()
        async with self._runs.transaction(alone=True) as connection:
            run = await self._runs.begin(connection, request, circumstances, resume=resume)
            known = await self._known(connection, run)
        return await self._compare(
            run, known, show_values=show_values, patience_seconds=patience_seconds, tell=tell
        )

    async def run_in_background(self) -> ValidationReport | None:
        """The run that is due by the settings; None if there is none, or another process is at it.

        It is put off while a backfill is running: what has not been copied yet would differ, and everything would be compared
        each time.
        """
        settings, names = self._runtime.settings, self._chosen(None)
        intervals = Intervals(
            seconds=settings.sync_interval_seconds, full_seconds=settings.full_sync_interval_seconds
        )
        async with self._runs.transaction() as connection:
            if await self._runs.background_due(connection, names, intervals=intervals) is None:
                return None
        circumstances = await self._circumstances()
        if await self._is_being_copied(circumstances):
            return None
        async with self._runs.transaction(alone=True) as connection:
            kind = await self._runs.background_due(connection, names, intervals=intervals)
            if kind is None:
                return None
            request = RunRequest(kind=kind, entities=names, background=True)
            run = await self._runs.begin(connection, request, circumstances)
            known = await self._known(connection, run)
        return await self._compare(run, known)

    async def latest_runs(self, *, limit: int = 20) -> list[KeptRun]:
        """The latest runs that are kept, newest first."""
        return await self._runs.latest(limit=limit)

    async def open_mismatches(
        self, *, limit: int, after_id: int = 0, entity: str | None = None
    ) -> list[KeptMismatch]:
        """Up to `limit` mismatches that no later run or repair has ended, by rising number."""
        async with self._runs.transaction() as connection:
            return await self._mismatches.page(connection, after_id=after_id, limit=limit, entity=entity)

    async def standing(self) -> list[EntityStanding]:
        """By entity, the last comparison of all of it, or of what had changed since such a one, that still counts."""
        circumstances = await self._circumstances()
        async with self._runs.transaction() as connection:
            found = await self._runs.last_standing(connection, circumstances)
        return [
            found.get(entity.name, EntityStanding(entity=entity.name))
            for entity in self._runtime.catalog.ordered
        ]

    def _chosen(self, entities: Sequence[str] | None) -> tuple[str, ...]:
        """Names of `entities`, parents first."""
        catalog = self._runtime.catalog
        wanted = {catalog[name].name for name in entities} if entities else None
        return tuple(item.name for item in catalog.ordered if wanted is None or item.name in wanted)

    async def _circumstances(self) -> Circumstances:
        """What holds now. In a phase that captures nothing no run can build on another."""
        runtime, direction = self._runtime, self.direction
        token = ""
        if runtime.phase.policy.dual:
            try:
                async with runtime.stores[direction.source].reading() as connection:
                    token = await runtime.capture_token(connection, direction.source)
            except Exception as error:
                if not is_database_error(error):
                    raise
                raise to_side_error(error, direction.source) from error
        return Circumstances(direction=direction, epoch=runtime.control.authority_epoch, capture=token)

    async def _is_being_copied(self, circumstances: Circumstances) -> bool:
        changes = self._changes(circumstances)
        if isinstance(changes, UnlikeChanges):
            return await being_copied(self._runtime.engines[Side.NEW], self._runtime.names)
        return await changes.is_being_copied()

    async def _known(self, connection: AsyncConnection, run: KeptRun) -> Known:
        return await known_before(connection, run, runs=self._runs, mismatches=self._mismatches)

    async def _compare(
        self,
        run: KeptRun,
        known: Known,
        *,
        show_values: bool = False,
        patience_seconds: float = PATIENCE_SECONDS,
        tell: Tell = _untold,
    ) -> ValidationReport:
        runtime, reports = self._runtime, list[EntityReport]()
        async with RunKeeper(self._runs, self._mismatches, run) as keeper:
            plans = await self._planner(run).plans(run, known)
            for plan in plans:
                entity_run = await self._entity_run(
                    plan, keeper, show_values=show_values, patience_seconds=patience_seconds, tell=tell
                )
                last = plan is plans[-1]
                report = await self._finished(
                    entity_run, (lambda found: _worst([*reports, found])) if last else None
                )
                runtime.metrics.entity_validated(
                    service=runtime.service,
                    entity=plan.entity,
                    kind=report.scope,
                    verdict=report.verdict,
                )
                reports.append(report)
        return ValidationReport(
            entities=tuple(reports),
            notes=self._notes(run, known, plans),
            run_id=run.id,
            kind=run.kind,
            share=run.share,
            resumed=run.times_resumed > 0,
        )

    def _planner(self, run: KeptRun) -> Planner:
        catalog, direction = self._runtime.catalog, run.circumstances.direction
        statements = {name: statements_of(catalog[name], direction) for name in run.chosen}
        return Planner(changes=self._changes(run.circumstances), statements=statements)

    def _changes(self, circumstances: Circumstances) -> Changes | UnlikeChanges:
        if not self._runtime.both_sql:
            return UnlikeChanges(stores=self._runtime.stores, direction=circumstances.direction)
        sides = Sides(engines=self._runtime.engines, direction=circumstances.direction)
        return Changes(sides=sides, names=self._runtime.names, epoch=circumstances.epoch)

    async def _entity_run(
        self,
        plan: EntityPlan,
        keeper: RunKeeper,
        *,
        show_values: bool,
        patience_seconds: float,
        tell: Tell,
    ) -> EntityRun:
        runtime, mapping = self._runtime, self._runtime.catalog[plan.entity]
        circumstances = keeper.run.circumstances
        recheck = self._recheck(mapping, circumstances, show_values=show_values)
        comparer: EntityComparer | UnlikeComparer
        if isinstance(recheck, UnlikeRecheck):
            comparer = UnlikeComparer(recheck=recheck)
        else:
            comparer = EntityComparer(
                sides=recheck.sides, statements=recheck.statements, chunk_rows=self._chunk_rows
            )
        began_at = plan.began_at or await self._changes(circumstances).beginning(plan.entity)
        expected = None
        if plan.scope is RunKind.SAMPLE or (tell is not _untold and plan.scope is RunKind.FULL):
            expected = await self._expected(recheck, mapping)
        return EntityRun(
            recheck=recheck,
            comparer=comparer,
            plan=plan,
            keeper=keeper,
            listed=self._listed,
            patience_seconds=patience_seconds,
            began_at=began_at,
            expected=expected,
            tell=tell,
            hook=runtime.hook,
        )

    async def _expected(self, recheck: Recheck, mapping: EntityMapping) -> int | None:
        if isinstance(recheck, UnlikeRecheck):
            return await recheck.source.estimated_rows(mapping) or None
        return await estimated_rows(recheck.sides, mapping)

    async def _finished(
        self, run: EntityRun, run_verdict: Callable[[EntityReport], Verdict] | None
    ) -> EntityReport:
        try:
            return await run.run(run_verdict=run_verdict)
        except UnreadableRowError as error:
            side = run.recheck.sides.direction.source
            reason = describe(error.__cause__ or error)
            raise side_error(side, f"its keys cannot be read: {reason}", entity=run.plan.entity) from error

    def _notes(self, run: KeptRun, known: Known, plans: Sequence[EntityPlan]) -> tuple[str, ...]:
        runtime = self._runtime
        notes = [] if runtime.phase.policy.dual else [_not_carried(runtime.phase)]
        notes += [
            f"run {other} is under way, or died less than {SILENT_SECONDS:g} s before: run {run.id} went its own way"
            for other in known.others
        ]
        notes += [plan.note for plan in plans if plan.note]
        if run.kind is RunKind.CHANGED and any(plan.scope is RunKind.CHANGED for plan in plans):
            notes.append(
                "keys changed since the last full run were compared, and those known to differ; rows changed on the "
                f"{run.circumstances.direction.target.value} side by others than the engine are seen by a full run only"
            )
        return tuple(notes)

    async def validate_key(self, mapping: EntityMapping, key: Key, *, show_values: bool) -> ValidationView:
        """Compare one key now, looking once: a key still on its way is *incomplete*."""
        now = Circumstances(direction=self.direction, epoch=self._runtime.control.epoch, capture="")
        recheck = self._recheck(mapping, now, show_values=show_values)
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

    def _recheck(self, entity: EntityMapping, circumstances: Circumstances, *, show_values: bool) -> Recheck:
        """Looks by what held when the run began: after a cutover nothing is settled any more."""
        runtime = self._runtime
        return recheck_of(
            entity,
            sides=Sides(engines=runtime.engines, direction=circumstances.direction),
            names=runtime.names,
            epoch=runtime.control.epoch,
            stores=runtime.stores,
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


def _kind(*, changed: bool, share: float) -> RunKind:
    if not 0 < share <= 1:
        raise ValidationError("the share of a sample is above 0 and at most 1")
    if changed and share < 1:
        raise ValidationError("a sample of what has changed is not to be had: choose one of them")
    if changed:
        return RunKind.CHANGED
    return RunKind.FULL if share == 1 else RunKind.SAMPLE


def _worst(reports: Sequence[EntityReport]) -> Verdict:
    return ValidationReport(entities=tuple(reports)).verdict


__all__ = ["SyncValidator", "parse_key"]
