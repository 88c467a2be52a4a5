"""One function for each collection: its n-th document, as a tidy program would have written it, and as it came to be."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from bson import ObjectId

from backend.legacy_documents.awkward import Draw, Shape
from backend.legacy_documents.ids import document_id
from backend.legacy_documents.misfits import Misfits
from backend.legacy_documents.size import COLLECTIONS, DocumentsSize

_STATUSES = ("todo", "in_progress", "done", "cancelled")
_PRIORITIES = ("low", "medium", "high", "urgent")
_ACTIONS = ("insert", "update", "delete", "login")


class DocumentMaker:
    """Makes the documents of one collection, in order. The same seed and size give the same documents."""

    def __init__(
        self, collection: str, *, seed: int, size: DocumentsSize, misfits: Misfits, counts: Counter[Shape]
    ) -> None:
        self.collection = collection
        self._seed = seed
        self._size = size
        self._misfits = misfits
        rng = random.Random(f"{seed}/{collection}")  # noqa: S311 - repeatable, not secret
        self._draw = Draw(rng, counts=counts)
        makers: Mapping[str, Callable[[int], dict[str, Any]]] = {
            "users": self._user,
            "roles": self._role,
            "labels": self._label,
            "teams": self._team,
            "tasks": self._task,
            "task_assignments": lambda _: {"task_id": self._refer("tasks"), "user_id": self._refer("users")},
            "watchlists": lambda _: {"name": self._draw.text(2), "user_id": self._refer("users")},
            "user_team_details": lambda _: {"user_id": self._refer("users"), "team_id": self._refer("teams")},
            "user_roles": lambda _: {"user_id": self._refer("users"), "role_id": self._refer("roles")},
            "audit_logs": self._audit_log,
        }
        self._make = makers[collection]

    def document(self, number: int) -> dict[str, Any]:
        """The `number`th document; to be asked for in order."""
        known = self._make(number)
        found = {
            "_id": document_id(self.collection, number, seed=self._seed),
            **known,
            **self._draw.unknown(),
        }
        return self._misfits.spoil(self.collection, number, self._draw.arranged(found))

    def _refer(self, collection: str) -> ObjectId:
        while True:
            number = self._draw.rng.randrange(self._size.of(collection))
            if self._misfits.may_be_referred_to(collection, number):
                return document_id(collection, number, seed=self._seed)

    def _user(self, number: int) -> dict[str, Any]:
        draw = self._draw
        return {
            "google_id": draw.optional(lambda: f"{10**20 + number}"),
            # Letter case tells two of them apart, as it does on the server.
            "email_id": f"{'Person' if draw.chance(5) else 'person'}.{number}@example.com",
            "name": draw.optional(lambda: draw.text(2)),
        }

    def _role(self, number: int) -> dict[str, Any]:
        return {
            "name": f"role {number}",
            "permissions": self._draw.optional(lambda: self._array(lambda: f"{self._draw.text(1)}:write")),
        }

    def _label(self, number: int) -> dict[str, Any]:
        draw = self._draw
        color = f"#{draw.rng.randrange(2**24):06x}"
        return {
            "name": f"{draw.text(1)} {number}",
            "color": draw.optional(lambda: color.upper() if draw.chance(20) else color),
        }

    def _team(self, number: int) -> dict[str, Any]:
        return {
            "name": self._draw.text(2),
            "invite_code": f"join-{number}-{self._draw.rng.randrange(10**6)}",
            "created_by": self._refer("users"),
        }

    def _task(self, _: int) -> dict[str, Any]:
        draw = self._draw
        created = draw.moment(far=0)
        return {
            "title": draw.text(4),
            "description": draw.optional(lambda: draw.text(12)),
            "status": draw.word(_STATUSES),
            "priority": draw.word(_PRIORITIES),
            "created_by": self._refer("users"),
            "due_at": draw.optional(draw.moment),
            "estimate_hours": draw.optional(draw.number),
            "source": draw.optional(self._source, missing=50),
            "completed_at": draw.optional(draw.moment, missing=60),
            "created_at": created,
            "updated_at": created + timedelta(milliseconds=draw.rng.randrange(10**9)),
            "labels": draw.optional(lambda: self._array(lambda: self._refer("labels"))),
            "checklist": draw.optional(lambda: self._array(self._checklist_item)),
        }

    def _source(self) -> dict[str, Any]:
        draw = self._draw
        if draw.chance(10):
            draw.count(Shape.NESTED_EMPTY)
            return {}
        app = draw.optional(lambda: draw.rng.choice(("jira", "mail", "phone")))
        ticket = draw.optional(lambda: f"T-{draw.rng.randrange(10**5)}")
        return draw.arranged({"app": app, "ticket": ticket, **draw.unknown(shape=Shape.NESTED_UNKNOWN)})

    def _checklist_item(self) -> dict[str, Any]:
        draw = self._draw
        done = draw.optional(lambda: draw.chance(50))
        return draw.arranged({"text": draw.text(2), "done": done, **draw.unknown(shape=Shape.NESTED_UNKNOWN)})

    def _array(self, item: Callable[[], Any]) -> list[Any]:
        draw = self._draw
        found = [item() for _ in range(draw.rng.randrange(4))]
        if not found:
            draw.count(Shape.ARRAY_EMPTY)
        elif draw.chance(10):
            draw.count(Shape.ARRAY_REPEATS)
            found.append(found[0])
        return found

    def _audit_log(self, _: int) -> dict[str, Any]:
        draw = self._draw
        return {
            "action": draw.rng.choice(_ACTIONS),
            "collection": draw.rng.choice(COLLECTIONS),
            "document": draw.optional(self._copy),
            "created_at": draw.moment(far=0),
        }

    def _copy(self) -> dict[str, Any]:
        draw = self._draw
        draw.count(Shape.EMBEDDED_ORDER)
        before = {"status": draw.word(_STATUSES), "at": draw.moment()}
        return {"_id": draw.id(), "title": draw.text(), "before": before, **draw.unknown(percent=30)}
