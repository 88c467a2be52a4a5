"""The generated documents on a server, and on their way into the tables with all constraints."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import bson
import pytest
from bson import ObjectId
from pymongo import AsyncMongoClient

from backend.legacy_documents import DocumentGenerator, DocumentLoadError, MisfitKind, load
from backend.shared.domain.mapping import UnfitError, encode_key
from backend.shared.domain.phases import Side
from backend.shared.stores.mongo.limits import DocumentLimits
from backend.shared.stores.mongo.side import open_mongo_side
from backend.shared.stores.postgres.names import EngineNames
from backend.shared.stores.postgres.projection_sql import EntitySql
from backend.shared.testing.clusters import Cluster
from backend.task_service.app.documents import ValidationAction, ValidationLevel, apply_validators
from backend.task_service.app.mapping import CATALOG, CODEC, COLLECTIONS
from tests.conftest import MakeDatabase

Refused = dict[tuple[str, Any], str]


async def test_a_load_writes_what_was_generated_whatever_the_validators_say(document_url: str) -> None:
    async with AsyncMongoClient[dict[str, Any]](document_url) as client:
        database = client.get_default_database(codec_options=CODEC)
        level, action = ValidationLevel.STRICT, ValidationAction.ERROR
        await apply_validators(database, level=level, action=action)
        report = await load(document_url, seed=5, size=2000)
        generator = DocumentGenerator(seed=5, size=2000, without=report.left_out)
        assert report.misfits == generator.misfits
        assert report.left_out <= {MisfitKind.DATE_OUT_OF_RANGE}
        assert report.documents_loaded == generator.size.total
        written: dict[str, dict[Any, bytes]] = {}
        for name, batch in generator.batches():
            written.setdefault(name, {}).update(
                {document["_id"]: bson.encode(document) for document in batch}
            )
        assert set(await database.list_collection_names()) == set(written)
        for name, documents in written.items():
            stored = {document["_id"]: bson.encode(document) async for document in database[name].find()}
            assert stored == documents
        assert json.loads(json.dumps(report.to_dict()))["documents"] == report.documents
        with pytest.raises(DocumentLoadError, match="the collection users holds documents already"):
            await load(document_url)


async def test_the_engine_reads_documents_so_that_the_mapping_sees_what_there_is(document_url: str) -> None:
    """Every UUID as the bytes that it is, and a text that is no UTF-8 without spoiling those that it is read with."""
    report = await load(document_url, seed=5, size=2000)
    limits = DocumentLimits()
    side = open_mongo_side(
        document_url,
        Side.LEGACY,
        names=EngineNames("task"),
        catalog=CATALOG,
        limits=limits,
        application_name="test",
        variable="TASK_LEGACY_DATABASE_URL",
    )
    # Those are for the tables to refuse.
    elsewhere = {MisfitKind.DUPLICATE, MisfitKind.DANGLING_REFERENCE}
    expected = {(misfit.collection, misfit.id) for misfit in report.misfits if misfit.kind not in elsewhere}
    try:
        unfit = set()
        for collection in COLLECTIONS:
            async for document in side.collections.of(CATALOG[collection.name]).find():
                try:
                    collection.rows_of(document)
                except UnfitError:
                    unfit.add((collection.name, document["_id"]))
        codec = side.collections.of(CATALOG["users"]).codec_options
    finally:
        await side.dispose()
    assert unfit == expected
    # Not every server takes such a text from a client; but there are some that old programs have left.
    broken = bson.encode({"name": "-?-", "user_id": ObjectId()}).replace(b"?", b"\xff")
    with pytest.raises(UnfitError, match="_id"):
        COLLECTIONS[0].rows_of(bson.decode(broken, codec))


async def test_the_tables_take_all_but_the_misfits(
    services_cluster: Cluster, make_database: MakeDatabase, new_template: str
) -> None:
    connection = await asyncpg.connect(await make_database(services_cluster, template=new_template))
    try:
        generator = DocumentGenerator(seed=5, size=2000)
        refused: Refused = {}
        for name, batch in generator.batches():
            for document in batch:
                await _insert(connection, name, bson.decode(bson.encode(document), CODEC), refused)
    finally:
        await connection.close()
    expected: Refused = {}
    for misfit in generator.misfits:
        # Of two twins the later one is refused.
        later = misfit.id if misfit.twin is None else max(misfit.id, misfit.twin)
        expected[misfit.collection, later] = {
            MisfitKind.DANGLING_REFERENCE: "23503",
            MisfitKind.DUPLICATE: "23505",
        }.get(misfit.kind, "unfit")
    assert refused == expected


async def _insert(connection: Any, name: str, document: dict[str, Any], refused: Refused) -> None:
    collection = next(collection for collection in COLLECTIONS if collection.name == name)
    entity = CATALOG[name]
    try:
        rows = collection.rows_of(document)
        async with connection.transaction():
            for sql in EntitySql(entity, entity.to_new).projections:
                text = json.dumps(rows[sql.projection.table.name], ensure_ascii=False)
                if sql.projection.many:
                    columns = ", ".join(sql.columns)
                    statement = (
                        f"INSERT INTO {sql.table} ({columns}) SELECT {sql.values()} FROM {sql.recordset}"
                    )
                    await connection.execute(statement, text)
                else:
                    await connection.execute(sql.upsert, text, [encode_key((str(document["_id"]),))])
    except UnfitError:
        refused[name, document["_id"]] = "unfit"
    except asyncpg.IntegrityConstraintViolationError as error:
        refused[name, document["_id"]] = str(error.sqlstate)
