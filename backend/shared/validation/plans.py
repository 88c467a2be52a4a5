"""What a run does with each entity: everything, a sample, only what has changed, or what an interrupted run left over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from backend.shared.observability.labels import RunKind
from backend.shared.stores.postgres.projection_sql import mapping_print
from backend.shared.stores.protocol import Position
from backend.shared.validation.changes import EntityChanges
from backend.shared.validation.mismatches import MismatchRepository
from backend.shared.validation.run_records import EntityProgress, FullRun, KeptRun
from backend.shared.validation.runs import RunRepository
from backend.shared.validation.statements import EntityStatements


@dataclass(frozen=True, kw_only=True)
class EntityPlan:
    """What is to be done with one entity.

    `began_at` None: read it when the entity's turn comes. `by_name` are keys to compare whatever else is compared, among
    them those of the kept mismatches `looked_at`. `taken_up` is how far an interrupted run has come. `note` is what a reader
    has to know.
    """

    entity: str
    scope: RunKind
    mapping: str
    began_at: Position | None = None
    taken_up: EntityProgress | None = None
    by_name: tuple[str, ...] = ()
    looked_at: tuple[str, ...] = ()
    failed: tuple[str, ...] | None = None
    since_run: int | None = None
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class Known:
    """By entity, its last full comparison, and keys of kept mismatches to be looked at by name; other runs under way."""

    full: Mapping[str, FullRun] = field(default_factory=dict)
    mismatches: Mapping[str, list[str]] = field(default_factory=dict)
    others: tuple[int, ...] = ()


class KnowsChanges(Protocol):
    """Says what has changed on the source since a position."""

    async def since(self, positions: Mapping[str, Position]) -> dict[str, EntityChanges]:
        """By entity, what has changed after its position."""
        ...


@dataclass(frozen=True, kw_only=True)
class Planner:
    """Makes the plans of one run. Reads only."""

    changes: KnowsChanges
    statements: Mapping[str, EntityStatements] = field(default_factory=dict)

    async def plans(self, run: KeptRun, known: Known) -> list[EntityPlan]:
        """By entity of `run`, in order, what is to be done."""
        mapping = {
            name: mapping_print(table.sql for table in self.statements[name].tables) for name in run.chosen
        }
        taken_up = {
            name: found
            for name, found in run.entities.items()
            if found.scope is not RunKind.CHANGED
            and found.mapping == mapping.get(name)
            and not found.overflowed
        }
        full: dict[str, FullRun] = {}
        reasons: dict[str, str] = {}
        if run.kind is RunKind.CHANGED:
            full = {name: found for name, found in known.full.items() if name not in taken_up}
            reasons = {
                name: reason
                for name in run.chosen
                if name not in taken_up and (reason := _unusable(full.get(name), run, mapping[name]))
            }
        since = {name: found.began_at for name, found in taken_up.items()}
        since |= {name: found.progress.began_at for name, found in full.items() if name not in reasons}
        changed = await self.changes.since(since) if since else {}
        plans = []
        for name in run.chosen:
            scope = RunKind.SAMPLE if run.kind is RunKind.SAMPLE else RunKind.FULL
            plan = EntityPlan(
                entity=name,
                scope=scope,
                mapping=mapping[name],
                looked_at=tuple(known.mismatches.get(name, ())),
            )
            if name in taken_up:
                plans.append(_resumed(plan, taken_up[name], changed[name]))
            elif run.kind is RunKind.SAMPLE:
                plans.append(replace(plan, looked_at=()))
            elif run.kind is RunKind.FULL:
                plans.append(plan)
            else:
                plans.append(_incremental(plan, full.get(name), changed.get(name), reasons.get(name)))
        return plans


async def known_before(
    connection: AsyncConnection, run: KeptRun, *, runs: RunRepository, mismatches: MismatchRepository
) -> Known:
    """What `run` can build on: for an incremental one all open mismatches, else those that it has found itself."""
    incremental = run.kind is RunKind.CHANGED
    if not incremental and not run.times_resumed:
        return Known(others=await runs.others(connection, run))
    full = await runs.last_full(connection, run.chosen, before_run=run.id) if incremental else {}
    of_run = None if incremental else run.id
    return Known(full=full, mismatches=await mismatches.open_keys(connection, run.chosen, of_run=of_run))


def _unusable(full: FullRun | None, run: KeptRun, mapping: str) -> str | None:
    """Why an incremental run cannot build on the last full comparison."""
    if full is None:
        return "there has been no full run of it"
    then, now = full.circumstances, run.circumstances
    if not now.capture:
        return "changes are not captured now"
    if (then.direction, then.epoch) != (now.direction, now.epoch):
        return f"the authority has moved since the last full run {full.run_id}"
    if then.capture != now.capture:
        return f"capture has had a gap since the last full run {full.run_id}"
    if full.progress.mapping != mapping:
        return f"its mapping has changed since the last full run {full.run_id}"
    if full.progress.overflowed:
        return f"the last full run {full.run_id} found more than is kept"
    return None


def _incremental(
    plan: EntityPlan, full: FullRun | None, changed: EntityChanges | None, reason: str | None
) -> EntityPlan:
    if full is None or changed is None or reason is not None:
        return replace(plan, note=f"{plan.entity}: all keys are compared, since {reason}")
    if changed.copied:
        return replace(
            plan,
            note=f"{plan.entity}: all keys are compared, since a backfill has copied to it after the last full run {full.run_id}",
        )
    if changed.keys is None:
        return replace(
            plan,
            note=f"{plan.entity}: all keys are compared, since too many have changed after the last full run {full.run_id}",
        )
    names = dict.fromkeys((*changed.keys, *changed.failed, *full.progress.waiting, *plan.looked_at))
    return replace(
        plan,
        scope=RunKind.CHANGED,
        began_at=full.progress.began_at,
        by_name=tuple(names),
        failed=changed.failed,
        since_run=full.run_id,
    )


def _resumed(plan: EntityPlan, before: EntityProgress, changed: EntityChanges) -> EntityPlan:
    """Goes on behind the frontier, and looks again at all that may have changed on this side of it."""
    if changed.copied or changed.keys is None:
        why = "a backfill has copied to it" if changed.copied else "too many keys have changed"
        return replace(plan, note=f"{plan.entity}: not resumed, since {why} meanwhile")
    names = dict.fromkeys((*changed.keys, *before.waiting, *plan.looked_at))
    place = "its end" if before.exhausted else before.resume_at or "its beginning"
    return replace(
        plan,
        began_at=before.began_at,
        by_name=tuple(names),
        taken_up=before,
        note=f"{plan.entity}: resumed at {place}",
    )
