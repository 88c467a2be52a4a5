"""Mismatches as they are kept on the new side: from the run that found one to the run or repair that ended it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from backend.shared.stores.postgres.names import EngineNames
from backend.shared.validation.report import Mismatch, MismatchChanges, MismatchKind

MISMATCHES_KEPT = 10_000
"""Of each run and entity."""
ENDED_KEPT_DAYS = 90


@dataclass(frozen=True, kw_only=True)
class KeptMismatch:
    """A key that differs, or did. Values are not kept."""

    id: int
    entity: str
    key: str
    kind: MismatchKind
    fields: tuple[str, ...]
    state: str
    first_run: int
    last_run: int
    first_seen: datetime
    last_seen: datetime


class MismatchRepository:
    """All SQL about mismatches, each method in the caller's transaction on the new side."""

    def __init__(self, names: EngineNames) -> None:
        self._names = names

    async def keep(
        self, connection: AsyncConnection, *, run_id: int, entity: str, found: Sequence[Mismatch]
    ) -> None:
        """Keep what run `run_id` has found: seen again, or seen for the first time. May be repeated."""
        document = [
            {"key": item.key, "kind": item.kind.value, "fields": [field.field for field in item.fields]}
            for item in found
        ]
        await connection.exec_driver_sql(
            f"INSERT INTO {self._names.mismatch} AS m (entity, key, kind, fields, first_run, last_run) "
            "SELECT $2, f.key, f.kind, ARRAY(SELECT json_array_elements_text(f.fields)), $1, $1 "
            "FROM json_to_recordset($3::text::json) AS f(key text, kind text, fields json) ORDER BY f.key "
            "ON CONFLICT (entity, key) WHERE state = 'open' DO UPDATE SET kind = excluded.kind, "
            "fields = excluded.fields, last_run = excluded.last_run, last_seen = clock_timestamp()",
            (run_id, entity, json.dumps(document)),
        )

    async def open_keys(
        self, connection: AsyncConnection, entities: Sequence[str], *, of_run: int | None = None
    ) -> dict[str, list[str]]:
        """By entity, the keys of its open mismatches, or of those among them that `of_run` was the last to see."""
        rows = await connection.exec_driver_sql(
            f"SELECT entity, key FROM {self._names.mismatch} WHERE state = 'open' AND entity = ANY ($1::text[]) "
            "AND ($2::bigint IS NULL OR last_run = $2)",
            (list(entities), of_run),
        )
        found: dict[str, list[str]] = {}
        for row in rows:
            found.setdefault(row.entity, []).append(row.key)
        return found

    async def end(
        self,
        connection: AsyncConnection,
        *,
        run_id: int,
        entity: str,
        last_seen_before: datetime,
        moving: Sequence[str],
        among: Sequence[str] | None = None,
    ) -> None:
        """End mismatches of `entity` (`among` these keys) that nobody has seen since a time: run `run_id` did not.

        Keys that are `moving` stay open.
        """
        await connection.exec_driver_sql(
            f"UPDATE {self._names.mismatch} SET state = 'gone', ended_at = clock_timestamp(), ended_run = $1 "
            "WHERE state = 'open' AND entity = $2 AND last_seen < $3 AND NOT key = ANY ($4::text[]) "
            "AND ($5::text[] IS NULL OR key = ANY ($5::text[]))",
            (run_id, entity, last_seen_before, list(moving), None if among is None else list(among)),
        )

    async def changes(self, connection: AsyncConnection, *, run_id: int, entity: str) -> MismatchChanges:
        """How what run `run_id` found compares with what was known before it."""
        rows = await connection.exec_driver_sql(
            "SELECT count(*) FILTER (WHERE state = 'open' AND first_run = $1) AS new, "
            "count(*) FILTER (WHERE state = 'open' AND last_run = $1 AND first_run <> $1) AS still, "
            "count(*) FILTER (WHERE ended_run = $1) AS gone "
            f"FROM {self._names.mismatch} WHERE entity = $2 AND (state = 'open' OR ended_run = $1)",
            (run_id, entity),
        )
        row = rows.one()
        return MismatchChanges(new=row.new, still=row.still, gone=row.gone)

    async def page(
        self, connection: AsyncConnection, *, after_id: int = 0, limit: int, entity: str | None = None
    ) -> list[KeptMismatch]:
        """Up to `limit` open mismatches with numbers above `after_id`, by rising number."""
        rows = await connection.exec_driver_sql(
            "SELECT id, entity, key, kind, fields, state, first_run, last_run, first_seen, last_seen "
            f"FROM {self._names.mismatch} WHERE state = 'open' AND id > $1 AND ($3::text IS NULL OR entity = $3) "
            "ORDER BY id LIMIT $2",
            (after_id, limit, entity),
        )
        return [
            KeptMismatch(
                id=row.id,
                entity=row.entity,
                key=row.key,
                kind=MismatchKind(row.kind),
                fields=tuple(row.fields),
                state=row.state,
                first_run=row.first_run,
                last_run=row.last_run,
                first_seen=row.first_seen,
                last_seen=row.last_seen,
            )
            for row in rows
        ]

    async def prune(self, connection: AsyncConnection) -> None:
        """Drop mismatches that ended long ago."""
        await connection.exec_driver_sql(
            f"DELETE FROM {self._names.mismatch} WHERE ended_at < clock_timestamp() - make_interval(days => $1)",
            (ENDED_KEPT_DAYS,),
        )
