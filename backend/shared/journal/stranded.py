"""SQL of the keys that were written on one side alone."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncConnection

from backend.shared.journal.stranded_records import StrandedKey
from backend.shared.stores.postgres.names import EngineNames


class StrandedRepository:
    """Reads and writes the stranded keys of one service on one side; the caller owns the transactions."""

    _COLUMNS = "entity, key, before, changed_at, request_id"

    def __init__(self, names: EngineNames) -> None:
        self._table = names.stranded

    async def keep(
        self, connection: AsyncConnection, entity: str, images: Mapping[str, str], *, request_id: str | None
    ) -> None:
        """Keep the keys of `images` with their state before. Of one that is kept already, only the time changes."""
        keys = sorted(images)
        await connection.exec_driver_sql(
            f"INSERT INTO {self._table} AS s (entity, key, before, request_id) "
            'SELECT $1, k, b, $4 FROM unnest($2::text[], $3::text[]) AS r(k, b) ORDER BY k COLLATE "C" '
            "ON CONFLICT (entity, key) DO UPDATE SET changed_at = excluded.changed_at, request_id = excluded.request_id",
            (entity, keys, [images[key] for key in keys], request_id),
        )

    async def page(self, connection: AsyncConnection, *, limit: int) -> list[StrandedKey]:
        """Those that have been there for longest."""
        rows = await connection.exec_driver_sql(
            f"SELECT {self._COLUMNS} FROM {self._table} ORDER BY stranded_at, entity, key LIMIT $1", (limit,)
        )
        return [StrandedKey(**dict(row)) for row in rows.mappings()]

    async def get(self, connection: AsyncConnection, entity: str, key: str) -> StrandedKey | None:
        """One key, if it is stranded."""
        rows = await connection.exec_driver_sql(
            f"SELECT {self._COLUMNS} FROM {self._table} WHERE entity = $1 AND key = $2", (entity, key)
        )
        row = rows.mappings().first()
        return StrandedKey(**dict(row)) if row else None

    async def count(self, connection: AsyncConnection) -> int:
        """How many there are."""
        return int((await connection.exec_driver_sql(f"SELECT count(*) FROM {self._table}")).scalar_one())

    async def end(self, connection: AsyncConnection, entity: str, key: str) -> None:
        """Forget one."""
        await connection.exec_driver_sql(
            f"DELETE FROM {self._table} WHERE entity = $1 AND key = $2", (entity, key)
        )
