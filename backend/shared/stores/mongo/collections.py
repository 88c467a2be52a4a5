"""Where Tandem keeps its own things in a MongoDB: collections `tandem_<service>_…` of the service's own database."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from bson import CodecOptions
from pymongo import AsyncMongoClient, ReadPreference, WriteConcern
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.read_concern import ReadConcern

from backend.shared.domain.mapping import EntityMapping
from backend.shared.stores.postgres.names import EngineNames

Stored = dict[str, Any]
Client = AsyncMongoClient[Stored]
Collection = AsyncCollection[Stored]
T = TypeVar("T")

IN_AT_MOST = 100
"""Longer lists in `$in` make some servers read the whole collection."""
MAJORITY = WriteConcern("majority", j=True)


class Collections:
    """The collections of one service in one database.

    Everything is read and written by majority: what was read once is not taken back by a failover, and what was written
    before a snapshot is in it.
    """

    def __init__(
        self,
        client: Client,
        database_name: str,
        names: EngineNames,
        *,
        reopen: Callable[[], Client] | None = None,
    ) -> None:
        self.prefix = names.schema
        self.client = client
        self._database_name = database_name
        self._reopen = reopen

    async def dispose(self) -> None:
        """Close the client, where this may open another: that connects when it is first asked."""
        if self._reopen is not None:
            old, self.client = self.client, self._reopen()
            await old.close()

    @property
    def database(self) -> AsyncDatabase[Stored]:
        """The service's own database."""
        return self.client.get_database(
            self._database_name,
            read_preference=ReadPreference.PRIMARY,
            read_concern=ReadConcern("majority"),
            write_concern=MAJORITY,
        )

    @property
    def journal(self) -> Collection:
        """Keys changed and not carried over yet."""
        return self._own("journal")

    @property
    def lease(self) -> Collection:
        """Which rows of the journal somebody has claimed, and until when."""
        return self._own("lease")

    @property
    def failure(self) -> Collection:
        """Keys that could not be carried."""
        return self._own("failure")

    @property
    def conflict(self) -> Collection:
        """What somebody has to decide."""
        return self._own("conflict")

    @property
    def settlement(self) -> Collection:
        """What was written here to settle a conflict of either side."""
        return self._own("settlement")

    @property
    def stranded(self) -> Collection:
        """Keys that were written here alone."""
        return self._own("stranded")

    @property
    def guard(self) -> Collection:
        """Per key, the position of the state that was last written here."""
        return self._own("guard")

    @property
    def fence(self) -> Collection:
        """The mark, the stripes that writers write, and the locks on them."""
        return self._own("fence")

    @property
    def counter(self) -> Collection:
        """Numbers that only rise: positions, failures, conflicts, gaps in capture."""
        return self._own("counter")

    @property
    def stream(self) -> Collection:
        """How far the change stream was read, and the markers in it."""
        return self._own("stream")

    @property
    def installation(self) -> Collection:
        """What was installed here, by fingerprint."""
        return self._own("installation")

    @property
    def own(self) -> tuple[Collection, ...]:
        """All of Tandem's own."""
        return (
            self.journal,
            self.lease,
            self.failure,
            self.conflict,
            self.settlement,
            self.stranded,
            self.guard,
            self.fence,
            self.counter,
            self.stream,
            self.installation,
        )

    def of(self, entity: EntityMapping) -> Collection:
        """The collection that an entity is kept in."""
        if entity.document is None:
            raise AssertionError(f"entity {entity.name} is no document on either side")
        found = self.database[entity.document.collection]
        return found.with_options(codec_options=entity.document.codec) if entity.document.codec else found

    async def next_number(self, what: str, *, count: int = 1) -> int:
        """The first of `count` new numbers. Outside of any transaction: nobody waits for another's, and there are gaps."""
        found = await self.counter.find_one_and_update(
            {"_id": what}, {"$inc": {"n": count}}, upsert=True, return_document=True
        )
        return (int(found["n"]) if found else 0) - count + 1

    def _own(self, name: str) -> Collection:
        options: CodecOptions[Stored] = CodecOptions(tz_aware=True)
        return self.database[f"{self.prefix}_{name}"].with_options(codec_options=options)


def subject(entity: str, key: str) -> str:
    """Entity and canonical key as one indexed value."""
    return f"{entity}:{key}"


def chunks(items: Iterable[T], *, size: int = IN_AT_MOST) -> Iterator[Sequence[T]]:
    """`items` in parts that are short enough for `$in`."""
    found = list(items)
    for start in range(0, len(found), size):
        yield found[start : start + size]
