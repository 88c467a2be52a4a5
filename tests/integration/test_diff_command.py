"""`tandem diff` as users run it: exit codes, what it prints, and what it never does."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass

import asyncpg
import pytest
from sqlalchemy import make_url

from backend.shared.testing.clusters import Cluster, Databases


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str


async def tandem_diff(*arguments: str, **env: str) -> Said:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "backend.shared.cli.main",
        "diff",
        *arguments,
        env={**os.environ, **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return Said(process.returncode, out.decode(), err.decode())


@pytest.fixture
async def filled(databases: Databases) -> Databases:
    for url, rows in (
        (databases.legacy_url, "(1, 'a'), (2, 'b'), (3, 'c')"),
        (databases.new_url, "(1, 'a'), (2, 'B'), (4, 'd')"),
    ):
        connection = await asyncpg.connect(url)
        await connection.execute(
            f"CREATE TABLE t (id integer PRIMARY KEY, v text); INSERT INTO t VALUES {rows}"
        )
        await connection.close()
    return databases


async def test_equal_is_exit_0(filled: Databases) -> None:
    said = await tandem_diff(filled.legacy_url, "t", filled.legacy_url, "public.t")
    assert said == Said(0, "equal: 3 rows in A, 3 in B, by key (id)\n", "")


async def test_different_is_exit_1(filled: Databases) -> None:
    said = await tandem_diff("env:URL_OF_A", "t", filled.new_url, "t", URL_OF_A=filled.legacy_url)
    assert (said.code, said.err) == (1, "")
    assert said.out.splitlines() == [
        '- id="2"  v="b"',
        '+ id="2"  v="B"',
        '- id="3"  v="c"',
        '+ id="4"  v="d"',
        "different: 3 rows in A, 3 in B, by key (id)",
    ]


async def test_limit_prints_fewer_and_counts_all(filled: Databases) -> None:
    said = await tandem_diff(filled.legacy_url, "t", filled.new_url, "t", "--limit", "1", "--stats")
    assert said.code == 1
    assert said.out.splitlines()[:3] == ['- id="2"  v="b"', '+ id="2"  v="B"', "… 2 more rows differ"]
    assert "only in A     1" in said.out


async def test_json(filled: Databases) -> None:
    said = await tandem_diff(filled.legacy_url, "t", filled.new_url, "t", "--json")
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert rows[0] == {"kind": "changed", "key": {"id": "2"}, "a": {"v": "b"}, "b": {"v": "B"}}
    assert rows[1]["kind"] == "only_in_a"
    summary = rows[-1]
    assert (summary["kind"], summary["equal"], summary["changed_by_column"]) == ("summary", False, {"v": 1})
    assert (summary["only_in_a"], summary["only_in_b"], summary["rows_equal"]) == (1, 1, 1)


async def test_what_is_wrong_is_one_line_without_a_password(
    filled: Databases, legacy_cluster: Cluster
) -> None:
    good = filled.legacy_url
    password = str(make_url(good).password)
    connection = await asyncpg.connect(good)
    await connection.execute("CREATE TABLE hidden (id integer PRIMARY KEY)")
    await connection.execute(
        "DROP ROLE IF EXISTS diff_reader; CREATE ROLE diff_reader LOGIN PASSWORD 'hunter2'"
    )
    reader = str(
        make_url(good).set(username="diff_reader", password="hunter2").render_as_string(hide_password=False)
    )
    cases = [
        (("nonsense", "t", good, "t"), "DSN_A: is no database URL"),
        (("mysql://u:hunter2@h/d", "t", good, "t"), "DSN_A: 'mysql' is no kind of database"),
        ((good, "t", good.replace(password, "hunter2"), "t"), "B: login refused"),
        ((good, "t", "postgresql://u:hunter2@127.0.0.1:1/d", "t"), "B: not reachable"),
        ((f"{good}x", "t", good, "t"), "A: database missing"),
        ((good, "nope", good, "t"), "A: there is no table nope"),
        ((good, "t", good, "a b c"), "B: "),
        ((good, "t", good, "pg_class_oid_index"), "B: pg_class_oid_index is no table and no view"),
        ((reader, "hidden", good, "hidden"), "A: permission denied for table hidden"),
        (("env:NOT_SET", "t", good, "t"), "the environment variable NOT_SET is not set"),
        ((good, "t", good, "t", "--key", "id,"), "--key wants names between commas"),
        ((good, "t", good, "t", "--columns", "v", "--exclude", "v"), "cannot go together"),
    ]
    try:
        for arguments, message in cases:
            said = await tandem_diff(*arguments)
            assert (said.code, said.out) == (2, ""), arguments
            assert message in said.err
            assert said.err.count("\n") == 1, said.err
            assert password not in said.err
            assert "hunter2" not in said.err
    finally:
        await connection.execute("DROP ROLE diff_reader")
        await connection.close()


async def test_a_connection_that_is_lost_half_way_is_exit_2(filled: Databases) -> None:
    connection = await asyncpg.connect(filled.new_url)
    dying = "SELECT * FROM t WHERE id < 3 OR pg_terminate_backend(pg_backend_pid())"
    await connection.execute(f"CREATE VIEW dying AS {dying}")
    await connection.close()
    said = await tandem_diff(filled.legacy_url, "t", filled.new_url, "dying", "--key", "id")
    assert (said.code, said.out) == (2, "")
    # Whichever comes first: what the server says in farewell, or the end of the wire.
    assert said.err in {
        "tandem: B: server is shutting down or starting (SQLSTATE 57P01)\n",
        "tandem: B: connection failed (SQLSTATE 08003)\n",
    }
