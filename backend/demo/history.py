"""Copies a service's history once: what the legacy tables hold already goes to the service's own database.

For a stack whose services and relays are still down. Capture is on by then, so that whatever another program changes
meanwhile is in the journal, and the relays carry it when they start.

No guards are written, and R3 holds all the same. A guard keeps an apply that read an older state from overwriting a newer
one; here every apply comes later than the copy, since no relay has run yet, and reads its state later than the copy's
snapshot did. A key without a guard lets the first of them pass, as it should, and from then on the guard decides. Half
a million guards less is also half of the work.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from backend.shared.cli.services import manager_class
from backend.shared.domain.mapping import EntityCatalog, EntityMapping, Projection
from backend.shared.domain.phases import Direction
from backend.shared.stores.postgres.names import CARRY_SETTING, EngineNames
from backend.shared.stores.postgres.projection_sql import quoted, select_text, table_name

from .errors import StepError

COPY_SECONDS = 600.0
CONNECT_SECONDS = 10.0
PIECES_IN_FLIGHT = 64
"""Pieces of the stream, each of one network read, that may wait for the slower side: memory does not grow with the data."""


async def copy_history(service: str, *, env: Mapping[str, str]) -> int:
    """Copy all entities of `service` from the legacy to the new side. Returns the number of rows written.

    One snapshot of legacy and one transaction on the new side: all of it or nothing. Entities go parents first, rows in
    key order, through the mapping's projections, as one COPY stream from server to server per table. Raises `StepError`
    when a row is refused, or when the new side holds rows already.
    """
    manager = manager_class(service)
    prefix = service.upper()
    try:
        async with (
            _connected(env["LEGACY_DATABASE_URL"]) as source,
            _connected(env[f"{prefix}_DATABASE_URL"]) as target,
            source.transaction(isolation="repeatable_read", readonly=True),
            target.transaction(),
        ):
            return await _copy_entities(source, target, EngineNames(service), manager.catalog())
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        text = str(error).splitlines()  # further lines may hold values
        reason = text[0] if text else type(error).__name__
        raise StepError(f"copying the history of {service}: {reason}") from error


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(
        url,
        timeout=CONNECT_SECONDS,
        command_timeout=COPY_SECONDS,
        server_settings={"application_name": "tandem-history", "timezone": "UTC", "jit": "off"},
    )
    try:
        yield connection
    finally:
        await connection.close(timeout=CONNECT_SECONDS)


async def _copy_entities(source: Any, target: Any, names: EngineNames, catalog: EntityCatalog) -> int:
    epoch = await target.fetchval(f"SELECT epoch FROM {names.mark}")
    # Under the fence, and marked as a carry, as every apply is: capture on this side, if there is any, lets it pass.
    await target.execute(f"SELECT pg_advisory_xact_lock_shared({names.fence_lock})")
    mark = names.carry_mark(Direction.TO_NEW, epoch)
    await target.execute("SELECT set_config($1, $2, true)", CARRY_SETTING, mark)
    rows = 0
    for entity in catalog.ordered:
        for projection in entity.to_new:
            rows += await _copy_table(source, target, entity, projection)
    return rows


async def _copy_table(source: Any, target: Any, entity: EntityMapping, projection: Projection) -> int:
    table = table_name(projection.table)
    if projection.function:
        raise StepError(f"{entity.name}: {table} is mapped by Python, which a plain copy does not go through")
    if await target.fetchval(f"SELECT EXISTS (SELECT FROM {table})"):
        raise StepError(f"copying the history of {entity.name}: {table} on the new side holds rows already")
    columns = [column.name for column in projection.columns]
    key = ", ".join(quoted(name) for name in projection.key)
    query = (
        f"SELECT {', '.join(map(quoted, columns))} FROM ({select_text(projection.query)}) AS p ORDER BY {key}"
    )
    status = await target.copy_to_table(
        projection.table.name,
        schema_name=projection.table.schema,
        columns=columns,
        source=_pieces(source, query),
    )
    for column in projection.key_columns:
        await _move_sequence(target, table, column.name)
    await target.execute(f"ANALYZE {table}")
    return int(str(status).split()[-1])


async def _pieces(source: Any, query: str) -> AsyncIterator[bytes]:
    """The stream of `COPY (query) TO STDOUT`, as fast as it is consumed."""
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(PIECES_IN_FLIGHT)

    async def read() -> None:
        try:
            await source.copy_from_query(query, output=queue.put)
        except Exception:
            await queue.put(None)
            raise
        await queue.put(None)

    reader = asyncio.create_task(read())
    try:
        while (piece := await queue.get()) is not None:
            yield piece
        await reader
    finally:
        reader.cancel()
        await asyncio.wait({reader})


async def _move_sequence(target: Any, table: str, column: str) -> None:
    """Have the column's sequence, if it has one, go on after the highest value."""
    sequence = await target.fetchval("SELECT pg_get_serial_sequence($1, $2)", table, column)
    if sequence is not None:
        await target.execute(
            f"SELECT setval($1::text::regclass, max({quoted(column)})) FROM {table} HAVING max({quoted(column)}) > 0",
            sequence,
        )
