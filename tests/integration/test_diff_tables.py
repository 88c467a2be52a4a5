"""Any two tables, whatever their keys, shapes and sizes: the same answer as a comparison in Python gives."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.shared.testing.clusters import Databases
from backend.shared.validation import bucket_walk, opening
from backend.shared.validation.any_tables import compare
from backend.shared.validation.any_tables.errors import DiffError
from tests.support.diffing import Diff, Seen, TwoTables


@pytest.fixture
async def two(databases: Databases) -> AsyncIterator[TwoTables]:
    a, b = await asyncpg.connect(databases.legacy_url), await asyncpg.connect(databases.new_url)
    yield TwoTables(databases, a, b)
    await a.close()
    await b.close()


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many chunks of few rows, opened by few parts, listed in small portions."""
    monkeypatch.setattr(compare, "CHUNK_ROWS", 7)
    monkeypatch.setattr(compare, "ROWS_READ_AT_ONCE", 5)
    monkeypatch.setattr(opening, "LISTED_AT_ONCE", 9)
    monkeypatch.setattr(opening, "FEWEST_PARTS", 4)
    monkeypatch.setattr(bucket_walk, "MOST_PARTS", 16)


def naive(a: list[tuple[Any, ...]], b: list[tuple[Any, ...]], *, key: int) -> list[Seen]:
    """The differences of two lists of rows, the first `key` fields of which are the key."""
    ours, theirs = dict[Any, Counter[Any]](), dict[Any, Counter[Any]]()
    for rows, side in ((a, ours), (b, theirs)):
        for row in rows:
            side.setdefault(row[:key], Counter())[row] += 1
    seen: list[Seen] = []
    for name in {*ours, *theirs}:
        gone = list((ours.get(name, Counter()) - theirs.get(name, Counter())).elements())
        new = list((theirs.get(name, Counter()) - ours.get(name, Counter())).elements())
        both = min(len(gone), len(new))
        seen += [("changed", name, ())] * both
        seen += [("only_in_a", name, ())] * (len(gone) - both)
        seen += [("only_in_b", name, ())] * (len(new) - both)
    return sorted(seen, key=repr)


def without_columns(found: Diff) -> list[Seen]:
    return sorted(((kind, key, ()) for kind, key, _ in found.seen), key=repr)


KEYS = {
    "integer": "id integer PRIMARY KEY",
    "bigint, descending": "id bigint NOT NULL UNIQUE",
    "text by bytes": 'id text COLLATE "C" PRIMARY KEY',
    "text by a language": 'id text COLLATE "C.utf8" PRIMARY KEY',
    "uuid": "id uuid PRIMARY KEY",
    "numeric": "id numeric PRIMARY KEY",
    "day": "id date PRIMARY KEY",
    "float": "id double precision PRIMARY KEY",
    "moment": "id timestamptz PRIMARY KEY",
    "bytes": "id bytea PRIMARY KEY",
    "interval": "id interval PRIMARY KEY",
    "no index": "id integer",
}
_KEY_OF = {
    "uuid": "md5({}::text)::uuid",
    "day": "'2024-01-01'::date + {}",
    "moment": "'2024-03-31'::timestamptz + {} * interval '1.000001 min'",
    "bytes": "decode(md5({}::text), 'hex')",
    "interval": "{} * interval '1 mon'",
    "text": "'k' || {}",
}


def key_expression(kind: str, number: str) -> str:
    """SQL for the key numbered `number`."""
    return _KEY_OF.get(kind.split(maxsplit=1)[0], "{}").format(number)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("kind", KEYS)
