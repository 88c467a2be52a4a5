"""Put the journal, its triggers, guards and marks into the two sides of a service; check that they are there."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from itertools import groupby
from operator import attrgetter
from typing import Any

from sqlalchemy import MetaData, Row, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.schema import CreateIndex, CreateTable

from backend.shared.domain.errors import InstallationError
from backend.shared.domain.mapping import EntityCatalog
from backend.shared.domain.phases import Capture, Phase, Side
from backend.shared.journal.capture import capture_triggers, fingerprint
from backend.shared.journal.fence import assert_function, fence_triggers
from backend.shared.journal.marks import MarkRepository, identity_of
from backend.shared.journal.sync_triggers import sync_triggers
from backend.shared.journal.triggers import InstalledTrigger
from backend.shared.stores.errors import is_database_error, to_side_error
from backend.shared.stores.postgres.names import EngineNames
from backend.shared.stores.postgres.projection_sql import DIALECT

LOCK_TIMEOUT_MS = 3000
"""CREATE TRIGGER queues behind writers and stops those behind it: so it waits no longer than this for its lock."""

JOURNAL_BY_KEY = "CREATE INDEX IF NOT EXISTS journal_key ON {schema}.journal (key)"
"""Only where rows say how they stand: then every pass of the relay asks for its keys."""


async def first_phase(engine: AsyncEngine, names: EngineNames, phase: Phase) -> tuple[Phase, int, str | None]:
    """Phase, epoch and run-time choice on foreign writes as the phase row says; it is made with `phase` the first time."""
    async with _transaction(engine, Side.NEW) as connection:
        control = await _first_phase(connection, names, phase)
    return Phase(control.phase), control.epoch, control.foreign_writes


async def install_side(
    engine: AsyncEngine,
    names: EngineNames,
    catalog: EntityCatalog,
    *,
    side: Side,
    phase: Phase,
    epoch: int,
    capture: Capture,
    foreign_writes: str,
) -> None:
    """Install one side in one transaction. May be repeated; changes nothing that is as it should be."""
    wanted = wanted_triggers(names, catalog, side=side, phase=phase, capture=capture)
    marks = MarkRepository(names, engine, side)
    async with _transaction(engine, side) as connection:
        whole = _fingerprint(names, catalog, side=side, capture=capture)
        if await installed(connection, names) == whole and not await missing_triggers(
            connection, names, wanted
        ):
            await marks.set_foreign_writes(connection, foreign_writes)
            return
        await _tables(connection, names)
        for metadata in _twins(names, catalog, side):
            await connection.run_sync(metadata.create_all)
        if sync_triggers(names, catalog, side):
            await connection.exec_driver_sql(JOURNAL_BY_KEY.format(schema=names.schema))
        await _mark(
            connection, marks, names, is_open=side is phase.policy.authoritative, phase=phase, epoch=epoch
        )
        await marks.set_foreign_writes(connection, foreign_writes)
        known = (await marks.read(connection)).capture_token
        without_gap = known in ("", await capture_token(connection, names, wanted))
        await _put_triggers(connection, names, wanted, side=side, fingerprint=whole)
        if phase.policy.captures and without_gap:
            token = await capture_token(connection, names, wanted)
            await marks.note_capture(connection, token=token)


@asynccontextmanager
async def _transaction(engine: AsyncEngine, side: Side) -> AsyncIterator[AsyncConnection]:
    try:
        async with engine.begin() as connection:
            yield connection
    except Exception as error:
        if not is_database_error(error):
            raise
        raise to_side_error(error, side) from error


async def _first_phase(connection: AsyncConnection, names: EngineNames, phase: Phase) -> Row[Any]:
    """The phase row; made with `phase` the first time."""
    if await installed(connection, names) is None:
        await _tables(connection, names)
    await connection.execute(
        text(
            f"INSERT INTO {names.control} (phase, epoch, changed_by, reason) "
            "VALUES (:phase, 1, 'install', 'first value') ON CONFLICT DO NOTHING"
        ),
        {"phase": phase.value},
    )
    return (
        await connection.execute(
            text(f"SELECT phase, epoch, settings ->> 'foreign_writes' AS foreign_writes FROM {names.control}")
        )
    ).one()


def _script() -> str:
    return files("backend.shared.journal").joinpath("tables.sql").read_text(encoding="utf-8")


def _twins(names: EngineNames, catalog: EntityCatalog, side: Side) -> list[MetaData]:
    """What holds the tables that a side has for the service's sake alone; see `backend.shared.domain.mirrors`."""
    tables = [source.table for entity in catalog.ordered for source in entity.sources(side)]
    return list(
        {id(table.metadata): table.metadata for table in tables if table.schema == names.schema}.values()
    )


