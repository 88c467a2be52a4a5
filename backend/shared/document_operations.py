"""Operations on documents: what a caller asks for, checked before anything is done, and what is done in a unit of work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self, assert_never

from bson import ObjectId

from backend.shared.document_unit_of_work import DocumentUnitOfWork
from backend.shared.documents import Documents, as_stored
from backend.shared.domain.errors import NotFoundError, ValidationError
from backend.shared.domain.mapping import EntityCatalog, EntityMapping, Key
from backend.shared.stores.postgres.names import EngineNames
from backend.shared.unit_of_work import UnitOfWork

ID_DIGITS = 24


class DocumentAction(StrEnum):
    """What is done to a document."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, kw_only=True)
class DocumentOperation:
    """One operation of a batch.

    `document` is the new document, or the fields to set; `remove` names fields to take away.
    """

    action: DocumentAction
    collection_name: str
    mongo_id: str | None = None
    document: Mapping[str, Any] | None = None
    remove: Sequence[str] = ()

    @classmethod
    def of(cls, given: DocumentOperation | Mapping[str, Any]) -> Self | DocumentOperation:
        """An operation from its form as a dictionary; raises `ValidationError` for one that is none."""
        if isinstance(given, DocumentOperation):
            return given
        if not isinstance(given, Mapping):
            raise ValidationError("an operation is a dictionary")
        known = {"action", "collection_name", "mongo_id", "document", "changes", "remove"}
        if unknown := sorted(str(name) for name in set(given) - known):
            raise ValidationError(f"an operation has no {unknown[0]!r}; it has {', '.join(sorted(known))}")
        if "document" in given and "changes" in given:
            raise ValidationError("an operation has either a document or changes")
        action = given.get("action")
        if action not in list(DocumentAction):
            raise ValidationError(f"the action of an operation is one of {', '.join(DocumentAction)}")
        return cls(
            action=DocumentAction(action),
            collection_name=given.get("collection_name", ""),
            mongo_id=given.get("mongo_id"),
            document=given.get("document", given.get("changes")),
            remove=given.get("remove", ()),
        )


@dataclass(frozen=True, kw_only=True)
class CheckedOperation:
    """An operation that can be tried: its collection is known, its id one that can be, its document BSON."""

    action: DocumentAction
    entity: str
    collection_name: str
    mongo_id: ObjectId
    document: Mapping[str, Any]
    remove: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        """The key of the entity."""
        return (str(self.mongo_id),)


def entity_of(catalog: EntityCatalog, collection_name: object) -> EntityMapping:
    """The entity that is kept in a collection; raises `ValidationError` where there is none."""
    known = {entity.document.collection: entity for entity in catalog.ordered if entity.document is not None}
    if not isinstance(collection_name, str) or collection_name not in known:
        raise ValidationError(f"there is no collection of that name; there are: {', '.join(known)}")
    return known[collection_name]


def object_id(value: object) -> ObjectId:
    """An id as it is given: an ObjectId, or its 24 hexadecimal digits. Raises `ValidationError` for anything else."""
    if isinstance(value, ObjectId):
        return value
    if isinstance(value, str) and len(value) == ID_DIGITS and ObjectId.is_valid(value):
        return ObjectId(value)
    raise ValidationError(f"an id has {ID_DIGITS} hexadecimal digits")


def checked(catalog: EntityCatalog, operation: DocumentOperation) -> CheckedOperation:
    """`operation`, or `ValidationError` for what is wrong with it whatever the databases hold."""
    entity = entity_of(catalog, operation.collection_name)
    document = _document(operation)
    remove = _removed(operation, document)
    made = operation.action is DocumentAction.CREATE
    given = operation.mongo_id if operation.mongo_id is not None else document.get("_id")
    number = ObjectId() if made and given is None else object_id(given)
    if "_id" in document and object_id(document["_id"]) != number:
        raise ValidationError("a document's _id is not changed")
    whole = {"_id": number, **{name: value for name, value in document.items() if name != "_id"}}
    return CheckedOperation(
        action=operation.action,
        entity=entity.name,
        collection_name=operation.collection_name,
        mongo_id=number,
        document=as_stored(whole),
        remove=remove,
    )


def _document(operation: DocumentOperation) -> Mapping[str, Any]:
    document = operation.document
    if operation.action is DocumentAction.DELETE:
        if document:
            raise ValidationError("to delete takes no document")
        return {}
    if not isinstance(document, Mapping) or not all(isinstance(name, str) for name in document):
        raise ValidationError("a document is a dictionary whose names are texts")
    return document


def _removed(operation: DocumentOperation, document: Mapping[str, Any]) -> tuple[str, ...]:
    remove = operation.remove
    if isinstance(remove, str) or not all(isinstance(name, str) for name in remove):
        raise ValidationError("the fields to remove are a list of names")
    if remove and operation.action is not DocumentAction.UPDATE:
        raise ValidationError("only an update removes fields")
    if "_id" in remove or set(remove) & set(document):
        raise ValidationError("a field is either set or removed, and _id neither")
    if operation.action is DocumentAction.UPDATE and not remove and not set(document) - {"_id"}:
        raise ValidationError("an update changes something")
    return tuple(remove)


class DocumentWriter:
    """Does operations in one unit of work, each with its audit record."""

    def __init__(
        self,
        work: UnitOfWork | DocumentUnitOfWork,
        *,
        catalog: EntityCatalog,
        names: EngineNames,
        audit: str | None,
    ) -> None:
        self._documents = Documents(work, catalog=catalog, names=names)
        self._audit = audit

    async def run(self, operation: CheckedOperation) -> str:
        """Do one; answers the id. Raises `ValidationError` for what cannot be done, with nothing changed."""
        match operation.action:
            case DocumentAction.CREATE:
                await self._documents.insert(operation.entity, operation.document)
                about = operation.document
            case DocumentAction.UPDATE:
                about = await self._update(operation)
            case DocumentAction.DELETE:
                about = await self._delete(operation)
            case unknown:
                assert_never(unknown)
        if self._audit is not None:
            await self._documents.insert(self._audit, _record(operation, about))
        return str(operation.mongo_id)

    async def _update(self, operation: CheckedOperation) -> Mapping[str, Any]:
        there = await self._there(operation)
        changed = {
            name: value
            for name, value in {**there, **operation.document}.items()
            if name not in operation.remove
        }
        await self._documents.replace(operation.entity, operation.key, changed)
        values = {name: value for name, value in operation.document.items() if name != "_id"}
        return {"_id": operation.mongo_id, "set": values, "removed": list(operation.remove)}

    async def _delete(self, operation: CheckedOperation) -> Mapping[str, Any]:
        there = await self._there(operation)
        await self._documents.delete(operation.entity, operation.key)
        return there

    async def _there(self, operation: CheckedOperation) -> dict[str, Any]:
        found = await self._documents.get(operation.entity, operation.key, for_update=True)
        if found is None:
            raise NotFoundError(f"there is no document {operation.mongo_id} in {operation.collection_name}")
        return found


def _record(operation: CheckedOperation, about: Mapping[str, Any]) -> dict[str, Any]:
    """An audit record: of a new document the whole of it, of a change what was changed, of a deleted one what it was."""
    return as_stored(
        {
            "_id": ObjectId(),
            "action": operation.action.value,
            "collection": operation.collection_name,
            "document": dict(about),
            "created_at": datetime.now(UTC),
        }
    )


__all__ = [
    "CheckedOperation",
    "DocumentAction",
    "DocumentOperation",
    "DocumentWriter",
    "checked",
    "entity_of",
    "object_id",
]
