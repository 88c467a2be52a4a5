"""Values arrive as they were: every type through the JSON document that one server makes and the other reads."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from sqlalchemy import Column, Integer, MetaData, Table, Text, select
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.types import TypeEngine

from backend.shared import (
    DualWriteManager,
    EntityMapping,
    Key,
    KeyPart,
    Phase,
    Projection,
    Source,
    UnitOfWork,
)
from backend.shared.domain.mapping import decode_key, encode_key
from backend.shared.dual_write_config import DualWriteSettings
from backend.shared.observability.metrics import Metrics
from backend.shared.stores.postgres.projection_sql import sql_type
from backend.shared.testing.clusters import Databases

TYPES: dict[str, TypeEngine[Any]] = {
    "t": Text(),
    "num": pg.NUMERIC(),
    "money": pg.NUMERIC(12, 2),
    "f8": pg.DOUBLE_PRECISION(),
    "f4": pg.REAL(),
    "i8": pg.BIGINT(),
    "ok": pg.BOOLEAN(),
    "tz": pg.TIMESTAMP(timezone=True),
    "ts": pg.TIMESTAMP(),
    "d": pg.DATE(),
    "tm": pg.TIME(),
    "iv": pg.INTERVAL(),
    "b": pg.BYTEA(),
    "u": pg.UUID(),
    "j": pg.JSON(),
    "jb": pg.JSONB(),
    "a": pg.ARRAY(Text()),
    "ai": pg.ARRAY(Integer()),
    "ip": pg.INET(),
}
SAMPLES = [
    "t = 'trailing  ', num = 'NaN', money = -0.01, f8 = '-0', f4 = '1e-45', i8 = -9223372036854775808, ok = false",
    "t = '', num = 123456789012345678901234567890.123456789012345678901234567890, f8 = 'Infinity', f4 = 'NaN'",
    r"t = E'\n\t\\ \" é 漢 🙂 \u0001', f8 = 0.1, i8 = 9223372036854775807, j = 'null', jb = 'null'",
    "tz = '2026-03-29 01:30:00.123456+00', ts = 'infinity', d = '-infinity', tm = '23:59:59.999999'",
    "tz = '0044-03-15 12:00+00 BC', d = '0044-03-15 BC', iv = '1 year -3 days 04:05:06.000007'",
    "b = decode('00ff10', 'hex'), u = '00000000-0000-0000-0000-000000000001', j = '{\"b\":1, \"a\": [1.10, null], \"b\":2}'",
    "jb = '{\"n\": 1.10, \"t\": \"é\"}', a = ARRAY['x', NULL, 'NULL', '', 'a,b\"c'], ai = '{{1,2},{3,NULL}}'",
    "a = '{}', ip = '10.0.0.1/8', num = 1.10, money = 9999999999.99",
    "t = NULL",
]


def _table(name: str) -> Table:
    columns = [Column(column, type_) for column, type_ in TYPES.items()]
    return Table(name, MetaData(), Column("id", Integer, primary_key=True), *columns)


LEFT, RIGHT = _table("things"), _table("items")
THING = EntityMapping(
    name="thing",
    key=(KeyPart(name="id", type=Integer()),),
    to_new=(Projection(table=RIGHT, key=("id",), query=select(*LEFT.c)),),
    to_legacy=(Projection(table=LEFT, key=("id",), query=select(*RIGHT.c)),),
    legacy_sources=(Source(table=LEFT, keys=("id",)),),
    new_sources=(Source(table=RIGHT, keys=("id",)),),
)


class ThingManager(DualWriteManager):
    service = "things"

    @classmethod
    def entities(cls) -> Sequence[EntityMapping]:
        return (THING,)

    async def write_probe(self, work: UnitOfWork) -> tuple[str, Key]:
        return "thing", await work.insert("thing", {RIGHT.c.id: -1})


@pytest.fixture
async def sides(
    databases: Databases,
) -> AsyncIterator[tuple[asyncpg.Connection, asyncpg.Connection, ThingManager]]:
    columns = ", ".join(f"{name} {sql_type(type_)}" for name, type_ in TYPES.items())
    left = await asyncpg.connect(databases.legacy_url)
    right = await asyncpg.connect(databases.new_url)
    await left.execute(f"CREATE TABLE things (id integer PRIMARY KEY, {columns})")
    await right.execute(f"CREATE TABLE items (id integer PRIMARY KEY, {columns})")
    chosen = DualWriteSettings(
        service="things",
        legacy_database_url=databases.legacy_url,
        database_url=databases.new_url,
        phase=Phase.DUALWRITE,
    )
    manager = ThingManager(settings=replace(chosen), metrics=Metrics(CollectorRegistry()))
    await manager.install()
    await manager.start()
    yield left, right, manager
    await manager.close()
    await left.close()
    await right.close()


async def test_every_type_arrives_to_the_byte(
    sides: tuple[asyncpg.Connection, asyncpg.Connection, ThingManager],
) -> None:
    left, right, manager = sides
    for number, sample in enumerate(SAMPLES):
        await left.execute(f"INSERT INTO things (id) VALUES ({number})")
        await left.execute(f"UPDATE things SET {sample} WHERE id = {number}")
    assert await manager.relay().drain(timeout_seconds=20)
    assert await manager.list_failures(limit=10) == []
    images = [
        [row[0] for row in await connection.fetch(f"SELECT {table}::text FROM {table} ORDER BY id")]
        for connection, table in ((left, "things"), (right, "items"))
    ]
    assert images[1] == images[0]
    await left.execute("UPDATE things SET f8 = '0' WHERE f8 = '0'")
    await manager.relay().drain(timeout_seconds=20)
    assert await right.fetchval("SELECT f8::text FROM items WHERE id = 0") == "0", (
        "-0 became 0 and was carried"
    )


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.tuples(
        st.integers(-(2**63), 2**63 - 1),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
    )
)
def test_canonical_key_reads_back(parts: tuple[int, str]) -> None:
    assert decode_key(encode_key(parts)) == parts


async def test_canonical_key_is_that_of_the_server(databases: Databases) -> None:
    connection = await asyncpg.connect(databases.new_url)
    try:
        for text in (
            "plain",
            'quote " and \\ back',
            "tab\tline\n",
            "\x01\x1f\x7f",
            "é漢🙂",
            "</script>",
            "\u2028",
        ):
            found = await connection.fetchval("SELECT jsonb_build_array($1::bigint, $2::text)::text", 7, text)
            assert found == encode_key((7, text)), json.dumps(text)
    finally:
        await connection.close()
