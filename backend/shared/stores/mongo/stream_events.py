"""What a change stream says, without what Tandem itself has done.

Events of one transaction follow each other and bear its session and number. A carry moves the guard of each key that it
writes, a unit journals it: what the same transaction says of such keys is their own, and everything else is somebody else's.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pymongo.asynchronous.change_stream import AsyncChangeStream

from backend.shared.domain.mapping import EntityCatalog

from .collections import Collections, Stored, subject
from .shapes import key_of, shape_of

Token = Mapping[str, Any]
MARKER = "marker:"
"""How the `_id` of a marker begins."""
READ_SECONDS = 0.25
"""So long events are collected before they are kept, where they keep coming."""
_CHANGES = frozenset({"insert", "update", "replace", "delete"})
_ENDS = frozenset({"drop", "rename", "dropDatabase", "invalidate"})


@dataclass(frozen=True, kw_only=True)
class ForeignChange:
    """A document that another program has written."""

    entity: str
    key: str
    collection: str
    operation: str


@dataclass(kw_only=True)
class Read:
    """Some events, whole transactions only. `token`: behind them the stream goes on; None if nothing was read.

    `markers`: the one at which reading has stopped, if any, and `lock` the fence lock under which it was put there. `lost`:
    why what comes next cannot be told by events.
    """

    changes: list[ForeignChange] = field(default_factory=list)
    markers: list[str] = field(default_factory=list)
    token: Token | None = None
    lock: str | None = None
    lost: str | None = None
    is_caught_up: bool = False


class EventReader:
    """Reads one stream."""

    def __init__(
        self, stream: AsyncChangeStream[Stored], *, collections: Collections, catalog: EntityCatalog
    ) -> None:
        self.stream = stream
        self._entities = {shape_of(entity).collection: entity.name for entity in catalog.ordered}
        self._journal = collections.journal.name
        self._guard = collections.guard.name
        self._markers = collections.stream.name
        self._ahead: Stored | None = None

    async def read(self, *, most: int) -> Read:
        """About `most` changes, or what there is; up to a marker, and for hardly longer than `READ_SECONDS`."""
        found, group, until = Read(), list[Stored](), time.monotonic() + READ_SECONDS
        while True:
            event, self._ahead = self._ahead, None
            event = event or await self.stream.try_next()
            if group and (event is None or _transaction_of(event) != _transaction_of(group[0])):
                self._close(found, group)
                group = []
                if event is not None and self._is_enough(found, most=most, until=until):
                    self._ahead = event
                    return found
            if event is None:
                found.token, found.is_caught_up = self.stream.resume_token, True
                return found
            if event["operationType"] in _ENDS:
                found.lost = f"{event['operationType']} of {event.get('ns', {}).get('coll', 'the database')}"
                return found
            if self._is_marker(event):
                found.token = event["_id"]
                found.markers.append(event["documentKey"]["_id"])
                found.lock = event["fullDocument"].get("lock")
                return found
            group.append(event)
            if _transaction_of(event) is None:
                self._close(found, group)
                group = []
                if self._is_enough(found, most=most, until=until):
                    return found

    @staticmethod
    def _is_enough(found: Read, *, most: int, until: float) -> bool:
        return len(found.changes) >= most or time.monotonic() > until

    def _is_marker(self, event: Stored) -> bool:
        is_new = event["ns"]["coll"] == self._markers and event["operationType"] == "insert"
        return is_new and str(event["documentKey"]["_id"]).startswith(MARKER)

    def _close(self, found: Read, group: Sequence[Stored]) -> None:
        """All events of a transaction are there."""
        own = set()
        for event in group:
            collection = event["ns"]["coll"]
            if collection == self._guard:
                own.add(event["documentKey"]["_id"])
            elif collection == self._journal and event["operationType"] == "insert":
                own.add(event["fullDocument"]["subject"])
        for event in group:
            entity = self._entities.get(event["ns"]["coll"])
            if entity is None or event["operationType"] not in _CHANGES:
                continue
            # Of any type: one that is no ObjectId fits no row, and has to be listed for that.
            key = key_of(event["documentKey"]["_id"])
            if subject(entity, key) not in own:
                found.changes.append(
                    ForeignChange(
                        entity=entity,
                        key=key,
                        collection=event["ns"]["coll"],
                        operation=event["operationType"],
                    )
                )
        found.token = group[-1]["_id"]


def watched(collections: Collections, catalog: EntityCatalog) -> list[Stored]:
    """The pipeline of the stream of a service."""
    names = [shape_of(entity).collection for entity in catalog.ordered]
    names += [collections.journal.name, collections.guard.name, collections.stream.name]
    return [{"$match": {"$or": [{"ns.coll": {"$in": names}}, {"operationType": {"$in": sorted(_ENDS)}}]}}]


def _transaction_of(event: Stored) -> tuple[bytes, int] | None:
    session, number = event.get("lsid"), event.get("txnNumber")
    return (bytes(session["id"].bytes), number) if session and number is not None else None
