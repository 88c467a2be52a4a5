"""Documents pass through the real tables, by the statements of the store, and come back to the byte."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import asyncpg
import bson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.shared.domain.mapping import RowsByTable, encode_key
from backend.shared.stores.postgres.projection_sql import EntitySql
from backend.shared.testing.clusters import Cluster
from backend.task_service.app.mapping import CATALOG, COLLECTIONS, Collection
from tests.conftest import MakeDatabase
from tests.support.documents import documents


@pytest.fixture
async def connection(
    services_cluster: Cluster, make_database: MakeDatabase, new_template: str
) -> AsyncIterator[Any]:
    opened = await asyncpg.connect(await make_database(services_cluster, template=new_template))
    # The documents are made up one by one: what they refer to is not there.
    await opened.execute("SET session_replication_role = replica")
    yield opened
    await opened.close()


async def write(connection: Any, collection: Collection, rows: RowsByTable, key: str) -> None:
    entity = CATALOG[collection.name]
    for sql in EntitySql(entity, entity.to_new).projections:
        text = json.dumps(rows[sql.projection.table.name], ensure_ascii=False)
        if not sql.projection.many:
            await connection.execute(sql.upsert, text, [key])
            continue
        await connection.execute(sql.delete, [key])
        columns = ", ".join(sql.columns)
        await connection.execute(
            f"INSERT INTO {sql.table} ({columns}) SELECT {sql.values()} FROM {sql.recordset}", text
        )


async def read(connection: Any, collection: Collection, key: str) -> dict[str, Any]:
    entity = CATALOG[collection.name]
    found = await connection.fetchrow(EntitySql(entity, entity.to_new).read_stored, [key])
    return {
        projection.table.name: json.loads(found[f"rows{number}"], parse_float=Decimal)
        for number, projection in enumerate(entity.to_new)
    }


@pytest.mark.parametrize("collection", COLLECTIONS, ids=lambda collection: collection.name)
@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_document_comes_back_from_the_tables_to_the_byte(
    connection: Any, collection: Collection, data: st.DataObject
) -> None:
    first = data.draw(documents(collection))
    second = {**data.draw(documents(collection)), "_id": first["_id"]}
    key = encode_key((str(first["_id"]),))
    transaction = connection.transaction()
    await transaction.start()
    try:
        for document in (first, second):
            rows = collection.rows_of(document)
            await write(connection, collection, rows, key)
            stored = await read(connection, collection, key)
            assert bson.encode(collection.document_of(stored)) == bson.encode(document)
            assert collection.rows_of(collection.document_of(stored)) == rows
    finally:
        await transaction.rollback()
