"""Runs of the validator as data: what was asked for, how far each has come, what it found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Row

from backend.shared.domain.errors import TandemError
from backend.shared.domain.phases import Direction
from backend.shared.observability.labels import RunKind, Verdict
from backend.shared.stores.protocol import Position


class RunTakenOverError(TandemError):
    """A run gave no sign of life for so long that another process has taken it up."""


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What must be the same for a run to build on an earlier one. `capture` is empty while it has a gap.

    `epoch` is the one in which the present authority began.
    """

    direction: Direction
    epoch: int
    capture: str


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """A run that somebody wants: `entities` by name, `share` and `seed` of a sample."""

    kind: RunKind
    entities: tuple[str, ...]
    share: float = 1.0
    seed: int = 0
    background: bool = False


@dataclass(frozen=True, kw_only=True)
class EntityProgress:
    """How far a run has come with one entity: behind `resume_at` all keys were looked at.

    `waiting` holds keys that were on their way when last seen. `overflowed`: there were more of them, or more mismatches,
    than are kept, so nobody may build on this.
    """

    entity: str
    scope: RunKind
    mapping: str
    began_at: Position
    resume_at: str | None = None
    exhausted: bool = False
    waiting: tuple[str, ...] = ()
    overflowed: bool = False
    counts: Mapping[str, int] = field(default_factory=dict)
    verdict: Verdict | None = None
    seconds: float = 0.0
    finished_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class KeptRun:
    """A run as it is kept. `entities` holds those that it has begun with."""

    id: int
    kind: RunKind
    share: float
    seed: int
    state: str
    verdict: Verdict | None
    circumstances: Circumstances
    background: bool
    run_by: str
    token: str
    times_resumed: int
    started_at: datetime
    read_at: datetime
    """When this was read, by the clock of the new side."""
    finished_at: datetime | None
    chosen: tuple[str, ...]
    entities: Mapping[str, EntityProgress]


@dataclass(frozen=True, kw_only=True)
class FullRun:
    """The last full comparison of one entity that came to its end."""

    run_id: int
    circumstances: Circumstances
    progress: EntityProgress


@dataclass(frozen=True, kw_only=True)
class EntityStanding:
    """What comparisons say of an entity now; without a verdict where none counts."""

    entity: str
    verdict: Verdict | None = None
    seconds_ago: float = 0.0
    open_mismatches: int = 0


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """How often the background compares what has changed, and how often everything."""

    seconds: float
    full_seconds: float


RUN_COLUMNS = (
    "r.id, r.kind, r.share, r.seed, r.state, r.verdict, r.direction, r.epoch, r.capture, r.background, r.run_by, r.token, "
    "r.times_resumed, r.started_at, r.finished_at, r.entities AS chosen, clock_timestamp() AS read_at"
)
ENTITY_COLUMNS = (
    "e.run_id, e.entity, e.scope, e.mapping, e.major, e.minor, e.resume_at, e.exhausted, e.waiting, e.overflowed, "
    "e.counts::text AS counts, e.verdict AS entity_verdict, e.seconds, e.finished_at AS entity_finished_at"
)


def circumstances_of(row: Row[Any]) -> Circumstances:
    """The circumstances in a row of `RUN_COLUMNS`."""
    return Circumstances(direction=Direction(row.direction), epoch=row.epoch, capture=row.capture)


def run_of(row: Row[Any], entities: Sequence[EntityProgress]) -> KeptRun:
    """The run in a row of `RUN_COLUMNS`."""
    return KeptRun(
        id=row.id,
        kind=RunKind(row.kind),
        share=row.share,
        seed=row.seed,
        state=row.state,
        verdict=Verdict(row.verdict) if row.verdict else None,
        circumstances=circumstances_of(row),
        background=row.background,
        run_by=row.run_by,
        token=row.token,
        times_resumed=row.times_resumed,
        started_at=row.started_at,
        read_at=row.read_at,
        finished_at=row.finished_at,
        chosen=tuple(row.chosen),
        entities={entity.entity: entity for entity in entities},
    )


def progress_of(row: Row[Any]) -> EntityProgress:
    """The progress in a row of `ENTITY_COLUMNS`."""
    return EntityProgress(
        entity=row.entity,
        scope=RunKind(row.scope),
        mapping=row.mapping,
        began_at=Position(major=row.major, minor=row.minor),
        resume_at=row.resume_at,
        exhausted=row.exhausted,
        waiting=tuple(row.waiting),
        overflowed=row.overflowed,
        counts=json.loads(row.counts),
        verdict=Verdict(row.entity_verdict) if row.entity_verdict else None,
        seconds=row.seconds,
        finished_at=row.entity_finished_at,
    )
