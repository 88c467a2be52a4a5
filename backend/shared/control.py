"""The phase row: the one place that says which phase holds, with the settings changed at run time.

It is kept on the new side. Every change raises its version, and every replica writes down beside it which version it goes
by: so whoever changes it can wait until all have followed. A replica reads it again each second and, where the connection
can LISTEN, at once.
"""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from backend.shared.domain.errors import InstallationError
from backend.shared.domain.phases import Phase
from backend.shared.stores.postgres.names import EngineNames

LEASE_SECONDS = 5.0
"""A replica that was not heard of for so long is not waited for: the fence keeps it from doing harm."""


@dataclass(frozen=True, kw_only=True)
class Control:
    """The phase row of a service. `settings` holds what was changed at run time, by setting's name.

    `intent` is what a cutover is about to do, until it is done.
    """

    phase: Phase
    epoch: int
    version: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    intent: Mapping[str, Any] | None = None
    changed_at: datetime | None = None
    changed_by: str = ""
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Replica:
    """A process of the service, and what it goes by."""

    id: str
    host: str
    pid: int
    version: int
    epoch: int
    phase: Phase
    relay: bool
    seconds_since_seen: float


@dataclass(frozen=True, kw_only=True)
class PhaseChange:
    """One change of the phase, as it was written down. `stall_ms`: how long no side took writes."""

    from_phase: Phase
    to_phase: Phase
    epoch: int
    changed_at: datetime
    changed_by: str
    reason: str
    forced: tuple[str, ...]
    stall_ms: float | None


def new_replica_id() -> str:
    """A name for this process that no other has."""
    return uuid.uuid4().hex


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
                        "SELECT phase, epoch, version, settings::text AS settings, intent::text AS intent, "
                        f"changed_at, changed_by, reason FROM {self._names.control}"
                    )
                )
            ).first()
        if row is None:
            raise self._missing()
        return Control(
            phase=Phase(row.phase),
            epoch=row.epoch,
            version=row.version,
            settings=json.loads(row.settings),
            intent=json.loads(row.intent) if row.intent else None,
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

    async def change_phase(
        self,
        connection: AsyncConnection,
        phase: Phase,
        *,
        before: Control,
        epoch: int,
        by: str,
        reason: str,
        forced: Sequence[str] = (),
        stall_ms: float | None = None,
    ) -> bool:
        """Set the phase and forget the intent, in the caller's transaction; False if the row is not `before` any more."""
        changed = await connection.execute(
            text(
                f"UPDATE {self._names.control} SET phase = :phase, epoch = :epoch, version = version + 1, intent = NULL, "
                "changed_at = clock_timestamp(), changed_by = :by, reason = :reason "
                "WHERE phase = :was AND version = :version RETURNING version"
            ),
            {
                "phase": phase.value,
                "epoch": epoch,
                "by": by,
                "reason": reason,
                "was": before.phase.value,
                "version": before.version,
            },
        )
        if changed.first() is None:
            return False
        await connection.execute(
            text(
                f"INSERT INTO {self._names.phase_change} "
                "(from_phase, to_phase, epoch, changed_by, reason, forced, stall_ms) "
                "VALUES (:was, :phase, :epoch, :by, :reason, :forced, :stall_ms)"
            ),
            {
                "was": before.phase.value,
                "phase": phase.value,
                "epoch": epoch,
                "by": by,
                "reason": reason,
                "forced": list(forced),
                "stall_ms": stall_ms,
            },
        )
        await self._announce(connection)
        return True

    async def intend(self, before: Control, intent: Mapping[str, Any]) -> Control | None:
        """Write down what a cutover is about to do; None if the row is not `before` any more."""
        async with self._engine.begin() as connection:
            changed = await connection.execute(
                text(
                    f"UPDATE {self._names.control} SET intent = CAST(:intent AS jsonb), version = version + 1 "
                    "WHERE version = :version RETURNING version"
                ),
                {"intent": json.dumps(dict(intent)), "version": before.version},
            )
            if changed.first() is None:
                return None
            await self._announce(connection)
        return await self.read()

    async def changes(self, *, limit: int) -> list[PhaseChange]:
        """The latest changes of the phase, newest first."""
        async with self._engine.connect() as connection:
            rows = await connection.execute(
                text(f"SELECT * FROM {self._names.phase_change} ORDER BY id DESC LIMIT :limit"),
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
                    stall_ms=row.stall_ms,
                )
                for row in rows
            ]

    async def heartbeat(self, replica_id: str, control: Control, *, relay: bool) -> None:
        """Say that this process lives and what it goes by; those that were long silent are forgotten."""
        async with self._engine.begin() as connection:
            await connection.execute(
                text(
                    f"INSERT INTO {self._names.replica} (id, host, pid, version, epoch, phase, relay) "
                    "VALUES (:id, :host, :pid, :version, :epoch, :phase, :relay) ON CONFLICT (id) DO UPDATE "
                    "SET version = excluded.version, epoch = excluded.epoch, phase = excluded.phase, "
                    "relay = excluded.relay, seen_at = clock_timestamp()"
                ),
                {
                    "id": replica_id,
                    "host": socket.gethostname(),
                    "pid": os.getpid(),
                    "version": control.version,
                    "epoch": control.epoch,
                    "phase": control.phase.value,
                    "relay": relay,
                },
            )
            await connection.execute(
                text(
                    f"DELETE FROM {self._names.replica} WHERE seen_at < clock_timestamp() - interval '1 hour'"
                )
            )

    async def leave(self, replica_id: str) -> None:
        """Say that this process ends."""
        async with self._engine.begin() as connection:
            await connection.execute(
                text(f"DELETE FROM {self._names.replica} WHERE id = :id"), {"id": replica_id}
            )

    async def replicas(self) -> list[Replica]:
        """Processes that were heard of within the lease."""
        async with self._engine.connect() as connection:
            rows = await connection.execute(
                text(
                    "SELECT id, host, pid, version, epoch, phase, relay, "
                    "extract(epoch FROM clock_timestamp() - seen_at)::float8 AS age "
                    f"FROM {self._names.replica} WHERE seen_at > clock_timestamp() - make_interval(secs => :lease) "
                    "ORDER BY host, pid"
                ),
                {"lease": LEASE_SECONDS},
            )
            return [
                Replica(
                    id=row.id,
                    host=row.host,
                    pid=row.pid,
                    version=row.version,
                    epoch=row.epoch,
                    phase=Phase(row.phase),
                    relay=row.relay,
                    seconds_since_seen=row.age,
                )
                for row in rows
            ]

    async def _announce(self, connection: AsyncConnection) -> None:
        await connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": self.channel})

    def _missing(self) -> InstallationError:
        return InstallationError(
            f"the journal is not installed on the new side: run `tandem install {self._names.service}`"
        )
