"""`TaskDualWriteManager`: the ten collections of the service, on MongoDB and on PostgreSQL."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from types import EllipsisType
from typing import Any

from backend.shared import DualWriteManager, DualWriteSettings, EntityMapping, Key, UnitOfWork

from ..adapters.dual.repositories import LABELS, repositories_of
from ..domain.people import Label
from ..mapping import CATALOG
from .settings import dual_write_settings

Url = str | EllipsisType | None


class TaskDualWriteManager(DualWriteManager):
    """Legacy is the MongoDB of `LEGACY_DATABASE_URL`, or where that is not set of `MONGO_URL`; new the PostgreSQL database.

    The service's use cases write through it, each as one unit of work that runs on either side (`adapters.dual`).
    """

    service = "task"
    migrations = Path(__file__).parents[2] / "migrations"

    def __init__(
        self,
        new_db_url: Url = None,
        legacy_db_url: Url = None,
        settings: DualWriteSettings | None = None,
        **others: Any,
    ) -> None:
        super().__init__(new_db_url, legacy_db_url, settings or dual_write_settings(), **others)

    @classmethod
    def entities(cls) -> Sequence[EntityMapping]:
        """The ten collections, parents first."""
        return CATALOG.ordered

    async def write_probe(self, work: UnitOfWork) -> tuple[str, Key]:
        """A label that no task bears."""
        label = Label.create(name=f"~probe-{secrets.token_hex(16)}", color=None)
        await repositories_of(work).labels.save(label)
        return LABELS, (label.id,)
