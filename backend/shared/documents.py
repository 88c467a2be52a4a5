"""Documents in a unit of work, on whichever side it runs: in their collection, or in the tables that stand for it."""

from __future__ import annotations

from typing import Any

import bson
from bson import CodecOptions
from bson.binary import UuidRepresentation
from bson.codec_options import DatetimeConversion
from bson.errors import BSONError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from backend.shared.document_unit_of_work import DocumentUnitOfWork
from backend.shared.domain.errors import ConflictError, NotFoundError, ValidationError
from backend.shared.domain.mapping import (
    Document,
    EntityCatalog,
    EntityMapping,
    Key,
    UnfitError,
    decode_key,
    encode_key,
)
from backend.shared.domain.phases import Direction
from backend.shared.stores.mongo.shapes import batch_of, documents_of, id_of, key_of, shape_of
from backend.shared.stores.postgres.names import EngineNames
from backend.shared.stores.postgres.store import PostgresStore
from backend.shared.stores.protocol import Position
from backend.shared.unit_of_work import UnitOfWork

_NOWHERE = Position(major=0, minor=0)
_CODEC: CodecOptions[dict[str, Any]] = CodecOptions(
    tz_aware=True,
    uuid_representation=UuidRepresentation.STANDARD,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)


class Documents:
    """Reads and writes the documents of a service in the transaction of one unit of work.

    On either side a document is what the mapping makes of it: one that rows cannot hold raises `ValidationError`, with
    nothing changed.
    """

    def __init__(
        self, work: UnitOfWork | DocumentUnitOfWork, *, catalog: EntityCatalog, names: EngineNames
    ) -> None:
        self._work = work
        self._catalog = catalog
        self._names = names

    async def get(self, entity: str, key: Key, *, for_update: bool = False) -> dict[str, Any] | None:
        """The document of a key, or None; `for_update` keeps others from changing it until the unit ends.

        On MongoDB nothing needs to be kept: whoever writes it before the unit does makes that a write conflict.
        """
        if isinstance(self._work, DocumentUnitOfWork):
            return await self._work.get(entity, key)
        if for_update and not await self._work.lock(entity, key):
            return None
        mapping, canonical = self._catalog[entity], encode_key(key)
        batch = await self._store.read_stored(
            await self._connection(), mapping, self._direction, keys=[canonical]
        )
        return documents_of(batch, frozenset([canonical])).get(canonical)

    async def insert(self, entity: str, document: Document) -> Key:
        """Write a document that was not there; raises `ConflictError` if there is one with its `_id`."""
        mapping = self._catalog[entity]
        _check_fits(mapping, document)
        key = decode_key(key_of(document["_id"]))
        if not isinstance(self._work, DocumentUnitOfWork):
            # What is not there yet cannot be locked: two that insert the same would both find nothing.
            await self._work.session.execute(
                text("SELECT pg_advisory_xact_lock(hashtextextended(:subject, 0))"),
                {"subject": f"{self._names.schema}:{entity}:{encode_key(key)}"},
            )
        if await self.get(entity, key) is not None:
            raise ConflictError(f"there is a document {key[0]} in {entity} already")
        if isinstance(self._work, DocumentUnitOfWork):
            return await self._work.insert(entity, document)
        await self._write(mapping, key, document)
        return key

    async def replace(self, entity: str, key: Key, document: Document) -> None:
        """Make a document that is there what `document` says, as a whole; raises `NotFoundError` if it is not."""
        mapping = self._catalog[entity]
        _check_fits(mapping, document)
        if isinstance(self._work, DocumentUnitOfWork):
            self._work.touch(entity, key)
            done = await self._work.collection(entity).replace_one(
                {"_id": id_of(encode_key(key))}, dict(document), session=self._work.session
            )
            found = done.matched_count > 0
        else:
            found = await self._work.lock(entity, key)
            if found:
                await self._write(mapping, key, document)
        if not found:
            raise _missing(entity, key)

    async def delete(self, entity: str, key: Key) -> None:
        """Delete a document; raises `NotFoundError` if there is none."""
        if isinstance(self._work, DocumentUnitOfWork):
            found = await self._work.delete(entity, key)
        else:
            found = await self._work.lock(entity, key)
            if found:
                await self._write(self._catalog[entity], key, None)
        if not found:
            raise _missing(entity, key)

    async def _write(self, mapping: EntityMapping, key: Key, document: Document | None) -> None:
        if isinstance(self._work, UnitOfWork):
            self._work.touch(mapping.name, key)
        canonical = encode_key(key)
        batch = batch_of(
            mapping,
            self._direction,
            [document] if document is not None else [],
            keys=[canonical],
            position=_NOWHERE,
        )
        await self._store.write(await self._connection(), [batch], {mapping.name: frozenset([canonical])})

    @property
    def _direction(self) -> Direction:
        # A document entity has the same projections either way.
        return Direction.towards(self._work.side)

    @property
    def _store(self) -> PostgresStore:
        return PostgresStore(self._names, self._catalog)

    async def _connection(self) -> AsyncConnection:
        if isinstance(self._work, UnitOfWork):
            return await self._work.session.connection()
        raise AssertionError("documents are kept in their collection here")


def as_stored(document: Document) -> dict[str, Any]:
    """`document` as it comes back from MongoDB; raises `ValidationError` for what cannot be said in BSON.

    So it is the same on whichever side it is written: dates in milliseconds and in UTC, for one.
    """
    try:
        return bson.decode(bson.encode(document), codec_options=_CODEC)
    except (BSONError, OverflowError, TypeError, ValueError, RecursionError):
        raise ValidationError("the document cannot be written as BSON") from None


def _check_fits(mapping: EntityMapping, document: Document) -> None:
    try:
        shape_of(mapping).rows_of(document)
    except UnfitError as error:
        raise ValidationError(f"{mapping.name}: {error}") from None


def _missing(entity: str, key: Key) -> NotFoundError:
    return NotFoundError(f"there is no document {key[0]} in {entity}")


__all__ = ["Documents", "as_stored"]
