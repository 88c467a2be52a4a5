"""SQL of the conflicts that a side keeps, and of what settled those of the other side."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from backend.shared.domain.phases import Side
from backend.shared.journal.conflict_records import (
    Conflict,
    ConflictOperation,
    FailedKey,
    OpenFailureKey,
    SettledConflict,
)
from backend.shared.journal.repository import COUNT_LIMIT
from backend.shared.stores.postgres.errors import LOCK_NOT_AVAILABLE, sqlstate_of
from backend.shared.stores.postgres.names import EngineNames
from backend.shared.stores.side import LockHeldError


class ConflictRepository:
    """Reads and writes the conflicts of one service on one side; the caller owns the transactions."""

    _COLUMNS = (
        "id, side, entity, key, operation, source_table, before::text AS before, after::text AS after, written_at, "
        "written_by, application, state, detail, kept, settled_by"
    )

    def __init__(self, names: EngineNames) -> None:
        self._names = names

    async def page(
        self,
        connection: AsyncConnection,
        *,
        after_id: int = 0,
        limit: int = 50,
        entity: str | None = None,
        state: str = "open",
    ) -> list[Conflict]:
        """Conflicts in the order of their numbers, past `after_id`."""
        # The index is of open ones: so that is said, and not asked by a parameter.
        in_state = "state = 'open'" if state == "open" else "state <> 'open'"
        rows = await connection.exec_driver_sql(
            f"SELECT {self._COLUMNS} FROM {self._names.conflict} WHERE {in_state} AND id > $1 "
            "AND ($2::text IS NULL OR entity = $2) ORDER BY id LIMIT $3",
            (after_id, entity, limit),
        )
        return [_conflict(dict(row)) for row in rows.mappings()]

    async def get(self, connection: AsyncConnection, number: int) -> Conflict | None:
        """One conflict, open or not."""
        return await self._one(connection, number, "")

    async def hold(self, connection: AsyncConnection, number: int) -> Conflict | None:
        """One conflict, held until the transaction ends; `LockHeldError` if somebody else holds it."""
        try:
            return await self._one(connection, number, " FOR UPDATE NOWAIT")
        except Exception as error:
            if sqlstate_of(error) != LOCK_NOT_AVAILABLE:
                raise
            raise LockHeldError("somebody else decides about it just now") from error

    async def hold_free(self, connection: AsyncConnection, numbers: Sequence[int]) -> set[int]:
        """Hold those open ones of `numbers` that nobody else holds, until the transaction ends."""
        rows = await connection.exec_driver_sql(
            f"SELECT id FROM {self._names.conflict} WHERE state = 'open' AND id = ANY ($1::bigint[]) "
            "ORDER BY id FOR UPDATE SKIP LOCKED",
            (list(numbers),),
        )
        return {row.id for row in rows}

    async def _one(self, connection: AsyncConnection, number: int, lock: str) -> Conflict | None:
        rows = await connection.exec_driver_sql(
            f"SELECT {self._COLUMNS} FROM {self._names.conflict} WHERE id = $1{lock}", (number,)
        )
        row = rows.mappings().first()
        return _conflict(dict(row)) if row else None

    async def count(self, connection: AsyncConnection) -> int:
        """How many are open; a longer list is counted up to `COUNT_LIMIT`."""
        found = await connection.exec_driver_sql(
            f"SELECT count(*) FROM (SELECT 1 FROM {self._names.conflict} WHERE state = 'open' LIMIT {COUNT_LIMIT}) AS c"
        )
        return int(found.scalar_one())

    async def last_id(self, connection: AsyncConnection) -> int:
        """The highest number that is open now."""
        found = await connection.exec_driver_sql(
            f"SELECT coalesce(max(id), 0) FROM {self._names.conflict} WHERE state = 'open'"
        )
        return int(found.scalar_one())

    async def written_since(self, connection: AsyncConnection, conflict: Conflict) -> bool:
        """Whether a foreign program has written the same key again after this conflict."""
        found = await connection.exec_driver_sql(
            f"SELECT 1 FROM {self._names.conflict} WHERE state = 'open' AND id > $1 AND entity = $2 AND key = $3 LIMIT 1",
            (conflict.id, conflict.entity, conflict.key),
        )
        return found.first() is not None

    async def settle(
        self, connection: AsyncConnection, numbers: Sequence[int], *, kept: Side, by: str, detail: str
    ) -> None:
        """Close conflicts, and say which side's state was kept, and by whom."""
        await connection.exec_driver_sql(
            f"UPDATE {self._names.conflict} SET state = 'settled', kept = $2, settled_by = $3, "
            "settled_at = clock_timestamp(), detail = $4 WHERE state = 'open' AND id = ANY ($1::bigint[])",
            (list(numbers), kept.value, by, detail or None),
        )

    async def note(self, connection: AsyncConnection, number: int, detail: str) -> None:
        """Keep why a conflict could not be settled."""
        await connection.exec_driver_sql(
            f"UPDATE {self._names.conflict} SET detail = $2 WHERE state = 'open' AND id = $1",
            (number, detail),
        )

    async def claim_settlement(
        self, connection: AsyncConnection, conflict: Conflict, *, kept: Side, by: str
    ) -> bool:
        """Say, in the transaction that writes it here, that `conflict` was settled so; False if one has done so before.

        On the side that is written, which need not be the one that keeps the conflict.
        """
        made = await connection.exec_driver_sql(
            f"INSERT INTO {self._names.settlement} (side, conflict_id, conflict_at, kept, settled_by) "
            "VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING RETURNING 1",
            (conflict.side.value, conflict.id, conflict.written_at, kept.value, by),
        )
        return made.first() is not None

    async def open_failures(
        self, connection: AsyncConnection, *, after_id: int, limit: int
    ) -> list[OpenFailureKey]:
        """FAILED keys of this side, past number `after_id`."""
        rows = await connection.exec_driver_sql(
            f"SELECT id, entity, key, reason FROM {self._names.failure} WHERE state = 'open' AND id > $1 "
            "ORDER BY id LIMIT $2",
            (after_id, limit),
        )
        return [OpenFailureKey(id=row.id, entity=row.entity, key=row.key, reason=row.reason) for row in rows]

    async def keep_failed(
        self, connection: AsyncConnection, failed: Iterable[FailedKey], *, side: Side, by: str
    ) -> None:
        """Make conflicts of FAILED keys of `side`, and close their failures."""
        rows = [
            {
                "id": item.failure_id,
                "entity": item.entity,
                "key": item.key,
                "source_table": item.source_table,
                "reason": item.reason,
                "there": _document(item.there),
                "here": _document(item.here),
            }
            for item in failed
        ]
        await connection.exec_driver_sql(
            "WITH failed AS (SELECT * FROM json_to_recordset($1::json) AS f(id bigint, entity text, key text, "
            "source_table text, reason text, there text, here text)), "
            f"closed AS (UPDATE {self._names.failure} AS f SET state = 'closed', closed_at = clock_timestamp(), "
            "closed_by = $3 FROM failed WHERE f.id = failed.id AND f.state = 'open' RETURNING f.id) "
            f"INSERT INTO {self._names.conflict} (entity, key, side, operation, source_table, before, after, detail, written_by) "
            f"SELECT entity, key, $2, '{ConflictOperation.FAILED.value}', source_table, there::json, here::json, reason, $3 "
            "FROM failed JOIN closed USING (id) ORDER BY id",
            (json.dumps(rows), side.value, by),
        )

    async def keep_settled(self, connection: AsyncConnection, settled: SettledConflict) -> None:
        """Keep a conflict that is settled already, so that what was dropped can be seen."""
        await connection.exec_driver_sql(
            f"INSERT INTO {self._names.conflict} (entity, key, side, operation, source_table, before, after, detail, "
            "written_by, state, kept, settled_by, settled_at) "
            f"VALUES ($1, $2, $3, '{ConflictOperation.STRANDED.value}', $4, $5::json, $6::json, $7, $8, 'settled', $9, "
            "$8, clock_timestamp())",
            (
                settled.entity,
                settled.key,
                settled.side.value,
                settled.source_table,
                _document(settled.kept_rows),
                _document(settled.dropped_rows),
                settled.detail,
                settled.settled_by,
                settled.side.other.value,
            ),
        )


def _document(tables: Mapping[str, str]) -> str:
    """Rows by table, as one JSON document; the rows stay as the server wrote them."""
    return "{" + ", ".join(f"{json.dumps(name)}: {rows}" for name, rows in tables.items()) + "}"


def _conflict(fields: dict[str, object]) -> Conflict:
    kept = fields["kept"]
    return Conflict(
        **{  # type: ignore[arg-type]  # a RowMapping
            **fields,
            "side": Side(str(fields["side"])),
            "operation": ConflictOperation(str(fields["operation"])),
            "kept": Side(str(kept)) if kept else None,
        }
    )
