"""What a unit of work on documents writes through: by entity and key, in one transaction of its side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bson import ObjectId
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase
from sqlalchemy import Table

from backend.shared.domain.errors import ConfigurationError, ValidationError
from backend.shared.domain.mapping import DocumentShape, EntityCatalog, Key, UnfitError, encode_key
from backend.shared.domain.phases import Side
from backend.shared.stores.mongo.collections import Collection, Stored
from backend.shared.stores.mongo.shapes import id_of, shape_of


class DocumentUnitOfWork:
    """What a unit of work writes documents through. It does not commit: whoever runs the unit does.

    A command that goes past `insert`, `update` and `delete` takes `session`, and says by `touch` what it has written.
    """

    def __init__(
        self,
        database: AsyncDatabase[Stored],
        session: AsyncClientSession,
        *,
        side: Side,
        catalog: EntityCatalog,
        request_id: str,
        only_reads: bool = False,
    ) -> None:
        self.database = database
        self.session = session
        self.side = side
        self.request_id = request_id
        self.touched: dict[str, set[str]] = {}
        """Canonical keys that this unit has written, by entity."""
        self.shaped: set[Table] = set()
        """Tables of the new side whose entities this unit has asked for."""
        self._catalog = catalog
        self._only_reads = only_reads

    def shape(self, entity: str) -> DocumentShape:
        """How an entity looks in its collection."""
        self.shaped.update(self._catalog[entity].new_tables())
        return shape_of(self._catalog[entity])

    def collection(self, entity: str) -> Collection:
        """The collection of an entity, for queries of the unit's own."""
        return self.database[self.shape(entity).collection]

    def touch(self, entity: str, key: Key) -> None:
        """Say that this unit writes an entity. Raises `ConfigurationError` in a unit that only reads."""
        if self._only_reads:
            raise ConfigurationError(f"a unit that only reads was to write {entity}")
        self.touched.setdefault(self._catalog[entity].name, set()).add(encode_key(key))

    async def get(self, entity: str, key: Key) -> Stored | None:
        """The document of an entity, or None. Who writes it until the unit does makes that a write conflict."""
        return await self.collection(entity).find_one({"_id": _id(key)}, session=self.session)

    async def insert(self, entity: str, document: Mapping[str, Any]) -> Key:
        """Insert a document; answers its key, made here if it has no `_id`."""
        whole = {"_id": ObjectId(), **document}
        if not isinstance(whole["_id"], ObjectId):
            raise ValidationError(f"{entity}: _id is no ObjectId")
        key = (str(whole["_id"]),)
        self.touch(entity, key)
        await self.collection(entity).insert_one(whole, session=self.session)
        return key

    async def update(self, entity: str, key: Key, changes: Mapping[str, Any]) -> bool:
        """Set the fields named in `changes`; False if there is no such document."""
        self.touch(entity, key)
        query = {"_id": _id(key)}
        if not changes:
            return await self.collection(entity).find_one(query, {"_id": 1}, session=self.session) is not None
        done = await self.collection(entity).update_one(query, {"$set": dict(changes)}, session=self.session)
        return done.matched_count > 0

    async def delete(self, entity: str, key: Key) -> bool:
        """Delete a document; False if there was none."""
        self.touch(entity, key)
        done = await self.collection(entity).delete_one({"_id": _id(key)}, session=self.session)
        return done.deleted_count > 0


def _id(key: Key) -> ObjectId:
    try:
        return id_of(encode_key(key))
    except UnfitError as error:
        raise ValidationError(str(error)) from None
