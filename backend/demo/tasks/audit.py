"""Holds the ledger against both sides, and takes the fingerprints of the collections."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from bson.raw_bson import RawBSONDocument
from pymongo import AsyncMongoClient

from backend.demo.ledger import Ledger, Lost, Row
from backend.legacy_documents import COLLECTIONS
from backend.shared.domain.phases import Side

from .stack import SERVICE, TaskStack
from .views import View, documents_by_id, rows_by_id

Reader = Callable[[str, str, Collection[str]], Awaitable[dict[str, View]]]
ROWS_PER_QUERY = 1_000
_READERS: Mapping[Side, Reader] = {Side.LEGACY: documents_by_id, Side.NEW: rows_by_id}


def thing(collection: str, document_id: str) -> Row:
    """What the ledger calls a document and its rows."""
    return Row(
        service=SERVICE, entity=collection, shape=Side.NEW, columns=("mongo_id",), values=(document_id,)
    )


async def audit(ledger: Ledger, stack: TaskStack, *, sides: Collection[Side]) -> list[Lost]:
    """The acknowledged writes that a side does not bear out."""
    urls = {Side.LEGACY: stack.env["LEGACY_DATABASE_URL"], Side.NEW: stack.env["DATABASE_URL"]}
    lost: list[Lost] = []
    for side in sides:
        lost += ledger.compare(await _found(ledger, _READERS[side], urls[side]), side=side)
    return lost


async def _found(ledger: Ledger, read: Reader, url: str) -> dict[Row, Mapping[str, Any] | None]:
    ids: dict[str, list[str]] = defaultdict(list)
    for row in ledger.rows:
        ids[row.entity].append(str(row.values[0]))
    found: dict[Row, Mapping[str, Any] | None] = {}
    for collection, members in ids.items():
        for start in range(0, len(members), ROWS_PER_QUERY):
            views = await read(url, collection, members[start : start + ROWS_PER_QUERY])
            found |= {thing(collection, name): view for name, view in views.items()}
    return found


async def collection_prints(url: str) -> dict[str, tuple[int, str]]:
    """By collection: its documents, and a sum of the hashes of all of them, to the byte."""
    prints: dict[str, tuple[int, str]] = {}
    async with AsyncMongoClient[RawBSONDocument](url, document_class=RawBSONDocument) as client:
        for name in COLLECTIONS:
            count, total = 0, 0
            async for document in client.get_default_database()[name].find({}):
                count += 1
                total += int.from_bytes(hashlib.blake2b(document.raw, digest_size=8).digest(), "big")
            prints[name] = (count, f"{total % (1 << 64):016x}")
    return prints
