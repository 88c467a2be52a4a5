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
    Direction,
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
from backend.shared.domain.mapping import decode_key
from backend.shared.observability.labels import Verdict
from backend.shared.observability.metrics import Metrics
from backend.shared.testing.clusters import Databases
from backend.shared.validation.ranges import key_ranges
from backend.shared.validation.report import EntityReport, MismatchKind, ValidationReport
from backend.shared.validation.sides import Sides
from backend.shared.validation.statements import EntityStatements

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
# (what is done to the new side, key, kind, fields): 12 chunks of 100 rows hold the keys.
DAMAGE: list[tuple[str, str, MismatchKind, tuple[str, ...]]] = [
    ("SET since = since + interval '1 microsecond' WHERE {}", '["A", 7]', MismatchKind.DIFFERENT, ("since",)),
    ("SET amount = amount + 0.01 WHERE {}", '["b", 149]', MismatchKind.DIFFERENT, ("amount",)),
    ("SET amount = trim_scale(amount) WHERE {}", '["b", -50]', MismatchKind.DIFFERENT, ("amount",)),
    ("SET amount = 'NaN' WHERE {}", '["ä", 3]', MismatchKind.DIFFERENT, ("amount",)),
    ("SET share = '-0' WHERE {}", '["b", -50]', MismatchKind.DIFFERENT, ("share",)),
    ("SET share = 'NaN' WHERE {}", '["[x", 0]', MismatchKind.DIFFERENT, ("share",)),
    ("SET share = share * (1 + 3e-16) WHERE {}", '["[x", 1]', MismatchKind.DIFFERENT, ("share",)),
    ("SET note = '' WHERE note IS NULL AND {}", '["b", 1]', MismatchKind.DIFFERENT, ("note",)),
    ("SET note = NULL WHERE note = '' AND {}", '["A", 1]', MismatchKind.DIFFERENT, ("note",)),
    ("SET note = rtrim(note) WHERE {}", '["", 1]', MismatchKind.DIFFERENT, ("note",)),
    ("SET raw = '\\x00fe' WHERE {}", '["", -50]', MismatchKind.DIFFERENT, ("raw",)),
    (
        "SET gap = gap + interval '3 days' - interval '72 hours' WHERE {}",
        '["A", 149]',
        MismatchKind.DIFFERENT,
        ("gap",),
    ),
    ("SET flag = NULL, code = 'c' WHERE {}", '["a b ", 9]', MismatchKind.DIFFERENT, ("code", "flag")),
    ("DELETE WHERE {}", '["", -50]', MismatchKind.MISSING_IN_NEW, ()),
    ("DELETE WHERE {}", '["ä", 149]', MismatchKind.MISSING_IN_NEW, ()),
    ("DELETE WHERE {}", '["a b ", 20]', MismatchKind.MISSING_IN_NEW, ()),
    ("INSERT", '["", -51]', MismatchKind.MISSING_IN_LEGACY, ()),
    ("INSERT", '["ä", 150]', MismatchKind.MISSING_IN_LEGACY, ()),
    ("INSERT", '["a b", 3]', MismatchKind.MISSING_IN_LEGACY, ()),
    ("INSERT", '["漢 \'\\"", 3]', MismatchKind.MISSING_IN_LEGACY, ()),
]
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


async def plant(new: asyncpg.Connection, damage: str, key: str) -> None:
    shop, no = decode_key(key)
    where = "shop = $1 AND no = $2"
    verb, _, rest = damage.partition(" ")
    statement = {
        "SET": f"UPDATE tariffs SET {rest}",
        "DELETE": f"DELETE FROM tariffs {rest}",
        "INSERT": "INSERT INTO tariffs (shop, no) VALUES ($1, $2)",
    }[verb].format(where)
    assert (await new.execute(statement, shop, no)).endswith(" 1"), damage


async def restart_with(pair: Pair, **of_legacy_and_new: tuple[str, str]) -> None:
    """Set settings of the databases themselves, and let go of the connections that do not know of them."""
    for name, values in of_legacy_and_new.items():
        for connection, value in zip((pair.legacy, pair.new), values, strict=True):
            database = await connection.fetchval("SELECT current_database()")
            await connection.execute(f"ALTER DATABASE {database} SET {name} = '{value}'")
    for engine in pair.manager.runtime.engines.values():
        await engine.dispose()


async def test_equal_whatever_the_types_on_either_side(pair: Pair) -> None:
    report = await pair.validate()
    assert (report.verdict, report.entities[0].rows_legacy, report.entities[0].rows_new) == (
        Verdict.EQUAL,
        1200,
        1200,
    ), report


async def test_each_kind_of_corruption_is_found_and_nothing_else(pair: Pair) -> None:
    await pair.new.execute("CREATE TABLE saved AS TABLE tariffs")
    for damage, key, kind, fields in DAMAGE:
        await plant(pair.new, damage, key)
        (report,) = (await pair.validate()).entities
        found = {item.key: item for item in report.mismatches}
        assert list(found) == [key], (damage, key, found)
        assert found[key].kind is kind, damage
        if fields:
            assert [field.field for field in found[key].fields] == [f"tariffs.{name}" for name in fields]
        assert (report.verdict, report.mismatch_count) == (Verdict.DIFFERENT, 1)
        await pair.new.execute("TRUNCATE tariffs; INSERT INTO tariffs SELECT * FROM saved")
    assert (await pair.validate()).verdict is Verdict.EQUAL