def described(metadata: MetaData) -> str:
    """Its tables and indexes as SQL, each line by line in order: constraints that were copied come in another order in each process."""
    made = [str(CreateTable(table).compile(dialect=DIALECT)) for table in metadata.sorted_tables]
    made += [
        str(CreateIndex(index).compile(dialect=DIALECT))
        for table in metadata.sorted_tables
        for index in table.indexes
    ]
    return "\n".join(sorted(map(_in_order, made)))


def _in_order(statement: str) -> str:
    return "\n".join(sorted(line.strip(" \t,") for line in statement.splitlines()))


def _fingerprint(names: EngineNames, catalog: EntityCatalog, *, side: Side, capture: Capture) -> str:
    """What this version installs on a side, whatever the phase: tables, fence and capture."""
    most = wanted_triggers(names, catalog, side=side, phase=Phase.SHADOW, capture=capture)
    twins = "".join(described(metadata) for metadata in _twins(names, catalog, side))
    everything = _script() + twins + assert_function(names, side) + fingerprint(most)
    return hashlib.sha256(everything.encode()).hexdigest()


async def _tables(connection: AsyncConnection, names: EngineNames) -> None:
    await connection.exec_driver_sql(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
    await _run_all(connection, [_script().replace("{schema}", names.schema)])


async def _mark(
    connection: AsyncConnection,
    marks: MarkRepository,
    names: EngineNames,
    *,
    is_open: bool,
    phase: Phase,
    epoch: int,
) -> None:
    await connection.execute(
        text(
            f"INSERT INTO {names.mark} (state, epoch, captures) VALUES (:state, :epoch, :captures) "
            "ON CONFLICT DO NOTHING"
        ),
        {"state": "open" if is_open else "closed", "epoch": epoch, "captures": phase.policy.captures},
    )
    if not (await marks.read(connection)).identity:
        await marks.note_identity(connection, await identity_of(connection))


async def _put_triggers(
    connection: AsyncConnection,
    names: EngineNames,
    wanted: list[InstalledTrigger],
    *,
    side: Side,
    fingerprint: str,
) -> None:
    await drop_unwanted(connection, names, wanted)
    await connection.exec_driver_sql(assert_function(names, side))
    await create_triggers(connection, wanted)
    await connection.execute(
        text(
            f"INSERT INTO {names.installation} (fingerprint) VALUES (:print) "
            "ON CONFLICT (only_row) DO UPDATE SET fingerprint = excluded.fingerprint, installed_at = clock_timestamp()"
        ),
        {"print": fingerprint},
    )


async def create_triggers(connection: AsyncConnection, wanted: list[InstalledTrigger]) -> None:
    """Create triggers that are not there, and give those that are their present function, in the caller's transaction."""
    statements = [
        *dict.fromkeys(trigger.function_sql for trigger in wanted),
        *(trigger.trigger_sql for trigger in wanted),
    ]
    for table, triggers in groupby(sorted(wanted, key=attrgetter("table")), key=attrgetter("table")):
        always = ", ".join(f'ENABLE ALWAYS TRIGGER "{trigger.name}"' for trigger in triggers)
        statements.append(f"ALTER TABLE {table} {always}")
    await _run_all(connection, statements)


async def _run_all(connection: AsyncConnection, statements: Sequence[str]) -> None:
    """Run statements without parameters in the transaction that is open, sent as one: each alone waits for an answer, under locks."""
    if not statements:
        return
    driver: Any = (await connection.get_raw_connection()).driver_connection
    await driver.execute(";\n".join(statements))


async def drop_unwanted(
    connection: AsyncConnection, names: EngineNames, wanted: list[InstalledTrigger]
) -> None:
    """Drop triggers that the phase, or an earlier version of the mapping, had asked for."""
    keep = {trigger.name for trigger in wanted}
    rows = await connection.execute(
        text(
            "SELECT t.tgname, c.oid::regclass::text AS relation FROM pg_trigger AS t "
            "JOIN pg_class AS c ON c.oid = t.tgrelid JOIN pg_proc AS p ON p.oid = t.tgfoid "
            "WHERE p.pronamespace = to_regnamespace(:schema) "
            "AND (starts_with(p.proname, 'capture_') OR p.proname = 'fence')"
        ),
        {"schema": names.schema},
    )
    for row in rows.all():
        if row.tgname not in keep:
            await connection.exec_driver_sql(f'DROP TRIGGER "{row.tgname}" ON {row.relation}')


def wanted_triggers(
    names: EngineNames, catalog: EntityCatalog, *, side: Side, phase: Phase, capture: Capture
) -> list[InstalledTrigger]:
    """The triggers that `side` should bear in `phase`.

    The fence always, since it keeps writers from the closed side in every phase; capture on both sides as long as changes are
    carried, so that a cutover finds it there.
    """
    if capture is Capture.UNIT:
        return []
    fence = fence_triggers(names, catalog, side)
    if not phase.policy.dual:
        return fence
    return fence + capture_triggers(names, catalog, side) + sync_triggers(names, catalog, side)


async def installed(connection: AsyncConnection, names: EngineNames) -> str | None:
    """The fingerprint of what was installed here, or None."""
    if not (
        await connection.execute(text("SELECT to_regclass(:name)"), {"name": names.installation})
    ).scalar():
        return None
    print_ = (await connection.execute(text(f"SELECT fingerprint FROM {names.installation}"))).scalar()
    return str(print_) if print_ else None


async def missing_triggers(
    connection: AsyncConnection, names: EngineNames, wanted: list[InstalledTrigger]
) -> list[str]:
    """Names of wanted triggers that are gone or do not fire always."""
    rows = await connection.execute(
        text("SELECT tgname FROM pg_trigger WHERE tgname LIKE :prefix AND tgenabled = 'A'"),
        {"prefix": names.schema.replace("_", r"\_") + r"\_%"},
    )
    there = {row.tgname for row in rows}
    return [trigger.name for trigger in wanted if trigger.name not in there]


async def check_installation(
    engine: AsyncEngine,
    names: EngineNames,
    catalog: EntityCatalog,
    *,
    side: Side,
    phase: Phase,
    capture: Capture = Capture.TRIGGER,
) -> None:
    """Raise `InstallationError` unless `side` bears what this version of the service needs in `phase`."""
    wanted = wanted_triggers(names, catalog, side=side, phase=phase, capture=capture)
    remedy = f"run `tandem install {names.service}`"
    async with engine.connect() as connection:
        print_ = await installed(connection, names)
        if print_ is None:
            raise InstallationError(f"the journal is not installed on the {side.value} side: {remedy}")
        if print_ != _fingerprint(names, catalog, side=side, capture=capture):
            raise InstallationError(
                f"capture on the {side.value} side is of another version of the mapping: {remedy}"
            )
        if gone := await missing_triggers(connection, names, wanted):
            raise InstallationError(
                f"capture on the {side.value} side is incomplete, {gone[0]} is missing: {remedy}"
            )


async def capture_token(
    connection: AsyncConnection, names: EngineNames, wanted: list[InstalledTrigger]
) -> str:
    """A text that stays the same as long as capture on this side has had no gap, or "" while it has one now.

    It is made of the triggers' identities and of the transactions that last touched them: a trigger that was dropped,
    switched off or restored from a dump, and is back, is another one. Without triggers (`Capture.UNIT`) it is constant.
    """
    if await missing_triggers(connection, names, wanted):
        return ""
    found = await connection.execute(
        text(
            "SELECT md5(coalesce(string_agg(t.tgname || ':' || t.oid || ':' || t.xmin, ',' ORDER BY t.tgname), '')) "
            "FROM pg_trigger AS t WHERE t.tgname = ANY (:names)"
        ),
        {"names": [trigger.name for trigger in wanted]},
    )
    return str(found.scalar_one())
