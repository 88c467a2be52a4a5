"""Put journal, guards, mark and fence into a MongoDB; check that they are there. May be repeated, also by two at once."""

from __future__ import annotations

import contextlib
import hashlib
from typing import Any

from pymongo import ASCENDING, IndexModel
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import CollectionInvalid, DuplicateKeyError, OperationFailure

from backend.shared.domain.errors import InstallationError
from backend.shared.domain.mapping import EntityCatalog
from backend.shared.domain.phases import Phase, Side

from .collections import Collection, Collections
from .connection import in_transaction
from .fence import STRIPES, stripe_id
from .shapes import shape_of

VERSION = 3
"""Rises with every change of what is installed."""
_ALREADY_EXISTS = 48
_COUNTERS = ("position", "failure", "conflict", "capture_gap")


def _indexes(collections: Collections) -> dict[Collection, list[IndexModel]]:
    return {
        collections.journal: [
            IndexModel([("due_at", ASCENDING)]),
            IndexModel([("subject", ASCENDING)]),
            IndexModel([("waiting", ASCENDING), ("captured_at", ASCENDING)]),
        ],
        collections.failure: [
            IndexModel(
                [("subject", ASCENDING)],
                name="failure_open",
                unique=True,
                partialFilterExpression={"state": "open"},
            ),
            IndexModel([("number", ASCENDING)], unique=True),
            IndexModel([("state", ASCENDING), ("number", ASCENDING)]),
        ],
        collections.conflict: [
            IndexModel([("number", ASCENDING)], unique=True),
            IndexModel([("state", ASCENDING), ("number", ASCENDING)]),
        ],
        collections.stranded: [IndexModel([("stranded_at", ASCENDING)])],
        collections.guard: [IndexModel([("epoch", ASCENDING), ("major", ASCENDING)])],
    }


class DocumentInstallation:
    """Installs one side."""

    def __init__(
        self, collections: Collections, catalog: EntityCatalog, side: Side, *, captured_by: str
    ) -> None:
        self._captured_by = captured_by
        self._collections = collections
        self._catalog = catalog
        self._side = side

    async def install(self, *, phase: Phase, epoch: int, foreign_writes: str) -> None:
        """Make what is missing; the mark is made once, and afterwards what the phase changes make of it."""
        collections = self._collections
        names = [collection.name for collection in collections.own]
        names += [shape_of(entity).collection for entity in self._catalog.ordered]
        there = set(await collections.database.list_collection_names())
        for name in names:
            if name not in there:
                await self._create(name)
        for collection, indexes in _indexes(collections).items():
            await collection.create_indexes(indexes)
        identity = await self.identity()

        async def fill(session: AsyncClientSession) -> None:
            await self._fill(session, phase=phase, epoch=epoch, identity=identity)
            await collections.fence.update_one(
                {"_id": "mark", "foreign_writes": {"$ne": foreign_writes}},
                {"$set": {"foreign_writes": foreign_writes}},
                session=session,
            )

        try:
            await in_transaction(self._collections.client, fill)
        except DuplicateKeyError:
            await in_transaction(self._collections.client, fill)  # somebody else has just done it
        await collections.installation.replace_one(
            {"_id": "installation"}, {"fingerprint": self.fingerprint()}, upsert=True
        )

    async def _create(self, name: str) -> None:
        """Make a collection, since not every server makes one inside a transaction."""
        with contextlib.suppress(CollectionInvalid):
            try:
                await self._collections.database.create_collection(name)
            except OperationFailure as error:
                if error.code != _ALREADY_EXISTS:
                    raise

    async def _fill(self, session: AsyncClientSession, *, phase: Phase, epoch: int, identity: str) -> None:
        fence, counter = self._collections.fence, self._collections.counter
        told: dict[str, Any] = {
            "state": "open" if self._side is phase.policy.authoritative else "closed",
            "epoch": epoch,
            "captures": phase.policy.captures,
        }
        if await fence.find_one({"_id": "mark"}, session=session) is None:
            first = {
                "foreign_writes": "report",
                "capture_change": 0,
                "captured_since": 0,
                "capture_token": f"{self._captured_by}.0.0"
                if phase.policy.captures and told["state"] == "open"
                else "",
                "identity": identity,
            }
            await fence.insert_many(
                [
                    {"_id": "mark", "kind": "mark", **told, **first},
                    *(
                        {
                            "_id": stripe_id(number),
                            "kind": "stripe",
                            "lock": None,
                            "turn": 0,
                            "by": [],
                            **told,
                        }
                        for number in range(STRIPES)
                    ),
                ],
                session=session,
            )
        if await self._collections.lease.find_one({"_id": "turn"}, session=session) is None:
            await self._collections.lease.insert_one({"_id": "turn", "n": 0}, session=session)
        for name in _COUNTERS:
            if await counter.find_one({"_id": name}, session=session) is None:
                await counter.insert_one({"_id": name, "n": 0}, session=session)

    def fingerprint(self) -> str:
        """What this version installs."""
        parts = [
            str(VERSION),
            str(STRIPES),
            *(shape_of(entity).collection for entity in self._catalog.ordered),
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    async def check(self) -> None:
        """Raise `InstallationError` unless this side bears what this version of the service needs."""
        remedy = f"run `tandem install {self._collections.prefix.removeprefix('tandem_')}`"
        found = await self._collections.installation.find_one({"_id": "installation"})
        if found is None:
            raise InstallationError(f"the journal is not installed on the {self._side.value} side: {remedy}")
        if found["fingerprint"] != self.fingerprint():
            raise InstallationError(
                f"what is installed on the {self._side.value} side is of another version: {remedy}"
            )
        stripes = await self._collections.fence.count_documents({"kind": "stripe"})
        if stripes != STRIPES:
            raise InstallationError(f"the fence on the {self._side.value} side is incomplete: {remedy}")

    async def identity(self) -> str:
        """Which database this is: the replica set's name, and the number that the mark's collection got when it was made.

        A restore makes the collection anew, with another number.
        """
        hello = await self._collections.database.command("hello")
        found = await self._collections.database.command(
            "listCollections", filter={"name": self._collections.fence.name}
        )
        about: list[dict[str, Any]] = found["cursor"]["firstBatch"]
        number = about[0]["info"].get("uuid", "") if about else ""
        return f"{hello.get('setName', '')}:{number}"