async def test_all_kinds_of_corruption_at_once(pair: Pair) -> None:
    once = {key: (damage, kind) for damage, key, kind, _ in DAMAGE}
    for key, (damage, _) in once.items():
        await plant(pair.new, damage, key)
    (report,) = (await pair.validate()).entities
    assert {item.key: item.kind for item in report.mismatches} == {
        key: kind for key, (_, kind) in once.items()
    }
    assert report.mismatch_count == len(once)


async def test_nan_minus_zero_and_infinity_are_equal_to_themselves(pair: Pair) -> None:
    for share, amount, no in (("NaN", "NaN", 1), ("-0", "0.000", 2), ("-Infinity", "Infinity", 3)):
        await pair.legacy.execute(
            f"UPDATE rates SET share = '{share}', amount = '{amount}' WHERE shop = 'b' AND no = {no}"
        )
    await pair.legacy.execute("UPDATE rates SET since = 'infinity' WHERE shop = 'b' AND no = 4")
    assert await pair.manager.relay().drain(timeout_seconds=10)
    assert (await pair.validate()).verdict is Verdict.EQUAL


async def test_settings_of_the_databases_neither_hide_nor_make_a_difference(pair: Pair) -> None:
    await restart_with(
        pair,
        datestyle=("German", "SQL, MDY"),
        intervalstyle=("iso_8601", "postgres_verbose"),
        bytea_output=("escape", "hex"),
        extra_float_digits=("-15", "-15"),
        timezone=("Europe/London", "Asia/Tokyo"),
    )
    assert (await pair.validate()).verdict is Verdict.EQUAL
    await pair.new.execute("UPDATE tariffs SET share = share * (1 + 3e-16) WHERE shop = 'b' AND no = 5")
    assert [item.key for item in (await pair.validate()).entities[0].mismatches] == ['["b", 5]']


async def test_rows_that_are_there_twice_do_not_cancel_out(pair: Pair) -> None:
    await pair.new.execute("ALTER TABLE tariffs DROP CONSTRAINT tariffs_pkey")
    await pair.new.execute("INSERT INTO tariffs SELECT * FROM tariffs WHERE shop = 'b' AND no = 5")
    (report,) = (await pair.validate()).entities
    assert mismatches(report) == {('["b", 5]', MismatchKind.DIFFERENT, ("tariffs.*",))}


async def test_pairs_of_rows_do_not_cancel_out(pair: Pair) -> None:
    """Two rows of a kind on one side against two of another kind: an exclusive or of hashes would see neither."""
    for connection, table in ((pair.legacy, "rates"), (pair.new, "tariffs")):
        await connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {table}_pkey")
        await connection.execute(f"INSERT INTO {table} SELECT * FROM {table} WHERE shop = 'b' AND no = 5")
    await pair.legacy.execute("TRUNCATE tandem_rates.journal")
    await pair.new.execute("UPDATE tariffs SET amount = amount + 0.01 WHERE shop = 'b' AND no = 5")
    (report,) = (await pair.validate()).entities
    assert mismatches(report) == {('["b", 5]', MismatchKind.DIFFERENT, ("tariffs.amount",))}


async def test_value_that_only_a_cast_would_make_fit(pair: Pair) -> None:
    """7 is no boolean for a carry, though a cast takes it for true: what is there did not come from it."""
    await pair.legacy.execute("UPDATE rates SET flag = 7 WHERE shop = 'b' AND no = 5")
    await pair.legacy.execute("TRUNCATE tandem_rates.journal")
    await pair.new.execute("UPDATE tariffs SET flag = true WHERE shop = 'b' AND no = 5")
    (report,) = (await pair.validate()).entities
    assert mismatches(report) == {('["b", 5]', MismatchKind.UNREADABLE, ())}


async def test_ranges_are_bounded_on_the_side_that_has_more(pair: Pair) -> None:
    """One side has 5,000 rows among, and 5,000 after, the 1,200 of the other."""
    await pair.new.execute(
        "INSERT INTO tariffs (shop, no) SELECT 'b', n FROM generate_series(1000, 5999) AS n"
    )
    await pair.new.execute("INSERT INTO tariffs (shop, no) SELECT '漢', n FROM generate_series(1, 5000) AS n")
    sides = Sides(engines=pair.manager.runtime.engines, direction=Direction.TO_NEW)
    statements = EntityStatements.of(RATE, RATE.to_new)
    counts = []
    last: str | None = None
    async for keys in key_ranges(sides, statements, rows=100):
        assert keys.lower == last, "without a gap"
        last = keys.upper
        condition, bounds = keys.of(statements.tables[0].target)
        (row,) = await sides.ask_target(statements.tables[0].target.chunk(condition), *bounds)
        counts.append(row.n)
    assert last is None
    assert sum(counts) == 11_200
    assert max(counts) <= 300
    (report,) = (
        await SyncValidator(pair.manager.runtime, chunk_rows=100, mismatches_listed=7).run()
    ).entities
    assert (report.missing_in_legacy, report.mismatch_count, len(report.mismatches)) == (10_000, 10_000, 7)


@pytest.mark.parametrize("emptied", ["rates", "tariffs"])
async def test_an_empty_side(pair: Pair, emptied: str) -> None:
    connection = pair.legacy if emptied == "rates" else pair.new
    await connection.execute(f"TRUNCATE {emptied}")
    if emptied == "rates":
        await pair.legacy.execute("TRUNCATE tandem_rates.journal")
    (report,) = (await pair.validate()).entities
    assert report.mismatch_count == 1200
    assert report.missing_in_legacy == (1200 if emptied == "rates" else 0)
    assert report.missing_in_new == (0 if emptied == "rates" else 1200)
