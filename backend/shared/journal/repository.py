"""SQL of the journal and of the failures of one side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from backend.shared.domain.phases import Direction
from backend.shared.journal.records import (
    Claim,
    ClaimedKey,
    Failure,
    JournalDepth,
    Remainder,
    folded,
)
from backend.shared.stores.postgres.errors import (
    DEADLOCK_DETECTED,
    LOCK_NOT_AVAILABLE,
    describe,
    sqlstate_of,
)
from backend.shared.stores.postgres.names import EngineNames
from backend.shared.stores.protocol import Position
from backend.shared.stores.side_records import LockHeldError

COUNT_LIMIT = 100_000
"""Journal rows are counted up to here; a longer journal is reported as this many."""


class JournalRepository:
    """Reads and writes the journal of one service on one side; the caller owns the transactions."""

    def __init__(self, names: EngineNames) -> None:
        self.names = names

    async def claim(self, connection: AsyncConnection, *, limit: int) -> Claim:
        """Take up to `limit` rows that are due, oldest first, past those that others hold.

        They are deleted in the caller's transaction: if it does not commit they are there again, and until it commits
        everybody else still sees them. So exactly the claimed rows end, and only then.
        """
        rows = await connection.exec_driver_sql(
            f"WITH due AS MATERIALIZED (SELECT id FROM {self.names.journal} "
            "WHERE wait_until IS NULL OR wait_until <= clock_timestamp() ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED) "
            f"DELETE FROM {self.names.journal} AS j USING due WHERE j.id = due.id "
            "RETURNING j.entity, j.key, j.captured_at, j.attempts, j.waits, j.request_id, j.changed_at",
            (limit,),
        )
        return folded(
            ClaimedKey(
                entity=row.entity,
                key=row.key,
                captured_at=row.captured_at,
                attempts=row.attempts,
                waits=row.waits,
                request_id=row.request_id,
                changed_at=row.changed_at,
            )
            for row in rows
        )

    async def requeue(
        self, connection: AsyncConnection, key: ClaimedKey, *, delay_seconds: float, error: str
    ) -> None:
        """Write a claimed key back, to be tried again after `delay_seconds`; its age is kept."""
        await connection.exec_driver_sql(
            f"INSERT INTO {self.names.journal} "
            "(entity, key, captured_at, request_id, attempts, waits, wait_until, last_error, changed_at) "
            "VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp() + make_interval(secs => $7), $8, $9)",
            (
                key.entity,
                key.key,
                key.captured_at,
                key.request_id,
                key.attempts,
                key.waits,
                float(delay_seconds),
                error,
                key.changed_at,
            ),
        )

    async def add(self, connection: AsyncConnection, entity: str, keys: Iterable[str]) -> int:
        """Journal `keys` by hand; answers the id of the transaction that did."""
        found = await connection.exec_driver_sql(
            f"WITH added AS (INSERT INTO {self.names.journal} (entity, key) "
            "SELECT $1, k FROM unnest($2::text[]) AS k) SELECT pg_current_xact_id()::text",
            (entity, sorted(set(keys))),
        )
        return int(found.scalar_one())

    async def last_id(self, connection: AsyncConnection) -> int:
        """A journal number below which this transaction cannot have written."""
        statement = f"SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('{self.names.journal}', 'id')), 0)"
        return int((await connection.exec_driver_sql(statement)).scalar_one())

    async def own_rows(
        self, connection: AsyncConnection, *, after_id: int
    ) -> tuple[list[int], dict[str, list[str]]]:
        """Numbers and keys (by entity) of the journal rows that this very transaction has written."""
        rows = await connection.exec_driver_sql(
            f"SELECT id, entity, key FROM {self.names.journal} WHERE id > $1 AND xid = pg_current_xact_id()",
            (after_id,),
        )
        ids: list[int] = []
        keys: dict[str, list[str]] = {}
        for row in rows:
            ids.append(row.id)
            keys.setdefault(row.entity, []).append(row.key)
        return ids, {entity: sorted(set(found)) for entity, found in keys.items()}

    async def end(self, connection: AsyncConnection, ids: Sequence[int]) -> None:
        """End exactly these rows; those that a relay holds are its own to end."""
        await connection.exec_driver_sql(
            f"DELETE FROM {self.names.journal} WHERE id IN (SELECT id FROM {self.names.journal} "
            "WHERE id = ANY ($1::bigint[]) FOR UPDATE SKIP LOCKED)",
            (list(ids),),
        )

    async def open_keys(self, connection: AsyncConnection, entity: str, keys: Sequence[str]) -> set[str]:
        """Those of `keys` that have an open journal row."""
        rows = await connection.exec_driver_sql(
            f"SELECT DISTINCT key FROM {self.names.journal} WHERE entity = $1 AND key = ANY ($2::text[])",
            (entity, list(keys)),
        )
        return {row.key for row in rows}

    async def changed_at(self, connection: AsyncConnection, entity: str, key: str) -> datetime | None:
        """When a key was last changed, as its open journal rows say; None where it has none."""
        found = await connection.exec_driver_sql(
            f"SELECT max(coalesce(changed_at, captured_at)) FROM {self.names.journal} WHERE entity = $1 AND key = $2",
            (entity, key),
        )
        at: datetime | None = found.scalar_one()
        return at

    async def remainder(self, connection: AsyncConnection) -> Remainder:
        """What is left to carry, seen by a statement later than any lock that the transaction holds."""
        found = (
            await connection.exec_driver_sql(
                "SELECT count(*) AS rows, count(*) FILTER (WHERE wait_until IS NOT NULL) AS waiting, "
                f"max(last_error) AS reason FROM {self.names.journal}"
            )
        ).one()
        return Remainder(rows=found.rows, waiting=found.waiting, reason=found.reason)

    async def forget(self, connection: AsyncConnection) -> None:
        """Delete every row: whoever goes on from here copies everything again.

        `LockHeldError` if somebody carries some of them for longer than the transaction's `lock_timeout`.
        """
        try:
            await connection.exec_driver_sql(f"DELETE FROM {self.names.journal}")
        except Exception as error:
            if sqlstate_of(error) not in (LOCK_NOT_AVAILABLE, DEADLOCK_DETECTED):
                raise
            raise LockHeldError(describe(error)) from error

    async def depth(self, connection: AsyncConnection) -> JournalDepth:
        """How much is waiting, without reading a long journal to its end."""
        journal = self.names.journal
        row = (
            await connection.exec_driver_sql(
                f"SELECT (SELECT count(*) FROM (SELECT 1 FROM {journal} LIMIT {COUNT_LIMIT}) AS j) AS rows, "
                f"(SELECT count(*) FROM {self.names.failure} WHERE state = 'open') AS failures, "
                "coalesce(extract(epoch FROM clock_timestamp() - fresh.at), 0) AS fresh_lag, "
                "coalesce(extract(epoch FROM clock_timestamp() - least(fresh.at, "
                f"(SELECT min(captured_at) FROM {journal} WHERE wait_until IS NOT NULL))), 0) AS lag "
                f"FROM (SELECT (SELECT captured_at FROM {journal} WHERE wait_until IS NULL ORDER BY id LIMIT 1) AS at) "
                "AS fresh"
            )
        ).one()
        return JournalDepth(
            rows=row.rows,
            lag_seconds=max(0.0, float(row.lag)),
            failures=row.failures,
            fresh_lag_seconds=max(0.0, float(row.fresh_lag)),
        )


class FailureRepository:
    """Reads and writes the failures of one service on its authoritative side."""

    _COLUMNS = (
        "id, entity, key, direction, state, attempts, reason, sqlstate, request_id, "
        "captured_at, first_failed_at, last_failed_at"
    )

    def __init__(self, names: EngineNames) -> None:
        self.names = names

    async def record(
        self,
        connection: AsyncConnection,
        key: ClaimedKey,
        *,
        direction: Direction,
        epoch: int,
        position: Position | None,
        reason: str,
        sqlstate: str | None,
    ) -> bool:
        """Keep a key as FAILED, once however often it fails; answers whether it was already.

        `position`: of the state that was refused. The newest that was refused stays, whoever is slow to say so: by a lower one a
        success in between would close the failure.
        """
        newest = "CASE WHEN (f.epoch, f.major, f.minor) > (excluded.epoch, excluded.major, excluded.minor) THEN f.{0} ELSE excluded.{0} END"
        told = ", ".join(
            f"{column} = {newest.format(column)}"
            for column in ("reason", "sqlstate", "epoch", "major", "minor")
        )
        found = await connection.exec_driver_sql(
            f"INSERT INTO {self.names.failure} AS f "
            "(entity, key, direction, attempts, reason, sqlstate, request_id, captured_at, epoch, major, minor) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (entity, key) WHERE state = 'open' "
            f"DO UPDATE SET attempts = f.attempts + excluded.attempts, {told}, "
            "last_failed_at = clock_timestamp() RETURNING xmax::text <> '0'",
            (
                key.entity,
                key.key,
                direction.value,
                key.attempts,
                reason,
                sqlstate,
                key.request_id,
                key.captured_at,
                epoch,
                position.major if position else 0,
                position.minor if position else 0,
            ),
        )
        return bool(found.scalar_one())

    async def close(
        self,
        connection: AsyncConnection,
        keys: Mapping[tuple[str, str], Position | None],
        *,
        epoch: int,
        by: str,
    ) -> int:
        """Close the open failures of keys that have been carried; answers how many there were.

        By key, the position of what was carried. A failure of something newer stays: another relay may have read and
        failed with it since, and its journal row has ended.
        """
        pairs = list(keys)
        at = [keys[pair] or Position(major=0, minor=0) for pair in pairs]
        result = await connection.exec_driver_sql(
            f"UPDATE {self.names.failure} AS f SET state = 'closed', closed_at = clock_timestamp(), closed_by = $3 "
            "FROM unnest($1::text[], $2::text[], $4::bigint[], $5::bigint[]) AS k(entity, key, major, minor) "
            "WHERE f.state = 'open' AND f.entity = k.entity AND f.key = k.key "
            "AND (f.epoch, f.major, f.minor) <= ($6::bigint, k.major, k.minor)",
            (
                [entity for entity, _ in pairs],
                [key for _, key in pairs],
                by,
                [position.major for position in at],
                [position.minor for position in at],
                epoch,
            ),
        )
        return int(result.rowcount)

    async def page(
        self,
        connection: AsyncConnection,
        *,
        after_id: int = 0,
        limit: int = 50,
        state: str = "open",
        entity: str | None = None,
    ) -> list[Failure]:
        """Failures in order of their number, past `after_id`."""
        rows = await connection.exec_driver_sql(
            f"SELECT {self._COLUMNS} FROM {self.names.failure} WHERE id > $1 AND state = $2 "
            "AND ($3::text IS NULL OR entity = $3) ORDER BY id LIMIT $4",
            (after_id, state, entity, limit),
        )
        return [_failure(row) for row in rows.mappings()]

    async def count_by_entity(self, connection: AsyncConnection) -> dict[str, int]:
        """Open failures by entity; entities without any are left out."""
        rows = await connection.exec_driver_sql(
            f"SELECT entity, count(*) AS n FROM {self.names.failure} WHERE state = 'open' GROUP BY entity"
        )
        return {row.entity: row.n for row in rows}

    async def get(self, connection: AsyncConnection, failure_id: int) -> Failure | None:
        """One failure by its number."""
        rows = await connection.exec_driver_sql(
            f"SELECT {self._COLUMNS} FROM {self.names.failure} WHERE id = $1", (failure_id,)
        )
        row = rows.mappings().first()
        return _failure(row) if row else None

    async def failed_keys(self, connection: AsyncConnection, entity: str, keys: Sequence[str]) -> set[str]:
        """Those of `keys` that have an open failure."""
        rows = await connection.exec_driver_sql(
            f"SELECT key FROM {self.names.failure} WHERE state = 'open' AND entity = $1 AND key = ANY ($2::text[])",
            (entity, list(keys)),
        )
        return {row.key for row in rows}

    async def find(self, connection: AsyncConnection, entity: str, key: str) -> Failure | None:
        """The open failure of a key."""
        rows = await connection.exec_driver_sql(
            f"SELECT {self._COLUMNS} FROM {self.names.failure} WHERE state = 'open' AND entity = $1 AND key = $2",
            (entity, key),
        )
        row = rows.mappings().first()
        return _failure(row) if row else None

    async def delete_closed(self, connection: AsyncConnection, *, closed_before: datetime, limit: int) -> int:
        """Delete up to `limit` failures that were closed before then; answers how many."""
        result = await connection.exec_driver_sql(
            f"DELETE FROM {self.names.failure} WHERE id IN (SELECT id FROM {self.names.failure} "
            "WHERE state = 'closed' AND closed_at < $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)",
            (closed_before, limit),
        )
        return int(result.rowcount)

    async def retry(
        self,
        connection: AsyncConnection,
        *,
        failure_id: int | None = None,
        entity: str | None = None,
        failed_before: datetime | None = None,
    ) -> int:
        """Journal the keys of open failures again: one, those of an entity, or all. They close when carried."""
        result = await connection.exec_driver_sql(
            f"INSERT INTO {self.names.journal} (entity, key) SELECT entity, key FROM {self.names.failure} "
            "WHERE state = 'open' AND ($1::bigint IS NULL OR id = $1) AND ($2::text IS NULL OR entity = $2) "
            "AND ($3::timestamptz IS NULL OR last_failed_at < $3)",
            (failure_id, entity, failed_before),
        )
        return int(result.rowcount)


def _failure(row: object) -> Failure:
    fields = dict(row)  # type: ignore[call-overload]  # a RowMapping
    return Failure(**{**fields, "direction": Direction(fields["direction"])})