async def test_every_kind_of_key(two: TwoTables, kind: str) -> None:
    await two.both(f"CREATE TABLE t ({KEYS[kind]}, v text)")
    await two.both(
        f"INSERT INTO t SELECT {key_expression(kind, 'n')}, 'v' || n FROM generate_series(1, 200) AS n"
    )
    choice: dict[str, Any] = {} if kind != "no index" else {"key": ("id",)}
    assert (await two.diff(**choice)).report.is_equal
    for number in (1, 100, 200):
        await two.b.execute(f"UPDATE t SET v = v || ' ' WHERE id = {key_expression(kind, str(number))}")
    await two.a.execute(f"DELETE FROM t WHERE id = {key_expression(kind, '50')}")
    await two.b.execute(f"DELETE FROM t WHERE id = {key_expression(kind, '51')}")
    rows = f"SELECT {key_expression(kind, 'n')}, 'x' FROM generate_series(1000, 1100) AS n"
    await two.b.execute(f"INSERT INTO t {rows}")
    found = await two.diff(**choice)
    assert Counter(kind for kind, _, _ in found.seen) == {"changed": 3, "only_in_a": 1, "only_in_b": 102}
    counts = found.report.counts
    assert (counts.rows_a, counts.rows_b, counts.equal) == (199, 300, 195)


@pytest.mark.usefixtures("small_chunks")
async def test_composite_key_in_another_order_of_columns(two: TwoTables) -> None:
    await two.a.execute("CREATE TABLE t (shop text, no integer, v numeric, PRIMARY KEY (shop, no))")
    await two.b.execute("CREATE TABLE t (v numeric, no integer, shop text, PRIMARY KEY (no, shop))")
    await two.both(
        "INSERT INTO t (shop, no, v) SELECT (ARRAY['a', 'B', '', 'ä', 'a b '])[1 + n % 5], n / 5, n FROM generate_series(0, 99) AS n"
    )
    assert (await two.diff()).report.is_equal
    await two.b.execute(
        "UPDATE t SET v = 7.0 WHERE shop = 'B' AND no = 0; DELETE FROM t WHERE shop = ''  AND no = 19"
    )
    await two.b.execute("UPDATE t SET no = 1000 WHERE shop = 'a b ' AND no = 3")
    assert (await two.diff()).seen == sorted(
        [
            ("changed", ("B", "0"), ("v",)),
            ("only_in_a", ("", "19"), ()),
            ("only_in_a", ("a b ", "3"), ()),
            ("only_in_b", ("a b ", "1000"), ()),
        ],
        key=repr,
    )


@pytest.mark.usefixtures("small_chunks")
async def test_keys_that_occur_twice_and_null_keys_are_compared_as_bags(two: TwoTables) -> None:
    await two.both("CREATE TABLE t (id integer, v text)")
    await two.both(
        "INSERT INTO t VALUES (1, 'a'), (1, 'a'), (1, 'b'), (2, 'a'), (2, 'b'), (3, 'x'), (NULL, 'n'), (NULL, 'm'), (NULL, NULL)"
    )
    found = await two.diff(key=("id",))
    assert found.report.is_equal
    assert ["unique" in note for note in found.report.plan.notes] == [True], "it is said"
    await two.b.execute("UPDATE t SET v = 'b' WHERE ctid = (SELECT min(ctid) FROM t WHERE id = 1)")
    await two.b.execute("INSERT INTO t VALUES (2, 'a'), (NULL, 'n')")
    await two.b.execute("UPDATE t SET v = '' WHERE id IS NULL AND v IS NULL")
    assert without_columns(await two.diff(key=("id",))) == sorted(
        [
            ("changed", ("1",), ()),
            ("only_in_b", ("2",), ()),
            ("changed", (None,), ()),
            ("only_in_b", (None,), ()),
        ],
        key=repr,
    )


async def test_minus_zero_is_a_key_of_its_own(two: TwoTables) -> None:
    await two.both("CREATE TABLE t (id double precision PRIMARY KEY, v text)")
    await two.a.execute("INSERT INTO t VALUES ('-0', 'x'), (1, 'x'), ('NaN', 'x')")
    await two.b.execute("INSERT INTO t VALUES ('0', 'x'), (1, 'x'), ('NaN', 'y')")
    assert (await two.diff()).seen == sorted(
        [("only_in_a", ("-0",), ()), ("only_in_b", ("0",), ()), ("changed", ("NaN",), ("v",))], key=repr
    )


async def test_rows_of_one_key_that_swap_their_fields(two: TwoTables) -> None:
    await two.both("CREATE TABLE t (id integer, x integer, y integer)")
    await two.a.execute("INSERT INTO t VALUES (1, 1, 2), (1, 3, 4)")
    await two.b.execute("INSERT INTO t VALUES (1, 1, 4), (1, 3, 2)")
    assert [row[0] for row in (await two.diff(key=("id",))).seen] == ["changed", "changed"]


