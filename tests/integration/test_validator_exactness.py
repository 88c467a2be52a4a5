"""I5, the second half: whatever truly differs is found, whatever types, keys and settings the two sides have."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import asyncpg
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import (
    CHAR,
    Boolean,
    Column,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    cast,
    func,
    select,
)
from sqlalchemy.dialects import postgresql as pg

from backend.shared import (
    DualWriteManager,
    DualWriteSettings,
    EntityMapping,
    Key,
    KeyPart,
    Phase,
    Projection,
    Source,
    SyncValidator,
    UnitOfWork,
)
from backend.shared.observability.labels import Verdict
from backend.shared.observability.metrics import Metrics
from backend.shared.testing.clusters import Databases
from backend.shared.validation.report import EntityReport, MismatchKind, ValidationReport

pytestmark = pytest.mark.invariant("I5")

_legacy, _new = MetaData(), MetaData()
old_rates = Table(
    "rates",
    _legacy,
    Column("shop", String(20), primary_key=True),
    Column("no", Integer, primary_key=True),
    Column("amount", pg.NUMERIC()),
    Column("share", pg.DOUBLE_PRECISION()),
    Column("since", pg.TIMESTAMP()),
    Column("note", Text),
    Column("raw", pg.BYTEA()),
    Column("gap", pg.INTERVAL()),
    Column("flag", Integer),
    Column("code", String(5)),
)
new_rates = Table(
    "tariffs",
    _new,
    Column("shop", Text, primary_key=True),
    Column("no", Integer, primary_key=True),
    Column("amount", pg.NUMERIC()),
    Column("share", pg.DOUBLE_PRECISION()),
    Column("since", pg.TIMESTAMP(timezone=True)),
    Column("note", Text),
    Column("raw", pg.BYTEA()),
    Column("gap", pg.INTERVAL()),
    Column("flag", Boolean),
    Column("code", CHAR(5)),
)
_KEY = (KeyPart(name="shop", type=Text()), KeyPart(name="no", type=Integer()))
RATE = EntityMapping(
    name="rate",
    key=_KEY,
    to_new=(
        Projection(
            table=new_rates,
            key=("shop", "no"),
            query=select(
                cast(old_rates.c.shop, Text).label("shop"),
                old_rates.c.no,
                old_rates.c.amount,
                old_rates.c.share,
                func.timezone("UTC", old_rates.c.since).label("since"),
                old_rates.c.note,
                old_rates.c.raw,
                old_rates.c.gap,
                old_rates.c.flag,
                old_rates.c.code,
            ),
        ),
    ),
    to_legacy=(
        Projection(
            table=old_rates,
            key=("shop", "no"),
            query=select(
                cast(new_rates.c.shop, String).label("shop"),
                new_rates.c.no,
                new_rates.c.amount,
                new_rates.c.share,
                func.timezone("UTC", new_rates.c.since).label("since"),
                new_rates.c.note,
                new_rates.c.raw,
                new_rates.c.gap,
                cast(new_rates.c.flag, Integer).label("flag"),
                func.rtrim(new_rates.c.code).label("code"),
            ),
        ),
    ),
    legacy_sources=(Source(table=old_rates, keys=("shop", "no")),),
    new_sources=(Source(table=new_rates, keys=("shop", "no")),),
)
LEGACY_DDL = (
    "CREATE TABLE rates (shop varchar(20), no integer, amount numeric, share float8, since timestamp, note text, "
    "raw bytea, gap interval, flag integer, code varchar(5), PRIMARY KEY (shop, no))"
)
NEW_DDL = (
    "CREATE TABLE tariffs (shop text, no integer, amount numeric, share float8, since timestamptz, note text, "
    "raw bytea, gap interval, flag boolean, code char(5), PRIMARY KEY (shop, no))"
)
FILL = (
    "INSERT INTO rates SELECT (ARRAY['b', 'A', 'ä', '[x', 'a b ', ''])[1 + n % 6], n / 6 - 50, n * 0.10, n / 7.0, "
    "'2026-03-29 01:30:00.123456'::timestamp + n * interval '1 hour', CASE n % 3 WHEN 0 THEN NULL WHEN 1 THEN '' "
    "ELSE 'x ' END, decode('00ff', 'hex'), '1 year -3 days 04:05:06.000007', n % 2, 'c' || n % 10 "
    "FROM generate_series(0, 1199) AS n"
)


class RateManager(DualWriteManager):
    service = "rates"

    @classmethod
    def entities(cls) -> Sequence[EntityMapping]:
        return (RATE,)

    async def write_probe(self, work: UnitOfWork) -> tuple[str, Key]:
        return "rate", await work.insert("rate", {new_rates.c.shop: "probe", new_rates.c.no: -1})


class Pair:
    """Both databases and the manager between them."""

    def __init__(
        self, manager: DualWriteManager, legacy: asyncpg.Connection, new: asyncpg.Connection
    ) -> None:
        self.manager, self.legacy, self.new = manager, legacy, new

    async def validate(self) -> ValidationReport:
        return await SyncValidator(self.manager.runtime, chunk_rows=100).run(patience_seconds=0.3)


def mismatches(report: EntityReport) -> set[tuple[str, MismatchKind, tuple[str, ...]]]:
    return {(item.key, item.kind, tuple(field.field for field in item.fields)) for item in report.mismatches}


@pytest.fixture
async def pair(databases: Databases) -> AsyncIterator[Pair]:
    legacy = await asyncpg.connect(databases.legacy_url)
    new = await asyncpg.connect(databases.new_url)
    await legacy.execute(LEGACY_DDL)
    await new.execute(NEW_DDL)
    manager = RateManager(
        settings=DualWriteSettings(
            service="rates",
            legacy_database_url=databases.legacy_url,
            database_url=databases.new_url,
            phase=Phase.DUALWRITE,
            batch_size=2000,
        ),
        metrics=Metrics(CollectorRegistry()),
    )
    await manager.install()
    await manager.start()
    await legacy.execute(FILL)
    assert await manager.relay().drain(timeout_seconds=30)
    yield Pair(manager, legacy, new)
    await manager.close()
    await legacy.close()
    await new.close()


async def test_equal_whatever_the_types_on_either_side(pair: Pair) -> None:
    report = await pair.validate()
    assert (report.verdict, report.entities[0].rows_legacy, report.entities[0].rows_new) == (
        Verdict.EQUAL,
        1200,
        1200,
    ), report
