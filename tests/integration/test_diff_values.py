"""Any two tables: every kind of corruption in every common type is found, exactly, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from backend.shared.testing.clusters import Databases
from tests.support.diffing import Seen, TwoTables

ROWS = 2_000
TYPES = """
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN cents AS numeric(12, 2);
CREATE EXTENSION citext
"""
COLUMNS = {
    "id": "integer PRIMARY KEY",
    "small": "smallint",
    "big": "bigint",
    "price": "numeric(12, 2)",
    "domained": "cents",
    "free": "numeric",
    "share": "double precision",
    "part": "real",
    "at": "timestamptz",
    "local": "timestamp",
    "day": "date",
    "hour": "time",
    "zoned_hour": "timetz",
    "gap": "interval",
    "raw": "bytea",
    "ref": "uuid",
    "doc": "json",
    "docb": "jsonb",
    "list": "integer[]",
    "words": "text[]",
    "feel": "mood",
    "feels": "mood[]",
    "name": "text",
    "short": "varchar(20)",
    "fixed": "char(6)",
    "loosely": "citext",
    "flag": "boolean",
    "span": "int4range",
    "address": "inet",
}
VALUES = """
    n % 100, n::bigint * 4294967311, n * 0.01, n * 0.5, n * 0.10, n / 7.0, n / 3.0,
    '2024-03-31 01:30:00.123456+00'::timestamptz + n * interval '1 hour', '2024-01-01'::timestamp + n * interval '1 second',
    '2024-01-01'::date + n % 900, '00:00'::time + n * interval '1 second', '12:00+02', n * interval '1 day 1 second',
    decode(md5(n::text), 'hex'), md5(n::text)::uuid, json_build_object('n', n), jsonb_build_object('n', n, 'x', null),
    ARRAY[n, NULL, 3], ARRAY['a', '', NULL, n::text], (ARRAY['sad', 'ok', 'happy'])[1 + n % 3]::mood,
    ARRAY['sad', (ARRAY['ok', 'happy'])[1 + n % 2]]::mood[], CASE WHEN n % 5 > 0 THEN 'name ' || n || ' ä漢' END,
    CASE n % 3 WHEN 0 THEN '' ELSE 'x ' || n END, 'f' || n % 10, 'Case' || n, n % 2 = 0, int4range(n, n + 3),
    '10.0.0.1'::inet + n
