"""Processes of a service, and which version of the phase row each goes by: a lease that each renews once a second."""

from __future__ import annotations

import os
import socket
import uuid
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from backend.shared.control import Control
from backend.shared.domain.phases import Phase
from backend.shared.stores.postgres.names import EngineNames

LEASE_SECONDS = 5.0
"""A replica that was not heard of for so long is not waited for: the fence keeps it from doing harm."""


@dataclass(frozen=True, kw_only=True)
class Replica:
    """A process of the service, and what it goes by.

    `highest_lag_seconds` is what it has measured within the lag window; it measures since `measured_seconds`, a minute at
    most.
    """

    id: str
    host: str
    pid: int
    version: int
    epoch: int
    phase: Phase
    relay: bool
    highest_lag_seconds: float
    measured_seconds: float
    seconds_since_seen: float

    @property
    def name(self) -> str:
        """How to find it."""
        return f"process {self.pid} on {self.host}"

    def follows(self, control: Control) -> bool:
        """Whether it has heard of the last change of the phase."""
        return self.version >= control.phase_version


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a process says of itself beside the version that it goes by; lag in seconds, over `seconds` until now."""

    relay: bool
    highest_lag_seconds: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ShadowReads:
    """Reads that were also asked of the other side: compared, found different, and not answered by it."""

    compared: int = 0
    mismatches: int = 0
    failed: int = 0


class ShadowTally:
    """What this process has compared and not written down yet, by the version of the phase row that it was read by."""

    def __init__(self) -> None:
        self._counted: dict[int, tuple[Control, ShadowReads]] = {}

    def add(self, control: Control, counted: ShadowReads) -> None:
        """Count something that was read by `control`."""
        _, before = self._counted.get(control.phase_version, (control, ShadowReads()))
        self._counted[control.phase_version] = (
            control,
            ShadowReads(
                compared=before.compared + counted.compared,
                mismatches=before.mismatches + counted.mismatches,
                failed=before.failed + counted.failed,
            ),
        )

    async def write_down(self, replicas: ReplicaRepository) -> None:
        """Add it to what all processes have counted. What could not be written is kept for the next time."""
        counted, self._counted = self._counted, {}
        while counted:
            _, (control, reads) = counted.popitem()
            try:
                await replicas.add_shadow_reads(control, reads)
            except BaseException:
                for left, found in (*counted.values(), (control, reads)):
                    self.add(left, found)
                raise


def new_replica_id() -> str:
    """A name for this process that no other has."""
    return uuid.uuid4().hex


class ReplicaRepository:
    """The leases, on the new side; each method is one transaction."""

    def __init__(self, engine: AsyncEngine, names: EngineNames) -> None:
        self._engine = engine
        self._names = names

    async def beat(self, replica_id: str, control: Control, measured: Measured) -> None:
        """Say that this process lives and what it goes by; those that were long silent are forgotten."""
        async with self._engine.begin() as connection:
            await connection.execute(
                text(
                    f"INSERT INTO {self._names.replica} (id, host, pid, version, epoch, phase, relay, "
                    "highest_lag_seconds, measured_seconds) "
                    "VALUES (:id, :host, :pid, :version, :epoch, :phase, :relay, :lag, :seconds) "
                    "ON CONFLICT (id) DO UPDATE SET version = excluded.version, epoch = excluded.epoch, "
                    "phase = excluded.phase, relay = excluded.relay, seen_at = clock_timestamp(), "
                    "highest_lag_seconds = excluded.highest_lag_seconds, measured_seconds = excluded.measured_seconds"
                ),
                {
                    "id": replica_id,
                    "host": socket.gethostname(),
                    "pid": os.getpid(),
                    "version": control.version,
                    "epoch": control.epoch,
                    "phase": control.phase.value,
                    "relay": measured.relay,
                    "lag": measured.highest_lag_seconds,
                    "seconds": measured.seconds,
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

    async def live(self) -> list[Replica]:
        """Processes that were heard of within the lease."""
        async with self._engine.connect() as connection:
            rows = await connection.execute(
                text(
                    "SELECT id, host, pid, version, epoch, phase, relay, highest_lag_seconds, measured_seconds, "
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
                    highest_lag_seconds=row.highest_lag_seconds,
                    measured_seconds=row.measured_seconds,
                    seconds_since_seen=row.age,
                )
                for row in rows
            ]

    async def add_shadow_reads(self, control: Control, counted: ShadowReads) -> None:
        """Add what this process has counted since it last did so."""
        async with self._engine.begin() as connection:
            await connection.execute(
                text(
                    f"INSERT INTO {self._names.shadow_read} AS s (phase_version, minute, compared, mismatches, failed) "
                    "VALUES (:version, date_trunc('minute', clock_timestamp()), :compared, :mismatches, :failed) "
                    "ON CONFLICT (phase_version, minute) DO UPDATE SET compared = s.compared + excluded.compared, "
                    "mismatches = s.mismatches + excluded.mismatches, failed = s.failed + excluded.failed"
                ),
                {
                    "version": control.phase_version,
                    "compared": counted.compared,
                    "mismatches": counted.mismatches,
                    "failed": counted.failed,
                },
            )
            await connection.execute(
                text(
                    f"DELETE FROM {self._names.shadow_read} WHERE minute < clock_timestamp() - interval '1 day'"
                )
            )

    async def shadow_reads(self, control: Control, *, since_seconds: float) -> ShadowReads:
        """What all processes have counted in the present phase, within the last `since_seconds`."""
        async with self._engine.connect() as connection:
            row = (
                await connection.execute(
                    text(
                        "SELECT coalesce(sum(compared), 0)::bigint AS compared, "
                        "coalesce(sum(mismatches), 0)::bigint AS mismatches, coalesce(sum(failed), 0)::bigint AS failed "
                        f"FROM {self._names.shadow_read} WHERE phase_version = :version "
                        "AND minute > clock_timestamp() - make_interval(secs => :since + 60)"
                    ),
                    {"version": control.phase_version, "since": since_seconds},
                )
            ).one()
        return ShadowReads(compared=row.compared, mismatches=row.mismatches, failed=row.failed)