async def test_empty_tables(two: TwoTables) -> None:
    await two.both("CREATE TABLE t (id integer PRIMARY KEY, v text)")
    found = await two.diff()
    assert (found.report.is_equal, found.report.counts.rows_a) == (True, 0)
    await two.b.execute("INSERT INTO t VALUES (1, 'x')")
    assert (await two.diff()).seen == [("only_in_b", ("1",), ())]
    await two.a.execute("INSERT INTO t VALUES (1, 'x')")
    await two.b.execute("TRUNCATE t")
    assert (await two.diff()).seen == [("only_in_a", ("1",), ())]


async def test_views_partitions_and_names_that_need_quotes(two: TwoTables) -> None:
    await two.a.execute(
        'CREATE SCHEMA "My shop"; CREATE TABLE "My shop"."Order" ("Id" integer PRIMARY KEY, "a, b" text)'
    )
    await two.a.execute(
        """INSERT INTO "My shop"."Order" SELECT n, 'v' || n FROM generate_series(1, 100) AS n"""
    )
    await two.b.execute(
        'CREATE TABLE parts ("a, b" text, "Id" integer PRIMARY KEY) PARTITION BY RANGE ("Id")'
    )
    await two.b.execute("CREATE TABLE low PARTITION OF parts FOR VALUES FROM (0) TO (50)")
    await two.b.execute("CREATE TABLE high PARTITION OF parts DEFAULT")
    await two.b.execute("""INSERT INTO parts SELECT 'v' || n, n FROM generate_series(1, 100) AS n""")
    await two.b.execute("CREATE VIEW seen AS SELECT * FROM parts")
    assert (await two.diff('"My shop"."Order"', "public.parts")).report.is_equal
    with pytest.raises(DiffError, match=r"B has none; name its columns with --key"):
        await two.diff('"My shop"."Order"', "seen")
    await two.b.execute('UPDATE parts SET "a, b" = NULL WHERE "Id" = 77')
    for table in ("parts", "seen"):
        found = await two.diff('"My shop"."Order"', table, key=("Id",))
        assert found.seen == [("changed", ("77",), ("a, b",))]


async def test_columns_and_types_that_differ_are_said_and_never_equal(two: TwoTables) -> None:
    await two.a.execute(
        "CREATE TABLE t (id integer PRIMARY KEY, n integer, at timestamp, gone text, v varchar(9), f float8)"
    )
    await two.b.execute(
        "CREATE TABLE t (id bigint PRIMARY KEY, n text, at timestamptz, new text, v text, f numeric)"
    )
    await two.a.execute("INSERT INTO t VALUES (1, 1, '2024-01-01', 'x', 'v', 1.5)")
    await two.b.execute("INSERT INTO t VALUES (1, '1', '2024-01-01', 'x', 'v', 1.5)")
    found = await two.diff()
    assert (found.seen, found.report.is_equal) == ([], False)
    assert [str(item) for item in found.report.plan.differences] == [
        "column n is integer in A and text in B: not compared",
        "column at is timestamp without time zone in A and timestamp with time zone in B: not compared",
        "column gone is only in A (text)",
        "column f is double precision in A and numeric in B: not compared",
        "column new is only in B (text)",
    ]
    assert found.report.plan.notes == (
        "column id is integer in A and bigint in B: compared by value",
        "column v is character varying(9) in A and text in B: compared by value",
    )
    assert (await two.diff(exclude=("n", "at", "gone", "new", "f"))).report.is_equal
    assert (await two.diff(columns=("v",))).report.is_equal
    assert not (await two.diff(columns=("v", "n"))).report.is_equal, "asked for, and not compared"
    await two.b.execute("UPDATE t SET v = 'v '")
    assert (await two.diff(columns=("v",))).seen == [("changed", ("1",), ("v",))]


