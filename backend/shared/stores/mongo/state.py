"""State of entities on MongoDB: read with its position, applied behind the guard (R2, R3).

The position is a ticket, drawn in the transaction that reads (decision 0016).
"""

# ruff: noqa: ARG002 - the protocol knows arguments that only other kinds of databases need
from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import bson
from bson import json_util
from pymongo import DeleteOne, InsertOne, ReplaceOne, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession

from backend.shared.domain.mapping import EntityCatalog, EntityMapping
from backend.shared.domain.phases import Direction, Side
from backend.shared.journal.carrier import Hook, no_hook
from backend.shared.stores.protocol import Applied, Position, StateBatch, UnfitKeysError

from .collections import Collections, Stored, chunks, subject
from .connection import DocumentConnection, Stripe, in_transaction
from .fence import Fence
from .marks import DocumentMarks
from .shapes import EXTENDED, as_kept, batch_of, documents_of, id_of, ids_of, key_of, shape_of

_NOTHING_THERE = Position(major=0, minor=0)


class DocumentState:
    """Reads and writes the state of one service's entities on a MongoDB side.

    `apply` is meant for a transaction of its own. Doing it again, or late, changes nothing.
    """

    def __init__(
        self,
        collections: Collections,
        catalog: EntityCatalog,
        side: Side,
        *,
        fence: Fence,
        marks: DocumentMarks,
        hook: Hook = no_hook,
    ) -> None:
        self.side = side
        self._collections = collections
        self._catalog = catalog
        self._fence = fence
        self._marks = marks
        self._hook = hook
        # Within a process readers take turns: they would only conflict, and begin anew (decision 16).
        self._drawing = asyncio.Lock()

    async def read_state(
        self,
        connection: DocumentConnection,
        entity: EntityMapping,
        direction: Direction,
        *,
        keys: Sequence[str],
    ) -> StateBatch:
        """The state of `keys`, in the target's shape, with the position of the snapshot that read it.

        In a transaction of its own, whatever `connection` has open, committed when this returns: so what was read is
        durable. Raises `UnfitKeysError` for documents that rows cannot hold.
        """
        ordered = tuple(sorted(set(keys)))
        ids = ids_of(ordered)
        if strange := set(ordered) - {key for _, key in ids}:
            reasons = dict.fromkeys(strange, "_id: not 24 hexadecimal digits")
            raise UnfitKeysError(reasons, position=await self.position(connection))

        async def read(session: AsyncClientSession) -> tuple[Position, list[Stored]]:
            position = await self._draw(session)
            await self._hook("ticket_drawn")
            return position, await self._documents(entity, ids, session=session)

        async with self._drawing:
            position, documents = await in_transaction(self._collections.client, read)
        return batch_of(entity, direction, documents, keys=ordered, position=position)

    async def _draw(self, session: AsyncClientSession) -> Position:
        """The next ticket. Whoever overlaps conflicts, so that tickets are in the order of snapshots."""
        drawn = await self._collections.counter.find_one_and_update(
            {"_id": "position"}, {"$inc": {"n": 1}}, upsert=True, return_document=True, session=session
        )
        if drawn is None:
            raise AssertionError("an upsert answers what it has made")
        return Position(major=drawn["n"], minor=0)

    async def _documents(
        self,
        entity: EntityMapping,
        ids: Sequence[tuple[Any, str]],
        *,
        session: AsyncClientSession | None,
    ) -> list[Stored]:
        found: list[Stored] = []
        for part in chunks(ids):
            found += (
                await self._collections.of(entity)
                .find({"_id": {"$in": [number for number, _ in part]}}, session=session)
                .to_list()
            )
        return found

    async def read_stored(
        self,
        connection: DocumentConnection,
        entity: EntityMapping,
        direction: Direction,
        *,
        keys: Sequence[str],
    ) -> StateBatch:
        """What the target of `direction` itself holds of `keys`, without a position."""
        ordered = tuple(sorted(set(keys)))
        found = await self._documents(entity, ids_of(ordered), session=await connection.reader())
        return batch_of(entity, direction, found, keys=ordered, position=_NOTHING_THERE)

    async def read_uncommitted(
        self,
        connection: DocumentConnection,
        entity: EntityMapping,
        direction: Direction,
        *,
        keys: Sequence[str],
    ) -> StateBatch:
        """State of `keys` as the open transaction sees it: documents are the same in either direction."""
        return await self.read_stored(connection, entity, direction, keys=keys)

    async def stored_rows(
        self, connection: DocumentConnection, entity: EntityMapping, keys: Sequence[str]
    ) -> dict[str, dict[str, str]]:
        """The documents that this side holds of `keys`, as MongoDB's extended JSON: by key and collection."""
        found = await self._documents(entity, ids_of(keys), session=await connection.reader())
        collection = shape_of(entity).collection
        return {key_of(document["_id"]): {collection: f"[{as_kept(document)}]"} for document in found}

    def state_of(self, entity: EntityMapping, *, key: str, rows: str | None) -> StateBatch:
        """The state that the documents of one key say, kept as MongoDB's extended JSON. Without a position."""
        kept = json_util.loads(rows or "{}", json_options=EXTENDED).get(shape_of(entity).collection, [])
        # As they were read when they were kept: what a collection's codec makes of BSON its shape takes.
        codec = self._collections.of(entity).codec_options
        documents = [
            bson.decode(bson.encode(document, codec_options=codec), codec_options=codec) for document in kept
        ]
        return batch_of(entity, Direction.towards(self.side), documents, keys=[key], position=_NOTHING_THERE)

    async def position(self, connection: DocumentConnection) -> Position:
        """Where the source stands: the position of a snapshot taken now."""
        async with self._drawing:
            return await in_transaction(self._collections.client, self._draw)

    async def make_durable(self, connection: DocumentConnection) -> None:
        """Nothing: a ticket is committed by a majority before its reader goes on, and no crash gives it out again."""

    # The target -----------------------------------------------------------------------------------------------------

    async def apply(
        self, connection: DocumentConnection, batches: Sequence[StateBatch], *, epoch: int
    ) -> dict[str, Applied]:
        """Write `batches`, one per entity, where their guards move forward; answers by entity name.

        Everything in the caller's transaction. Raises `FencedError` before anything is written when the target is open or
        of another epoch, `UnfitRowsError` for rows that no document can hold, and whatever the database raises when it
        refuses a document or somebody else writes the same guards.
        """
        ordered = sorted(batches, key=lambda batch: self._catalog.rank(batch.entity.name))
        await self.enter(connection, ordered[0].direction, epoch=epoch)
        moved = {
            batch.entity.name: await self.move_guards(connection, batch, epoch=epoch) for batch in ordered
        }
        await self._hook("guards_moved")
        await self.write(connection, ordered, moved)
        return {
            batch.entity.name: Applied(
                moved=moved[batch.entity.name], skipped=frozenset(batch.keys) - moved[batch.entity.name]
            )
            for batch in ordered
        }

    async def enter(self, connection: DocumentConnection, direction: Direction, *, epoch: int) -> None:
        """Make the transaction a carry: until it ends the target stays closed in `epoch`, or `FencedError`."""

        def check(stripe: Stripe) -> None:
            self._marks.carry_check(stripe, epoch=epoch)

        await self._fence.enter(connection, check=check)

    async def move_guards(
        self, connection: DocumentConnection, batch: StateBatch, *, epoch: int
    ) -> frozenset[str]:
        """Move the guards of a batch to its position; answers the keys that moved.

        A guard that somebody else has moved since this transaction's snapshot is a write conflict.
        """
        there = await self.read_guards(connection, batch.entity, keys=batch.keys)
        new = (epoch, batch.position)
        moved = [key for key in batch.keys if key not in there or there[key] < new]
        told = {"epoch": epoch, "major": batch.position.major, "minor": batch.position.minor}
        if moved:
            await self._collections.guard.bulk_write(
                [
                    _guard(
                        subject(batch.entity.name, key),
                        there=key in there,
                        gone=key not in batch.present[0],
                        **told,
                    )
                    for key in moved
                ],
                session=await connection.session(),
            )
        return frozenset(moved)

    async def set_guards(
        self,
        connection: DocumentConnection,
        entity: EntityMapping,
        *,
        keys: Sequence[str],
        guard: tuple[int, Position],
        epoch: int,
    ) -> None:
        """Make the guards of `keys` `guard`, whatever they are. That this side is closed `enter` has seen to."""
        to_epoch, position = guard
        told = {"epoch": to_epoch, "major": position.major, "minor": position.minor}
        for part in chunks(subject(entity.name, key) for key in keys):
            await self._collections.guard.update_many(
                {"_id": {"$in": list(part)}}, {"$set": told}, session=await connection.session()
            )

    async def lock_guards(
        self, connection: DocumentConnection, entity: EntityMapping, *, keys: Sequence[str]
    ) -> None:
        """Hold the guards of `keys` until the transaction ends, without moving them."""
        first = {"epoch": 0, "major": 0, "minor": 0, "gone": False}
        if keys:
            await self._collections.guard.bulk_write(
                [
                    UpdateOne(
                        {"_id": subject(entity.name, key)},
                        {"$inc": {"holders": 1}, "$setOnInsert": first},
                        upsert=True,
                    )
                    for key in sorted(set(keys))
                ],
                session=await connection.session(),
            )

    async def read_guards(
        self, connection: DocumentConnection, entity: EntityMapping, *, keys: Sequence[str]
    ) -> dict[str, tuple[int, Position]]:
        """Epoch and position of the guards of `keys` that have one."""
        found: dict[str, tuple[int, Position]] = {}
        by_subject = {subject(entity.name, key): key for key in keys}
        session = await connection.reader()
        for part in chunks(by_subject):
            async for guard in self._collections.guard.find({"_id": {"$in": list(part)}}, session=session):
                at = Position(major=guard["major"], minor=guard["minor"])
                found[by_subject[guard["_id"]]] = (guard["epoch"], at)
        return found

    async def write(
        self,
        connection: DocumentConnection,
        batches: Sequence[StateBatch],
        moved: Mapping[str, frozenset[str]],
    ) -> None:
        """Make the documents of the `moved` keys what the batches say: deletes children first, then writes parents first."""
        session = await connection.session()
        for batch in reversed(batches):
            gone = moved[batch.entity.name] - batch.present[0]
            if ids := ids_of(gone):
                await self._collections.of(batch.entity).bulk_write(
                    [DeleteOne({"_id": number}) for number, _ in ids], session=session
                )
        for batch in batches:
            wanted = documents_of(batch, moved[batch.entity.name])
            there = {
                key_of(document["_id"]): document
                for document in await self._documents(batch.entity, ids_of(wanted), session=session)
            }
            # By their bytes: Python takes 1, 1.0 and true for the same.
            changed = [
                document
                for key, document in wanted.items()
                if key not in there or bson.encode(there[key]) != bson.encode(document)
            ]
            if changed:
                await self._collections.of(batch.entity).bulk_write(
                    [
                        ReplaceOne({"_id": document["_id"]}, document)
                        if key_of(document["_id"]) in there
                        else InsertOne(document)
                        for document in changed
                    ],
                    session=session,
                )

    # Nothing here refers to anything, and no value is parked ----------------------------------------------------------

    async def missing_parents(
        self, connection: DocumentConnection, batches: Sequence[StateBatch], constraint: str | None
    ) -> dict[str, list[str]]:
        """None: there are no foreign keys."""
        return {}

    async def find_unique(
        self, connection: DocumentConnection, batch: StateBatch, constraint: str | None
    ) -> object | None:
        """None: which documents hold a value of an index over documents cannot be told from rows."""
        return None

    async def holders(self, connection: DocumentConnection, batch: StateBatch, unique: object) -> set[str]:
        """Never asked: `find_unique` finds nothing."""
        raise AssertionError("no unique index was found")

    async def let_go(
        self, connection: DocumentConnection, entity: EntityMapping, unique: object, keys: list[str]
    ) -> None:
        """Never asked: `find_unique` finds nothing."""
        raise AssertionError("no unique index was found")

    # All of them --------------------------------------------------------------------------------------------------------

    async def keys_after(
        self, connection: DocumentConnection, entity: EntityMapping, *, after: str | None, limit: int
    ) -> list[str]:
        """Up to `limit` canonical keys of the documents past `after`; the order of ObjectIds is that of their digits."""
        query: Stored = {"_id": {"$type": "objectId"}}
        if after is not None:
            query["_id"]["$gt"] = id_of(after)
        found = self._collections.of(entity).find(query, {"_id": 1}, session=await connection.reader())
        return [key_of(document["_id"]) async for document in found.sort("_id", 1).limit(limit)]

    async def strange_keys(
        self, connection: DocumentConnection, entity: EntityMapping, *, most: int
    ) -> list[str]:
        """Up to `most` keys of documents whose `_id` is no ObjectId: they are in no order, and fit nowhere."""
        query = {"_id": {"$not": {"$type": "objectId"}}}
        found = self._collections.of(entity).find(query, {"_id": 1}, session=await connection.reader())
        return [key_of(document["_id"]) async for document in found.limit(most)]

    async def count(self, connection: DocumentConnection, entity: EntityMapping) -> int:
        """Documents in the entity's collection."""
        return await self._collections.of(entity).count_documents({}, session=await connection.reader())


def _guard(number: str, *, there: bool, **told: Any) -> InsertOne[Stored] | UpdateOne:
    """A guard as it has to be. That somebody else makes it too since the snapshot is a write conflict either way."""
    if there:
        return UpdateOne({"_id": number}, {"$set": told})
    return InsertOne({"_id": number, **told})
