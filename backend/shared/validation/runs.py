"""Runs of the validator as they are kept on the new side: begun, taken up again, ended, listed."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from backend.shared.domain.phases import Side
from backend.shared.identity import this_process
from backend.shared.observability.labels import RunKind, Verdict
from backend.shared.stores.errors import is_database_error, to_side_error
from backend.shared.stores.postgres.names import EngineNames
from backend.shared.validation.run_records import (
    ENTITY_COLUMNS,
    RUN_COLUMNS,
    Circumstances,
    EntityProgress,
    EntityStanding,
    FullRun,
    Intervals,
    KeptRun,
    RunRequest,
    RunTakenOverError,
    circumstances_of,
    progress_of,
    run_of,
)

HEARTBEAT_SECONDS = 1.0
SILENT_SECONDS = 5.0
"""A run that has given no sign of life for this long is taken for dead."""
TOO_OLD_SECONDS = 24 * 3600
"""A run begun longer ago is not taken up again."""
FINISHED_RUNS_KEPT = 100
"""Of each kind. The last full comparison of an entity is kept in any case."""
BEGINNERS_LOCK = 0x7A4F
"""First half of the advisory lock, held within a transaction, under which runs begin; the second is hashed from the name."""

# What is kept here can be found again by another run: no need to wait for the disk.
_NOT_DURABLE = "set_config('synchronous_commit', 'off', true)"


class RunRepository:
    """All SQL about runs. Methods that take a connection run in the caller's transaction, all others are one each."""

    def __init__(
        self, engine: AsyncEngine, names: EngineNames, *, silent_seconds: float = SILENT_SECONDS
    ) -> None:
        self._engine = engine
        self._names = names
        self._silent = silent_seconds

    @asynccontextmanager
    async def transaction(self, *, alone: bool = False) -> AsyncIterator[AsyncConnection]:
        """A transaction on the new side; raises `SideError` for trouble with it. `alone`: it waits for others that are too.

        It does not wait for the disk: a crash of the server may take the last moment with it, and a run then begins a
        little further back.
        """
        try:
            async with self._engine.begin() as connection:
                # The lock is held to the end of the transaction only, so it works behind PgBouncer in transaction mode too.
                lock = f", pg_advisory_xact_lock({BEGINNERS_LOCK}, hashtext('{self._names.schema}'))"
                await connection.exec_driver_sql(f"SELECT {_NOT_DURABLE}{lock if alone else ''}")
                yield connection
        except Exception as error:
            if not is_database_error(error):
                raise
            raise to_side_error(error, Side.NEW) from error

    async def begin(
        self,
        connection: AsyncConnection,
        request: RunRequest,
        circumstances: Circumstances,
        *,
        resume: bool = True,
    ) -> KeptRun:
        """Take up an interrupted run of the same kind and choice under the same circumstances, or begin one.

        Others of that kind and choice that were interrupted are given up. The transaction is `alone`, so that of two that
        begin at once only one takes a run up.
        """
        found = await self._interrupted(connection, request, circumstances) if resume else None
        if found is None:
            return run_of(await self._insert(connection, request, circumstances), [])
        rows = await connection.exec_driver_sql(
            f"SELECT {ENTITY_COLUMNS} FROM {self._names.validation_entity} AS e WHERE e.run_id = $1",
            (found.id,),
        )
        return run_of(found, [progress_of(row) for row in rows])

    async def background_due(
        self,
        connection: AsyncConnection,
        entities: Sequence[str],
        *,
        intervals: Intervals,
    ) -> RunKind | None:
        """The background run that is due; None if another process is at it, or has been lately.

        Sure only in a transaction that is `alone`.
        """
        rows = await connection.exec_driver_sql(
            f"SELECT EXISTS (SELECT FROM {self._names.validation_run} AS r WHERE r.background AND ("
            f"(r.state = 'running' AND NOT {self._silent_run}) "
            "OR (r.state = 'finished' AND r.finished_at > clock_timestamp() - make_interval(secs => $1)))) AS lately, "
            f"EXISTS (SELECT FROM {self._names.validation_run} AS r WHERE r.kind = 'full' AND r.state = 'finished' "
            "AND r.entities @> $3::text[] AND r.started_at > clock_timestamp() - make_interval(secs => $2)) AS fully",
            (intervals.seconds, intervals.full_seconds, list(entities)),
        )
        row = rows.one()
        if row.lately:
            return None
        return RunKind.CHANGED if row.fully else RunKind.FULL

    async def beat(self, run: KeptRun) -> None:
        """Give a sign of life; raises `RunTakenOverError` if another process has taken up this run."""
        async with self.transaction() as connection:
            await self.hold(connection, run)

    async def hold(self, connection: AsyncConnection, run: KeptRun) -> None:
        """The same in the caller's transaction, to whose end nobody else can take up this run."""
        await self._of_holder(connection, run, "heartbeat_at = clock_timestamp()")

    async def interrupt(self, run: KeptRun) -> None:
        """Leave the run to whoever takes it up; does nothing if somebody has."""
        with suppress(RunTakenOverError):
            async with self.transaction() as connection:
                await self._of_holder(connection, run, "state = 'interrupted'")

    async def finish(self, connection: AsyncConnection, run: KeptRun, verdict: Verdict) -> None:
        """End the run; nobody can take it up any more."""
        await self._of_holder(
            connection,
            run,
            "state = 'finished', verdict = $3, finished_at = clock_timestamp(), heartbeat_at = clock_timestamp()",
            verdict.value,
        )

    async def save(self, connection: AsyncConnection, run: KeptRun, progress: EntityProgress) -> None:
        """Keep how far the run has come with an entity; the caller holds the run."""
        finished = "clock_timestamp()" if progress.verdict else "NULL"
        await connection.exec_driver_sql(
            f"INSERT INTO {self._names.validation_entity} AS e (run_id, entity, scope, mapping, major, minor, resume_at, "
            "exhausted, waiting, overflowed, counts, verdict, seconds, finished_at) "
            f"VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::text::jsonb, $12, $13, {finished}) "
            "ON CONFLICT (run_id, entity) DO UPDATE SET scope = excluded.scope, mapping = excluded.mapping, "
            "major = excluded.major, minor = excluded.minor, resume_at = excluded.resume_at, "
            "exhausted = excluded.exhausted, waiting = excluded.waiting, overflowed = excluded.overflowed, "
            "counts = excluded.counts, verdict = excluded.verdict, seconds = excluded.seconds, "
            "finished_at = excluded.finished_at",
            (
                run.id,
                progress.entity,
                progress.scope.value,
                progress.mapping,
                progress.began_at.major,
                progress.began_at.minor,
                progress.resume_at,
                progress.exhausted,
                list(progress.waiting),
                progress.overflowed,
                json.dumps(dict(progress.counts)),
                progress.verdict.value if progress.verdict else None,
                progress.seconds,
            ),
        )

    async def last_full(
        self, connection: AsyncConnection, entities: Sequence[str], *, before_run: int
    ) -> dict[str, FullRun]:
        """By entity, the last full comparison of it that came to its end, in any run but `before_run`."""
        rows = await connection.exec_driver_sql(
            f"SELECT DISTINCT ON (e.entity) {RUN_COLUMNS}, {ENTITY_COLUMNS} FROM {self._names.validation_entity} AS e "
            f"JOIN {self._names.validation_run} AS r ON r.id = e.run_id WHERE e.entity = ANY ($1::text[]) "
            "AND e.scope = 'full' AND e.finished_at IS NOT NULL AND e.run_id <> $2 ORDER BY e.entity, e.run_id DESC",
            (list(entities), before_run),
        )
        return {
            row.entity: FullRun(run_id=row.id, circumstances=circumstances_of(row), progress=progress_of(row))
            for row in rows
        }

    async def last_standing(
        self, connection: AsyncConnection, circumstances: Circumstances
    ) -> dict[str, EntityStanding]:
        """By entity, the last comparison in these circumstances of all of it, or of changes since such a one."""
        rows = await connection.exec_driver_sql(
            "WITH counted AS (SELECT e.entity, e.run_id, e.scope, e.verdict, e.finished_at "
            f"FROM {self._names.validation_entity} AS e JOIN {self._names.validation_run} AS r ON r.id = e.run_id "
            "WHERE e.scope IN ('full', 'changed') AND e.finished_at IS NOT NULL AND e.verdict IS NOT NULL "
            "AND r.direction = $1 AND r.epoch = $2 AND r.capture = $3 AND r.capture <> '') "
            "SELECT DISTINCT ON (c.entity) c.entity, c.verdict, "
            "extract(epoch FROM clock_timestamp() - c.finished_at)::float8 AS age, "
            f"(SELECT count(*) FROM {self._names.mismatch} AS m WHERE m.entity = c.entity AND m.state = 'open') AS open "
            "FROM counted AS c WHERE EXISTS (SELECT FROM counted AS f WHERE f.entity = c.entity AND f.scope = 'full') "
            "ORDER BY c.entity, c.run_id DESC",
            (circumstances.direction.value, circumstances.epoch, circumstances.capture),
        )
        return {
            row.entity: EntityStanding(
                entity=row.entity,
                verdict=Verdict(row.verdict),
                seconds_ago=row.age,
                open_mismatches=row.open,
            )
            for row in rows
        }

    async def others(self, connection: AsyncConnection, run: KeptRun) -> tuple[int, ...]:
        """Numbers of runs of the same kind that have given a sign of life of late."""
        rows = await connection.exec_driver_sql(
            f"SELECT r.id FROM {self._names.validation_run} AS r WHERE r.id <> $1 AND r.kind = $2 AND r.state = 'running' "
            f"AND NOT {self._silent_run} ORDER BY 1",
            (run.id, run.kind.value),
        )
        return tuple(row.id for row in rows)

    async def latest(self, *, limit: int) -> list[KeptRun]:
        """The latest runs, newest first, with their entities."""
        async with self.transaction() as connection:
            runs = (
                await connection.exec_driver_sql(
                    f"SELECT {RUN_COLUMNS} FROM {self._names.validation_run} AS r ORDER BY r.id DESC LIMIT $1",
                    (limit,),
                )
            ).all()
            rows = await connection.exec_driver_sql(
                f"SELECT {ENTITY_COLUMNS} FROM {self._names.validation_entity} AS e WHERE e.run_id = ANY ($1::bigint[]) "
                "ORDER BY e.entity",
                ([run.id for run in runs],),
            )
            entities: dict[int, list[EntityProgress]] = {}
            for row in rows:
                entities.setdefault(row.run_id, []).append(progress_of(row))
            return [run_of(run, entities.get(run.id, [])) for run in runs]

    async def prune(self, connection: AsyncConnection) -> None:
        """Drop runs that are too old to be kept."""
        await connection.exec_driver_sql(
            f"DELETE FROM {self._names.validation_run} AS old USING (SELECT r.id, row_number() OVER ("
            f"PARTITION BY r.kind ORDER BY r.id DESC) AS age FROM {self._names.validation_run} AS r "
            "WHERE r.state IN ('finished', 'given_up')) AS aged WHERE old.id = aged.id AND aged.age > $1 "
            f"AND NOT EXISTS (SELECT FROM {self._names.validation_entity} AS e WHERE e.run_id = old.id AND e.scope = 'full' "
            f"AND e.finished_at IS NOT NULL AND NOT EXISTS (SELECT FROM {self._names.validation_entity} AS later "
            "WHERE later.entity = e.entity AND later.run_id > e.run_id AND later.scope = 'full' "
            "AND later.finished_at IS NOT NULL))",
            (FINISHED_RUNS_KEPT,),
        )

    @property
    def _silent_run(self) -> str:
        return f"r.heartbeat_at < clock_timestamp() - make_interval(secs => {self._silent:f})"

    async def _interrupted(
        self, connection: AsyncConnection, request: RunRequest, circumstances: Circumstances
    ) -> Row[Any] | None:
        rows = await connection.exec_driver_sql(
            f"UPDATE {self._names.validation_run} AS r SET state = 'running', heartbeat_at = clock_timestamp(), "
            "run_by = $8, token = $9, background = $10, times_resumed = r.times_resumed + 1 WHERE r.id = ("
            f"SELECT r.id FROM {self._names.validation_run} AS r WHERE r.kind = $1 AND r.share = $2 AND r.entities = $3 "
            "AND r.direction = $4 AND r.epoch = $5 AND r.capture = $6 AND r.capture <> '' "
            "AND r.started_at > clock_timestamp() - make_interval(secs => $7) "
            f"AND (r.state = 'interrupted' OR (r.state = 'running' AND {self._silent_run})) ORDER BY r.id DESC LIMIT 1"
            f") RETURNING {RUN_COLUMNS}",
            (
                request.kind.value,
                request.share,
                list(request.entities),
                circumstances.direction.value,
                circumstances.epoch,
                circumstances.capture,
                float(TOO_OLD_SECONDS),
                this_process(),
                secrets.token_hex(8),
                request.background,
            ),
        )
        return rows.first()

    async def _insert(
        self, connection: AsyncConnection, request: RunRequest, circumstances: Circumstances
    ) -> Row[Any]:
        """A fresh run; those of the same kind and choice that were interrupted are given up."""
        rows = await connection.exec_driver_sql(
            f"WITH ended AS (UPDATE {self._names.validation_run} AS r SET state = 'given_up' "
            f"WHERE (r.state = 'interrupted' OR (r.state = 'running' AND {self._silent_run})) "
            "AND ((r.kind = $1 AND r.entities = $4) "
            f"OR r.started_at < clock_timestamp() - make_interval(secs => {TOO_OLD_SECONDS}))) "
            f"INSERT INTO {self._names.validation_run} AS r (kind, share, seed, entities, direction, epoch, capture, "
            "background, run_by, token) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) "
            f"RETURNING {RUN_COLUMNS}",
            (
                request.kind.value,
                request.share,
                request.seed,
                list(request.entities),
                circumstances.direction.value,
                circumstances.epoch,
                circumstances.capture,
                request.background,
                this_process(),
                secrets.token_hex(8),
            ),
        )
        return rows.one()

    async def _of_holder(
        self, connection: AsyncConnection, run: KeptRun, change: str, *parameters: object
    ) -> None:
        done = await connection.exec_driver_sql(
            f"UPDATE {self._names.validation_run} SET {change} WHERE id = $1 AND token = $2 AND state = 'running'",
            (run.id, run.token, *parameters),
        )
        if not done.rowcount:
            raise RunTakenOverError(
                f"validation run {run.id} gave no sign of life, and another process has taken it up"
            )
