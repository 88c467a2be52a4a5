"""`DocumentDualWriteService`: documents written on both sides by the engine, with what became of each."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar, cast

import structlog

from backend.shared.document_operations import (
    CheckedOperation,
    DocumentAction,
    DocumentOperation,
    DocumentWriter,
    checked,
    entity_of,
    object_id,
)
from backend.shared.documents import Documents
from backend.shared.domain.errors import ConfigurationError, NotFoundError, TandemError, ValidationError
from backend.shared.domain.mapping import decode_key, encode_key
from backend.shared.domain.phases import Phase
from backend.shared.domain.results import DualWriteResult
from backend.shared.domain.sync_status import SyncStatus
from backend.shared.dual_write_manager import DualWriteManager
from backend.shared.observability.admin_views import FailureView
from backend.shared.observability.labels import FailureKind, Verdict
from backend.shared.unit_of_work import UnitOfWork

T = TypeVar("T")

AUDIT = "audit_logs"
LOOKS = 3
"""How often two sides that differ are looked at before that is said."""
DELETED_AT_ONCE = 1000

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class SyncFailure:
    """A document that could not be carried to the other side. `error` holds no value of it."""

    id: int
    collection_name: str
    mongo_id: str
    error: str
    attempts: int
    first_failed_at: datetime
    last_failed_at: datetime


@dataclass(frozen=True, kw_only=True)
class SyncState:
    """How the two sides of one document stand to each other.

    `last_synced_at` is what the row says of itself: None where there is no row, or none that says it.
    """

    collection_name: str
    mongo_id: str
    status: SyncStatus
    error: str | None
    last_synced_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class SyncMetrics:
    """How many changes are on their way, for how long (seconds), and how many could not be carried.

    Open failures are counted in the database, the others since this process began.
    """

    pending: int
    lag_seconds: float
    failures_open: Mapping[str, int]
    failures: int
    repeated_failures: int
    carried: int
    refused: int
    operations: Mapping[str, Mapping[str, int]]


class DocumentDualWriteService:
    """Writes documents through a manager, whichever side is authoritative, and says what became of them.

    Each operation is one transaction with its audit record, in the collection `audit` if that is not None. The engine
    carries it to the other side, tries again with growing delays (`RETRY_ATTEMPTS`, `RETRY_DELAY`), and keeps what cannot be
    carried as a failure. Bad input raises `ValidationError` with nothing changed; trouble with a database is in the result.
    The caller starts and closes the manager.
    """

    def __init__(self, manager: DualWriteManager, *, audit: str | None = AUDIT) -> None:
        self._manager = manager
        self._catalog = manager.catalog()
        self._audit = None
        if audit is not None:
            try:
                self._audit = entity_of(self._catalog, audit).name
            except ValidationError as error:
                raise ConfigurationError(f"the audit records have no place: {error}") from None

    async def create_document(
        self, collection_name: str, document: Mapping[str, Any], *, mongo_id: str | None = None
    ) -> DualWriteResult[str]:
        """Write a new document; answers its id, which is made here if neither `mongo_id` nor its `_id` says it.

        Raises `ConflictError` if there is one with this id.
        """
        operation = DocumentOperation(
            action=DocumentAction.CREATE,
            collection_name=collection_name,
            mongo_id=mongo_id,
            document=document,
        )
        return await self._one(operation)

    async def update_document(
        self, collection_name: str, mongo_id: str, changes: Mapping[str, Any], *, remove: Sequence[str] = ()
    ) -> DualWriteResult[str]:
        """Set the fields named in `changes` and take those in `remove` away; raises `NotFoundError` if it is not there."""
        operation = DocumentOperation(
            action=DocumentAction.UPDATE,
            collection_name=collection_name,
            mongo_id=mongo_id,
            document=changes,
            remove=remove,
        )
        return await self._one(operation)

    async def delete_document(self, collection_name: str, mongo_id: str) -> DualWriteResult[str]:
        """Delete a document; raises `NotFoundError` if it is not there."""
        operation = DocumentOperation(
            action=DocumentAction.DELETE, collection_name=collection_name, mongo_id=mongo_id
        )
        return await self._one(operation)

    async def batch_operations(
        self, operations: Sequence[DocumentOperation | Mapping[str, Any]]
    ) -> DualWriteResult[list[str]]:
        """All operations in one transaction, in order: all of them or none. Answers their ids."""
        wanted = [checked(self._catalog, DocumentOperation.of(operation)) for operation in operations]
        if not wanted:
            raise ValidationError("a batch has at least one operation")

        async def unit(work: UnitOfWork) -> list[str]:
            writer = self._writer(work)
            return [await writer.run(operation) for operation in wanted]

        return _logged(await self._manager.write("batch_documents", unit), wanted)

    async def _one(self, operation: DocumentOperation) -> DualWriteResult[str]:
        wanted = checked(self._catalog, operation)

        async def unit(work: UnitOfWork) -> str:
            return await self._writer(work).run(wanted)

        return _logged(await self._manager.write(f"{wanted.action.value}_document", unit), [wanted])

    def _writer(self, work: UnitOfWork) -> DocumentWriter:
        return DocumentWriter(
            work, catalog=self._catalog, names=self._manager.runtime.names, audit=self._audit
        )

    # What became of them --------------------------------------------------------------------------------------------

    async def get_sync_failures(
        self, *, collection_name: str | None = None, limit: int = 50, after_id: int = 0
    ) -> list[SyncFailure]:
        """Up to `limit` documents that could not be carried and wait for a decision, with numbers above `after_id`."""
        entity = entity_of(self._catalog, collection_name).name if collection_name is not None else None
        found = await self._manager.list_failures(limit=limit, after_id=after_id, entity=entity)
        return [self._failure(failure) for failure in found]

    def _failure(self, failure: FailureView) -> SyncFailure:
        shape = self._catalog[failure.entity].document
        return SyncFailure(
            id=failure.id,
            collection_name=shape.collection if shape is not None else failure.entity,
            mongo_id=str(decode_key(failure.key)[0]),
            error=failure.error,
            attempts=failure.attempts,
            first_failed_at=failure.first_failed_at,
            last_failed_at=failure.last_failed_at,
        )

    async def get_sync_metrics(self) -> SyncMetrics:
        """Backlog and counts, measured now."""
        await self._manager.start()
        runtime = self._manager.runtime
        depth = await runtime.measure()
        store = runtime.stores[self._manager.phase.policy.authoritative]
        async with store.reading() as connection:
            by_entity = await store.failures.count_by_entity(connection)
        told = self._manager.metrics_snapshot()
        kinds = [kind for kinds in told.failed_keys.values() for kind in kinds.items()]
        outcomes = [outcome for outcomes in told.relay_keys.values() for outcome in outcomes.items()]
        operations: dict[str, dict[str, int]] = {}
        for item in told.operations:
            counts = operations.setdefault(item.operation, {})
            counts[item.outcome] = counts.get(item.outcome, 0) + item.count
        return SyncMetrics(
            pending=depth.rows,
            lag_seconds=depth.lag_seconds,
            failures_open=by_entity,
            failures=sum(count for _, count in kinds),
            repeated_failures=sum(count for kind, count in kinds if kind == FailureKind.AGAIN),
            carried=sum(count for outcome, count in outcomes if outcome in ("carried", "skipped")),
            refused=sum(count for outcome, count in outcomes if outcome == "refused"),
            operations=operations,
        )

    async def get_sync_status(self, collection_name: str, mongo_id: str) -> SyncState:
        """How a document stands, asked of journal, failures and state of both sides, not of what a row remembers.

        Raises `NotFoundError` where neither side has it.
        """
        entity = entity_of(self._catalog, collection_name)
        number = str(object_id(mongo_id))
        await self._manager.start()
        status, error = await self._standing(entity.name, number)
        synced_at = await self._last_synced_at(entity.name, number)
        return SyncState(
            collection_name=collection_name,
            mongo_id=number,
            status=status,
            error=error,
            last_synced_at=synced_at,
        )

    async def _standing(self, entity: str, number: str) -> tuple[SyncStatus, str | None]:
        status, error = SyncStatus.PENDING, None
        if self._manager.phase is Phase.COMPLETE:
            return await self._alone(entity, number)
        for look in range(LOOKS):
            known = await self._on_the_way(entity, number)
            if known is not None:
                return known
            view = await self._manager.validate_key(number, entity=entity)
            if view.in_legacy is False and view.in_new is False:
                raise NotFoundError(f"there is no document {number} in {entity}")
            if view.verdict is Verdict.EQUAL:
                return SyncStatus.SYNCED, None
            fields = ", ".join(item.field for item in view.differences)
            error = f"the sides differ: {fields}" if fields else view.detail or "the sides differ"
            status = SyncStatus.FAILED if view.verdict is Verdict.DIFFERENT else SyncStatus.PENDING
            await asyncio.sleep(0.05 * look)
        phase = self._manager.phase
        if phase is Phase.OFF:
            return SyncStatus.PENDING, f"phase {phase.value}: nothing is carried yet"
        return status, error

    async def _alone(self, entity: str, number: str) -> tuple[SyncStatus, str | None]:
        """Where there is one side only, what it has is all there is."""

        async def unit(work: UnitOfWork) -> bool:
            documents = Documents(work, catalog=self._catalog, names=self._manager.runtime.names)
            return await documents.get(entity, (number,)) is not None

        if not await self._manager.read(unit):
            raise NotFoundError(f"there is no document {number} in {entity}")
        return SyncStatus.SYNCED, None

    async def _on_the_way(self, entity: str, number: str) -> tuple[SyncStatus, str | None] | None:
        """What journal and failures say of a key; None where they say nothing."""
        store = self._manager.runtime.stores[self._manager.phase.policy.authoritative]
        key = encode_key((number,))
        async with store.connect() as connection:
            waiting = await store.journal.open_keys(connection, entity, [key])
            failure = await store.failures.find(connection, entity, key)
        if waiting:
            return SyncStatus.PENDING, failure.reason if failure else None
        return (SyncStatus.FAILED, failure.reason) if failure else None

    async def _last_synced_at(self, entity: str, number: str) -> datetime | None:
        for store in self._manager.runtime.stores.values():
            if store.sync_columns is not None:
                async with store.connect() as connection:
                    row = await store.sync_columns.read(
                        connection, self._catalog[entity], encode_key((number,))
                    )
                return row.last_synced_at if row else None
        return None

    # What is done about it ------------------------------------------------------------------------------------------

    async def retry_sync_failure(self, failure_id: int) -> SyncFailure:
        """Have one document tried again, from its present state. Raises `NotFoundError` where there is no such failure."""
        return self._failure(await self._manager.retry_failure(failure_id))

    async def retry_sync_failures(self, *, collection_name: str | None = None) -> int:
        """Have all documents (of a collection) tried again that could not be carried; answers how many."""
        entity = entity_of(self._catalog, collection_name).name if collection_name is not None else None
        return await self._manager.retry_failures(entity=entity)

    async def clean_up_failures(self, *, older_than: timedelta) -> int:
        """Forget failures, of either side, that were settled longer ago than that; answers how many. Open ones stay."""
        if older_than < timedelta(0):
            raise ValidationError("the age of what is forgotten is not negative")
        await self._manager.start()
        deleted = 0
        for side in self._manager.runtime.sides_in_use:
            store = self._manager.runtime.stores[side]
            limit = await store.now() - older_than
            while True:
                async with store.begin() as connection:
                    done = await store.failures.delete_closed(
                        connection, closed_before=limit, limit=DELETED_AT_ONCE
                    )
                deleted += done
                if done < DELETED_AT_ONCE:
                    break
        if deleted:
            log.info("failures_cleaned_up", service=self._manager.service, count=deleted)
        return deleted


def _logged(result: DualWriteResult[T], operations: Sequence[CheckedOperation]) -> DualWriteResult[T]:
    """A write that failed is an error in the log, by collection and id."""
    if not result.success:
        for operation in operations:
            log.error(
                "document_write_failed",
                action=operation.action.value,
                collection=operation.collection_name,
                mongo_id=str(operation.mongo_id),
                error=str(cast("TandemError", result.error)),
                request_id=result.request_id,
            )
    return result


__all__ = ["DocumentDualWriteService", "SyncFailure", "SyncMetrics", "SyncState"]
