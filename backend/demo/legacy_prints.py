"""Fingerprints of the legacy tables, to see that nobody writes them any more."""

from __future__ import annotations

from sqlalchemy import text

from backend.shared.domain.phases import Direction, Side
from backend.shared.dual_write_manager import DualWriteManager
from backend.shared.stores.postgres.projection_sql import table_name

Prints = dict[str, tuple[int, str]]


async def legacy_prints(manager: DualWriteManager) -> Prints:
    """By table of the service: its rows, and a sum of the hashes of all of them."""
    tables = {
        table_name(projection.table)
        for entity in manager.catalog().ordered
        for projection in entity.projections(Direction.TO_LEGACY)
    }
    found: Prints = {}
    async with manager.runtime.engines[Side.LEGACY].connect() as connection:
        for name in sorted(tables):
            row = (
                await connection.execute(
                    text(
                        "SELECT count(*) AS rows, coalesce(sum(hash_record_extended(t.*, 0)), 0)::text AS sum "
                        f"FROM {name} AS t"
                    )
                )
            ).one()
            found[name] = (row.rows, row.sum)
    return found
