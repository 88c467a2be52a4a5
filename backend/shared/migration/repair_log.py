"""SQL of a repair: which keys the last validation kept, what is written about repairs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Sequence

from sqlalchemy.ext.asyncio import AsyncEngine

from backend.shared.domain.phases import Side
from backend.shared.migration.repair_results import Identity, KeyRepair, RepairOutcome
from backend.shared.stores.postgres.names import EngineNames

BEGUN = "begun"
"""Outcome of a repair that was written down before it was tried: what became of it was not seen."""

_MISMATCH_STATES = {RepairOutcome.REPAIRED: "repaired", RepairOutcome.EQUAL_ALREADY: "gone"}


class RepairRepository:
    """Reads the mismatches that are kept, and writes about repairs, on the new side; each method is one transaction."""

    def __init__(self, engine: AsyncEngine, names: EngineNames) -> None:
        self._engine = engine
        self._names = names

    async def was_validated(self, entity: str | None) -> bool:
        """Whether a validation (of `entity`) has come to its end, so that no open mismatch means that none was found."""
        async with self._engine.connect() as connection:
            found = await connection.exec_driver_sql(
                f"SELECT 1 FROM {self._names.validation_run} AS r JOIN {self._names.validation_entity} AS e ON e.run_id = r.id "
                "WHERE e.finished_at IS NOT NULL AND ($1::text IS NULL OR (e.entity = $1)) LIMIT 1",
                (entity,),
            )
            return found.first() is not None

    async def kept_only_some(self, entity: str) -> bool:
        """Whether the last validation of `entity` found more mismatches (or moving keys) than are kept."""
        async with self._engine.connect() as connection:
            found = await connection.exec_driver_sql(
                f"SELECT overflowed FROM {self._names.validation_entity} "
                "WHERE entity = $1 AND finished_at IS NOT NULL ORDER BY run_id DESC LIMIT 1",
                (entity,),
            )
            return bool(found.scalar_one_or_none())

    async def open_mismatches(self, entity: str, *, page_keys: int) -> AsyncIterator[list[Identity]]:
        """Keys of `entity` with an open mismatch, some at a time; those found after this began are left out."""
        last, most = 0, await self._last_mismatch()
        while True:
            async with self._engine.connect() as connection:
                rows = (
                    await connection.exec_driver_sql(
                        f"SELECT id, key FROM {self._names.mismatch} WHERE state = 'open' AND entity = $1 "
                        "AND id > $2 AND id <= $3 ORDER BY id LIMIT $4",
                        (entity, last, most, page_keys),
                    )
                ).all()
            if not rows:
                return
            yield [(entity, row.key) for row in rows]
            last = rows[-1].id

    async def _last_mismatch(self) -> int:
        async with self._engine.connect() as connection:
            found = await connection.exec_driver_sql(
                f"SELECT coalesce(max(id), 0) FROM {self._names.mismatch}"
            )
            return int(found.scalar_one())

    async def begin(
        self, planned: Sequence[tuple[Identity, Sequence[str]]], *, source: Side, by: str, reason: str
    ) -> dict[Identity, int]:
        """Write down that these keys, with the fields that differ, are about to be repaired; answers the rows' numbers."""
        rows = [{"entity": entity, "key": key, "fields": list(fields)} for (entity, key), fields in planned]
        async with self._engine.begin() as connection:
            found = await connection.exec_driver_sql(
                f"INSERT INTO {self._names.repair} (entity, key, from_side, outcome, fields, repaired_by, reason) "
                f"SELECT r.entity, r.key, $2, '{BEGUN}', r.fields, $3, $4 "
                "FROM json_to_recordset($1::json) AS r(entity text, key text, fields text[]) RETURNING id, entity, key",
                (json.dumps(rows), source.value, by, reason),
            )
            return {(row.entity, row.key): row.id for row in found}

    async def finish(self, done: Iterable[KeyRepair], numbers: dict[Identity, int]) -> None:
        """Write down what became of keys, and end the mismatches of those that are equal now."""
        rows = [
            {
                "id": numbers.get(item.identity),
                "entity": item.entity,
                "key": item.key,
                "outcome": item.outcome.value,
                "detail": item.detail or None,
                "state": _MISMATCH_STATES.get(item.outcome),
            }
            for item in done
        ]
        recordset = "json_to_recordset($1::json) AS r(id bigint, entity text, key text, outcome text, detail text, state text)"
        async with self._engine.begin() as connection:
            await connection.exec_driver_sql(
                f"UPDATE {self._names.repair} AS p SET outcome = r.outcome, detail = r.detail, "
                f"finished_at = clock_timestamp() FROM {recordset} WHERE p.id = r.id",
                (json.dumps(rows),),
            )
            await connection.exec_driver_sql(
                f"UPDATE {self._names.mismatch} AS m SET state = r.state, ended_at = clock_timestamp() FROM {recordset} "
                "WHERE m.state = 'open' AND r.state IS NOT NULL AND m.entity = r.entity AND m.key = r.key",
                (json.dumps(rows),),
            )
