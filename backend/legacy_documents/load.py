"""Writes the generated documents into empty collections."""

from __future__ import annotations

from collections import Counter
from time import perf_counter
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import OperationFailure

from backend.legacy_documents.errors import DocumentLoadError
from backend.legacy_documents.generator import DocumentGenerator
from backend.legacy_documents.misfits import RECIPES, MisfitKind
from backend.legacy_documents.report import DocumentLoadReport
from backend.legacy_documents.size import COLLECTIONS, DocumentsSize


async def load(
    url: str, *, seed: int = 1, size: DocumentsSize | int | None = None, batch_size: int = 1000
) -> DocumentLoadReport:
    """Fill the ten collections of the database that `url` names, whatever their validators say.

    Kinds of misfits that this server refuses, whatever its validators say, are left out and named in the report. Raises `DocumentLoadError` when one of them holds documents already, and what the driver raises. Not atomic: what was
    written before an error stays.
    """
    started = perf_counter()
    loaded: Counter[str] = Counter(dict.fromkeys(COLLECTIONS, 0))
    async with AsyncMongoClient[dict[str, Any]](url) as client:
        database = client.get_default_database()
        await _claim_empty(database)
        left_out = await _refused_by(database)
        generator = DocumentGenerator(seed=seed, size=size, without=left_out)
        for collection, documents in generator.batches(batch_size=batch_size):
            await database[collection].insert_many(documents, ordered=False, bypass_document_validation=True)
            loaded[collection] += len(documents)
    return DocumentLoadReport(
        seed=seed,
        documents=dict(loaded),
        shapes={shape.value: count for shape, count in sorted(generator.shapes.items())},
        misfits=generator.misfits,
        left_out=left_out,
        duration_seconds=perf_counter() - started,
    )


async def _claim_empty(database: AsyncDatabase[dict[str, Any]]) -> None:
    for collection in COLLECTIONS:
        if await database[collection].find_one({}, projection={"_id": 1}) is not None:
            raise DocumentLoadError(f"the collection {collection} holds documents already")


async def _refused_by(database: AsyncDatabase[dict[str, Any]]) -> frozenset[MisfitKind]:
    """What not every server takes: dates beyond the year 9999, and names that begin with a dollar sign."""
    probe = database["legacy_documents_probe"]
    refused = set()
    for kind in (MisfitKind.DATE_OUT_OF_RANGE, MisfitKind.AMBIGUOUS):
        values = [recipe.value() for recipe in RECIPES if recipe.kind is kind]
        try:
            await probe.insert_one({"values": values})
        except OperationFailure:
            refused.add(kind)
    await probe.drop()
    return frozenset(refused)
