"""The phase row: the one place that says which phase holds, with the settings changed at run time.

It is kept on the new side. Every change raises its version, and every replica writes down which version it goes by
(`replicas`): so whoever changes it can wait until all have followed. A replica reads it again each second and, where the
connection can LISTEN, at once.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from backend.shared.domain.errors import ConflictError, InstallationError
from backend.shared.domain.phases import Phase
from backend.shared.stores.postgres.names import EngineNames


@dataclass(frozen=True, kw_only=True)
class Intent:
    """A change of the phase that has been begun: any controller may bring it to its end.

    `number` is the version of the phase row that it was written with: a later change has a higher one. `epoch` is the one
    that it leads to.
    """

    id: str
    number: int
    origin: Phase
    to: Phase
    epoch: int
    by: str
    reason: str
    forced: tuple[str, ...] = ()

    @classmethod
    def begin(
        cls, control: Control, to: Phase, *, by: str, reason: str, forced: tuple[str, ...] = ()
    ) -> Intent:
        """The intent to go from where `control` is to `to`. A change of the authority has the next epoch."""
        moves = control.phase.policy.moves_authority_to(to)
        return cls(
            id=uuid.uuid4().hex,
            number=control.version + 1,
            origin=control.phase,
            to=to,
            epoch=control.epoch + moves,
            by=by,
            reason=reason,
            forced=forced,
        )

    @property
    def moves_authority(self) -> bool:
        """Whether it needs a cutover."""
        return self.origin.policy.moves_authority_to(self.to)

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Intent:
        """The intent as the phase row holds it; raises `ConflictError` for one that this version cannot read."""
        try:
            return cls(
                id=str(kept["id"]),
                number=int(kept["number"]),
                origin=Phase(kept["origin"]),
                to=Phase(kept["to"]),
                epoch=int(kept["epoch"]),
                by=str(kept["by"]),
                reason=str(kept["reason"]),
                forced=tuple(kept["forced"]),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise ConflictError(
                "a change of the phase is under way that this version cannot read: finish it with the one that began it"
            ) from error


@dataclass(frozen=True, kw_only=True)
class Control:
    """The phase row of a service. `settings` holds what was changed at run time, by setting's name.

    `version` counts all changes, `phase_version` is that of the last one that concerned the phase. `authority_epoch` is the
    epoch in which the present authority began: a cutover that was given up uses an epoch and moves nothing.
    """

    phase: Phase
    epoch: int
    authority_epoch: int = 0
    version: int = 0
    phase_version: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    intent: Intent | None = None
    changed_at: datetime | None = None
    changed_by: str = ""
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class PhaseChange:
    """One change of the phase, as it was written down. `stall_ms`: how long no side took writes, where one was closed."""

    from_phase: Phase
    to_phase: Phase
    epoch: int
    changed_at: datetime
    changed_by: str
    reason: str
    forced: tuple[str, ...]
    outcome: str
    stall_ms: float | None


class ControlRepository:
    """Reads and writes the phase row; each method without a connection is one transaction."""

    def __init__(self, engine: AsyncEngine, names: EngineNames) -> None:
        self._engine = engine
        self._names = names

    @property
    def channel(self) -> str:
        """Where a change is announced (LISTEN)."""
        return self._names.schema

    async def read(self) -> Control:
        """The row as it is; raises `InstallationError` if there is none."""
        async with self._engine.connect() as connection:
            there = await connection.execute(text("SELECT to_regclass(:name)"), {"name": self._names.control})
            if there.scalar() is None:
                raise self._missing()
            row = (
                await connection.execute(
                    text(
                        "SELECT phase, epoch, authority_epoch, version, phase_version, settings::text AS settings, "
                        f"intent::text AS intent, changed_at, changed_by, reason FROM {self._names.control}"
                    )
                )
            ).first()
        if row is None:
            raise self._missing()
        return Control(
            phase=Phase(row.phase),
            epoch=row.epoch,
            authority_epoch=row.authority_epoch,
            version=row.version,
            phase_version=row.phase_version,
            settings=json.loads(row.settings),
            intent=Intent.of(json.loads(row.intent)) if row.intent else None,
            changed_at=row.changed_at,
            changed_by=row.changed_by,
            reason=row.reason,
        )

    async def change_settings(self, changes: Mapping[str, Any], *, by: str) -> None:
        """Merge `changes` into the run-time settings."""
        async with self._engine.begin() as connection:
            await connection.execute(
                text(
                    f"UPDATE {self._names.control} SET settings = settings || CAST(:value AS jsonb), "
                    "version = version + 1, changed_at = clock_timestamp(), changed_by = :by, reason = :reason"
                ),
                {"value": json.dumps(dict(changes)), "by": by, "reason": "settings changed"},
            )
            await self._announce(connection)

    async def intend(self, before: Control, intent: Intent) -> Intent | None:
        """Write down what is about to be done; None, with nothing changed, if the phase is not `before`'s or moves already.

        Answers the intent with the number that it was written with.
        """
        async with self._engine.begin() as connection:
            changed = await connection.execute(
                text(
                    f"UPDATE {self._names.control} SET version = version + 1, "
                    "intent = CAST(:intent AS jsonb) || jsonb_build_object('number', version + 1) "
                    "WHERE phase = :phase AND epoch = :epoch AND intent IS NULL RETURNING version"
                ),
                {
                    "intent": json.dumps(asdict(intent)),
                    "phase": before.phase.value,
                    "epoch": before.epoch,
                },
            )
            row = changed.first()
            if row is None:
                return None
            await self._announce(connection)
        return replace(intent, number=row.version)

    async def enter(self, intent: Intent, *, stall_ms: float | None = None, done: bool) -> bool:
        """Set the phase that `intent` leads to; with `done` forget the intent. False if it is not under way any more.

        May be repeated: the history gets one line.
        """
        async with self._engine.begin() as connection:
            held = await connection.execute(
                text(f"SELECT phase FROM {self._names.control} WHERE intent->>'id' = :id FOR UPDATE"),
                {"id": intent.id},
            )
            row = held.first()
            if row is None:
                return False
            first = row.phase != intent.to.value
            await connection.execute(
                text(
                    f"UPDATE {self._names.control} SET phase = :phase, epoch = :epoch, version = version + 1, "
                    "authority_epoch = CASE WHEN :moves THEN :epoch ELSE authority_epoch END, "
                    "phase_version = CASE WHEN :first THEN version + 1 ELSE phase_version END, "
                    "intent = CASE WHEN :done THEN NULL ELSE intent END, "
                    "changed_at = clock_timestamp(), changed_by = :by, reason = :reason"
                ),
                {
                    "phase": intent.to.value,
                    "epoch": intent.epoch,
                    "by": intent.by,
                    "reason": intent.reason,
                    "moves": intent.moves_authority,
                    "first": first,
                    "done": done,
                },
            )
            if first:
                await self._write_history(connection, intent, outcome="done", stall_ms=stall_ms)
            await self._announce(connection)
        return True

    async def withdraw(self, intent: Intent) -> bool:
        """Forget `intent`, with the phase as it was; its epoch is used up. False if it is not under way any more."""
        async with self._engine.begin() as connection:
            changed = await connection.execute(
                text(
                    f"UPDATE {self._names.control} SET epoch = :epoch, version = version + 1, intent = NULL "
                    "WHERE intent->>'id' = :id RETURNING version"
                ),
                {"epoch": intent.epoch, "id": intent.id},
            )
            if changed.first() is None:
                return False
            await self._write_history(connection, intent, outcome="given_up", stall_ms=None)
            await self._announce(connection)
        return True

    async def raise_epoch(self, before: Control, *, epoch: int, by: str, reason: str) -> None:
        """Go on in a new epoch, in the same phase; raises `ConflictError` if the phase has been changed meanwhile."""
        async with self._engine.begin() as connection:
            changed = await connection.execute(
                text(
                    f"UPDATE {self._names.control} SET epoch = :epoch, authority_epoch = :epoch, version = version + 1, "
                    "phase_version = version + 1, changed_at = clock_timestamp(), changed_by = :by, reason = :reason "
                    "WHERE phase = :phase AND epoch = :was AND intent IS NULL RETURNING version"
                ),
                {
                    "epoch": epoch,
                    "by": by,
                    "reason": reason,
                    "phase": before.phase.value,
                    "was": before.epoch,
                },
            )
            row = changed.first()
            if row is None:
                raise ConflictError(
                    "the phase was changed meanwhile: look at `tandem status`, and call it again"
                )
            same = Intent(
                id="",
                number=row.version,
                origin=before.phase,
                to=before.phase,
                epoch=epoch,
                by=by,
                reason=reason,
            )
            await self._write_history(connection, same, outcome="done", stall_ms=None)
            await self._announce(connection)

    async def changes(self, *, limit: int) -> list[PhaseChange]:
        """The latest changes of the phase, newest first."""
        async with self._engine.connect() as connection:
            rows = await connection.execute(
                text(
                    "SELECT from_phase, to_phase, epoch, changed_at, changed_by, reason, forced, outcome, stall_ms "
                    f"FROM {self._names.phase_change} ORDER BY id DESC LIMIT :limit"
                ),
                {"limit": limit},
            )
            return [
                PhaseChange(
                    from_phase=Phase(row.from_phase),
                    to_phase=Phase(row.to_phase),
                    epoch=row.epoch,
                    changed_at=row.changed_at,
                    changed_by=row.changed_by,
                    reason=row.reason,
                    forced=tuple(row.forced),
                    outcome=row.outcome,
                    stall_ms=row.stall_ms,
                )
                for row in rows
            ]

    async def _write_history(
        self, connection: AsyncConnection, intent: Intent, *, outcome: str, stall_ms: float | None
    ) -> None:
        await connection.execute(
            text(
                f"INSERT INTO {self._names.phase_change} "
                "(from_phase, to_phase, epoch, changed_by, reason, forced, outcome, stall_ms) "
                "VALUES (:origin, :to, :epoch, :by, :reason, :forced, :outcome, :stall_ms)"
            ),
            {
                "origin": intent.origin.value,
                "to": intent.to.value,
                "epoch": intent.epoch,
                "by": intent.by,
                "reason": intent.reason,
                "forced": list(intent.forced),
                "outcome": outcome,
                "stall_ms": stall_ms,
            },
        )

    async def _announce(self, connection: AsyncConnection) -> None:
        await connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": self.channel})

    def _missing(self) -> InstallationError:
        return InstallationError(
            f"the journal is not installed on the new side: run `tandem install {self._names.service}`"
        )
