"""Helpers of the backfill's tests: people to copy, and a backfill in small chunks."""

from __future__ import annotations

from backend.shared import DualWriteManager
from backend.shared.migration.backfill import Backfill, BackfillStatus
from backend.shared.migration.backfill_state import EntityProgress

FOLK = "INSERT INTO folk (folk_no, mail, cents) SELECT n, 'p' || n, n FROM generate_series(1, {rows}) AS n"


def small(manager: DualWriteManager) -> Backfill:
    return Backfill(manager.runtime, chunk_seconds=0.01, first_chunk_rows=16)


def progress_of(work_status: BackfillStatus, entity: str) -> EntityProgress:
    return next(item.progress for item in work_status.entities if item.progress.entity == entity)