async def test_where_is_put_to_both(two: TwoTables) -> None:
    await two.both("CREATE TABLE t (id integer PRIMARY KEY, v text)")
    await two.both("INSERT INTO t SELECT n, 'v' FROM generate_series(1, 100) AS n")
    await two.b.execute("UPDATE t SET v = 'w' WHERE id IN (10, 60); DELETE FROM t WHERE id = 70")
    found = await two.diff(where="id < 50 -- not all of them")
    assert (found.seen, found.report.counts.rows_a) == ([("changed", ("10",), ("v",))], 49)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"key": ("nope",)}, "A has no column nope"),
        ({"columns": ("nope",)}, "neither A nor B has a column nope"),
        ({"exclude": ("id",)}, "column id is of the key and cannot be left out"),
        ({"where": "nope = 1"}, 'column "nope" does not exist'),
        ({"where": "v::int = 1"}, "a row cannot be read as asked: text is not a value of the column's type"),
        ({"where": "id = 1; DELETE FROM t"}, "syntax error"),
        ({"where": "nextval('counter') > 0"}, "A: "),
    ],
)
async def test_what_cannot_be_compared_is_said_in_one_line(
    two: TwoTables, choice: dict[str, Any], message: str
) -> None:
    await two.both("CREATE TABLE t (id integer PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'secret')")
    await two.both("CREATE SEQUENCE counter")
    with pytest.raises(DiffError) as error:
        await two.diff(**choice)
    assert message in str(error.value)
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)
    assert await two.a.fetchval("SELECT count(*) FROM t") == 1, "nothing is written"


async def test_a_row_that_has_arrived_at_the_second_look_is_not_told(two: TwoTables) -> None:
    await two.both("CREATE TABLE t (id integer PRIMARY KEY, v text)")
    await two.a.execute("INSERT INTO t VALUES (1, 'on its way'), (2, 'never')")

    async def arrive() -> None:
        # As soon as the comparison has looked for the first time it waits, and has no transaction open.
        await two.b.execute("INSERT INTO t VALUES (1, 'on its way')")

    original = asyncio.sleep

    async def waiting(seconds: float) -> None:
        if seconds == 12.5:
            await arrive()
        else:
            await original(seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "sleep", waiting)
        found = await two.diff(again_seconds=12.5)
    assert found.seen == [("only_in_a", ("2",), ())]


VALUES = st.sampled_from([None, "", " ", "a", "A", "ä", "NULL", "\\", '"'])
NUMBERS = st.sampled_from([None, "0", "0.0", "1.0", "1.00", "-1", "NaN", "Infinity"])
FLOATS = st.sampled_from([None, "0", "-0", "NaN", "Infinity", "-Infinity", "0.1"])
ROW = st.tuples(VALUES, NUMBERS, FLOATS)
TABLE = st.dictionaries(st.integers(-20, 60), ROW, max_size=40)
CHANGES = st.dictionaries(st.integers(-25, 65), st.none() | ROW, max_size=12)


@pytest.mark.slow
@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("index", ["PRIMARY KEY", ""])
async def test_equals_a_comparison_in_python(two: TwoTables, index: str) -> None:
    await two.both(f"CREATE TABLE t (id integer {index}, v text, n numeric, f double precision)")
    loop = asyncio.get_running_loop()

    async def fill(connection: asyncpg.Connection, table: dict[int, Any]) -> list[tuple[Any, ...]]:
        rows = [(str(key), *row) for key, row in table.items()]
        await connection.execute("TRUNCATE t")
        await connection.executemany(
            "INSERT INTO t VALUES ($1::text::int, $2, $3::text::numeric, $4::text::float8)", rows
        )
        return rows

    async def check(table: dict[int, Any], changes: dict[int, Any]) -> None:
        other = {key: row for key, row in (table | changes).items() if row is not None}
        expected = naive(await fill(two.a, table), await fill(two.b, other), key=1)
        found = await two.diff(key=("id",))
        assert without_columns(found) == expected
        assert found.report.is_equal is (not expected)
        assert (found.report.counts.rows_a, found.report.counts.rows_b) == (len(table), len(other))

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(table=TABLE, changes=CHANGES)
    def examples(table: dict[int, Any], changes: dict[int, Any]) -> None:
        asyncio.run_coroutine_threadsafe(check(table, changes), loop).result(30)

    await asyncio.to_thread(examples)
