"""The phase row: the one place that says which phase holds, with the settings changed at run time.

It is kept on the new side. Every replica reads it again each second; between two readings it goes by the last one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from backend.shared.domain.errors import InstallationError
from backend.shared.domain.phases import Phase
from backend.shared.stores.postgres.names import EngineNames


@dataclass(frozen=True, kw_only=True)
class Control:
    """The phase row of a service. `settings` holds what was changed at run time, by setting's name."""

    phase: Phase
    epoch: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    changed_at: datetime | None = None
    changed_by: str = ""
    reason: str = ""


class ControlRepository:
    """Reads and writes the phase row; each method is one transaction."""

    def __init__(self, engine: AsyncEngine, names: EngineNames) -> None:
        self._engine = engine
        self._names = names

    async def read(self) -> Control:
        """The row as it is; raises `InstallationError` if there is none."""
        async with self._engine.connect() as connection:
            there = await connection.execute(text("SELECT to_regclass(:name)"), {"name": self._names.control})
            if there.scalar() is None:
                raise self._missing()
            row = (
                await connection.execute(
                    text(
                        "SELECT phase, epoch, settings::text AS settings, changed_at, changed_by, reason "
                        f"FROM {self._names.control}"
                    )
                )
            ).first()
        if row is None:
            raise self._missing()
        return Control(
            phase=Phase(row.phase),
            epoch=row.epoch,
            settings=json.loads(row.settings),
            changed_at=row.changed_at,
            changed_by=row.changed_by,
            reason=row.reason,
        )

    async def change_settings(self, changes: Mapping[str, Any], *, by: str) -> None:
        """Merge `changes` into the run-time settings."""
        await self._update(
            "settings = settings || CAST(:value AS jsonb)",
            json.dumps(dict(changes)),
            by=by,
            reason="settings changed",
        )

    async def change_phase(self, phase: Phase, *, by: str, reason: str) -> None:
        """Set another phase of the same authority; moving the authority is the cutover's business."""
        await self._update("phase = :value", phase.value, by=by, reason=reason)

    async def _update(self, assignment: str, value: str, *, by: str, reason: str) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(
                text(
                    f"UPDATE {self._names.control} SET {assignment}, changed_at = clock_timestamp(), "
                    "changed_by = :by, reason = :reason"
                ),
                {"value": value, "by": by, "reason": reason},
            )

    def _missing(self) -> InstallationError:
        return InstallationError(
            f"the journal is not installed on the new side: run `tandem install {self._names.service}`"
        )