"""
# (SQL that sets a field in A, and in B, and the field): all are values that some comparison takes for equal.
CORRUPTION: dict[str, tuple[str, str, str]] = {
    "one cent": ("5.00", "5.01", "price"),
    "sign": ("5.00", "-5.00", "price"),
    "one cent in a domain": ("5.00", "5.01", "domained"),
    "one microsecond": ("'2024-01-01 00:00:00+00'", "'2024-01-01 00:00:00.000001+00'", "at"),
    "one microsecond of local time": ("'2024-01-01'", "'2024-01-01 00:00:00.000001'", "local"),
    "one microsecond of an hour": ("'12:00'", "'12:00:00.000001'", "hour"),
    "the same moment in another zone": ("'12:00+02'", "'11:00+01'", "zoned_hour"),
    "infinity": ("'infinity'", "'-infinity'", "at"),
    "infinite day": ("'infinity'", "'-infinity'", "day"),
    "words of 64 bits changed places": ("1", "4294967296", "big"),
    "NULL against ''": ("NULL", "''", "name"),
    "'' against NULL": ("''", "NULL", "short"),
    "one trailing blank": ("'x'", "'x '", "name"),
    "one trailing blank in varchar": ("'x'", "'x '", "short"),
    "NaN against NULL": ("'NaN'", "NULL", "free"),
    "NaN against NULL in float": ("'NaN'", "NULL", "share"),
    "NaN against infinity": ("'NaN'", "'Infinity'", "free"),
    "infinities": ("'Infinity'", "'-Infinity'", "free"),
    "infinities in float": ("'Infinity'", "'-Infinity'", "share"),
    "NULL against 0": ("NULL", "0", "small"),
    "-0 against 0": ("'-0'", "'0'", "share"),
    "-0 against 0 in real": ("'-0'", "'0'", "part"),
    "last bit": ("0.1", "0.1 + 1.4e-17", "share"),
    "1.0 against 1.00": ("1.0", "1.00", "free"),
    "json null against NULL": ("'null'", "NULL", "docb"),
    "json null against NULL in json": ("'null'", "NULL", "doc"),
    "json with other blanks": ("'{\"a\":1}'", "'{\"a\": 1}'", "doc"),
    "number of jsonb": ("'1.0'", "'1.00'", "docb"),
    "1 mon against 30 days": ("'1 mon'", "'30 days'", "gap"),
    "1 day against 24 hours": ("'1 day'", "'24:00:00'", "gap"),
    "case where it does not matter": ("'CASE'", "'case'", "loosely"),
    "accent": ("'é'", "'e' || chr(769)", "name"),
    "lower bound of an array": ("'[0:1]={1,2}'", "'{1,2}'", "list"),
    "NULL in an array": ("'{NULL}'", "'{}'", "list"),
    "the word NULL": ("'{NULL}'", "'{\"NULL\"}'", "words"),
    "enum": ("'sad'", "'happy'", "feel"),
    "array of enums": ("'{sad,ok}'", "'{ok,sad}'", "feels"),
    "bytes": ("'\\x00ff'", "'\\x00fe'", "raw"),
    "empty bytes": ("'\\x'", "NULL", "raw"),
    "uuid": ("'00000000-0000-0000-0000-000000000001'", "'00000000-0000-0000-0000-000000000100'", "ref"),
    "bool": ("NULL", "false", "flag"),
    "range": ("'empty'", "NULL", "span"),
    "netmask": ("'10.0.0.1/32'", "'10.0.0.1/24'", "address"),
}


@pytest.fixture
async def two(databases: Databases) -> AsyncIterator[TwoTables]:
    a, b = await asyncpg.connect(databases.legacy_url), await asyncpg.connect(databases.new_url)
    tables = TwoTables(databases, a, b)
    # The types of B get other numbers in the catalog, and its columns another order.
    await b.execute("CREATE TYPE before AS ENUM ('x', 'y')")
    await tables.both(TYPES)
    await a.execute(f"CREATE TABLE t ({', '.join(f'{name} {kind}' for name, kind in COLUMNS.items())})")
    backwards = ", ".join(f"{name} {kind}" for name, kind in reversed(COLUMNS.items()))
    await b.execute(f"CREATE TABLE t ({backwards})")
    names = ", ".join(COLUMNS)
    await tables.both(f"INSERT INTO t ({names}) SELECT n, {VALUES} FROM generate_series(1, {ROWS}) AS n")
    yield tables
    await a.close()
    await b.close()


async def test_equal_with_dirt_of_every_type(two: TwoTables) -> None:
    for a, _, column in CORRUPTION.values():
        await two.both(f"UPDATE t SET {column} = {a} WHERE id = 3")
    found = await two.diff()
    assert (found.seen, found.report.is_equal, found.report.plan.notes) == ([], True, ())
    assert (found.report.counts.rows_a, found.report.counts.rows_b, found.report.counts.equal) == (
        ROWS,
        ROWS,
        ROWS,
    )


async def test_each_kind_of_corruption_is_found_and_nothing_else(two: TwoTables) -> None:
    for number, (what, (in_a, in_b, column)) in enumerate(CORRUPTION.items(), start=1):
        key = 1 + 37 * number % ROWS
        before = await two.a.fetchval("SELECT $1::int", key)
        await two.both(f"CREATE TABLE saved AS SELECT * FROM t WHERE id = {before}")
        await two.a.execute(f"UPDATE t SET {column} = {in_a} WHERE id = {key}")
        await two.b.execute(f"UPDATE t SET {column} = {in_b} WHERE id = {key}")
        found = await two.diff()
        assert found.seen == [("changed", (str(key),), (column,))], what
        assert not found.report.is_equal
        assert found.report.counts.by_column == {column: 1}
        await two.both(f"DELETE FROM t WHERE id = {key}; INSERT INTO t SELECT * FROM saved; DROP TABLE saved")
    assert (await two.diff()).seen == []


async def test_all_kinds_of_corruption_at_once(two: TwoTables) -> None:
    expected: list[Seen] = []
    for number, (in_a, in_b, column) in enumerate(CORRUPTION.values(), start=1):
        key = 2 + 41 * number % (ROWS - 10)
        await two.a.execute(f"UPDATE t SET {column} = {in_a} WHERE id = {key}")
        await two.b.execute(f"UPDATE t SET {column} = {in_b} WHERE id = {key}")
        expected.append(("changed", (str(key),), (column,)))
    assert (await two.diff()).seen == sorted(expected, key=repr)


async def test_values_that_a_type_takes_for_equal(databases: Databases) -> None:
    """In a nondeterministic collation; in a build without ICU, which has none, by the operators of citext."""
    a, b = await asyncpg.connect(databases.legacy_url), await asyncpg.connect(databases.new_url)
    two = TwoTables(databases, a, b)
    try:
        try:
            await two.both(
                "CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
            )
            loose = "text COLLATE loose"
        except asyncpg.FeatureNotSupportedError:
            await two.both("CREATE EXTENSION citext")
            loose = "citext"
        await two.both(
            f"CREATE TABLE t (id {loose} PRIMARY KEY, name {loose});"
            "INSERT INTO t VALUES ('a', 'x'), ('b', 'y'), ('c', 'z')"
        )
        assert await a.fetchval("SELECT count(*) FROM t WHERE id = 'C'") == 1
        await b.execute("UPDATE t SET name = 'Y' WHERE id = 'b'; UPDATE t SET id = 'C' WHERE id = 'c'")
        found = await two.diff()
        assert found.seen == sorted(
            [("changed", ("b",), ("name",)), ("only_in_a", ("c",), ()), ("only_in_b", ("C",), ())], key=repr
        )
    finally:
        await a.close()
        await b.close()


async def test_missing_extra_and_swapped_rows(two: TwoTables) -> None:
    await two.a.execute("DELETE FROM t WHERE id IN (1, 700)")
    await two.b.execute(f"DELETE FROM t WHERE id IN (900, {ROWS})")
    await two.b.execute("INSERT INTO t (id) VALUES (-7), (100000)")
    # Two rows have changed one field with each other: sums of what is linear in the fields are the same.
    swap = "UPDATE t SET {0} = (SELECT {0} FROM t AS o WHERE o.id = 31 - t.id) WHERE id IN (15, 16)"
    for column in ("name", "small", "price", "loosely"):
        await two.b.execute(swap.format(column))
    found = await two.diff()
    assert found.seen == sorted(
        [
            ("only_in_b", ("1",), ()),
            ("only_in_b", ("700",), ()),
            ("only_in_a", ("900",), ()),
            ("only_in_a", (str(ROWS),), ()),
            ("only_in_b", ("-7",), ()),
            ("only_in_b", ("100000",), ()),
            ("changed", ("15",), ("loosely", "name", "price", "small")),
            ("changed", ("16",), ("loosely", "name", "price", "small")),
        ],
        key=repr,
    )
    counts = found.report.counts
    assert (counts.rows_a, counts.rows_b, counts.only_in_a, counts.only_in_b, counts.changed) == (
        ROWS - 2,
        ROWS,
        2,
        4,
        2,
    )
    assert counts.equal == ROWS - 2 - 2 - 2


async def test_settings_of_the_databases_neither_hide_nor_make_a_difference(two: TwoTables) -> None:
    settings = {
        "datestyle": ("German", "SQL, MDY"),
        "intervalstyle": ("iso_8601", "postgres_verbose"),
        "bytea_output": ("escape", "hex"),
        "extra_float_digits": ("-15", "-15"),
        "timezone": ("Europe/London", "Asia/Tokyo"),
    }
    for name, values in settings.items():
        for connection, value in zip((two.a, two.b), values, strict=True):
            database = await connection.fetchval("SELECT current_database()")
            await connection.execute(f"ALTER DATABASE {database} SET {name} = '{value}'")
    assert (await two.diff()).seen == []
    await two.b.execute("UPDATE t SET share = share + 1e-15 WHERE id = 5")
    assert (await two.diff()).seen == [("changed", ("5",), ("share",))]
