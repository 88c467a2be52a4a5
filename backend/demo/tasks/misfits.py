"""The documents that fit no table: those that the generator made against those that the engine lists; and how they are mended.

What an operator does about each is a table here: a field gets another value or goes, or the document does.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from bson import ObjectId, json_util

from backend.legacy_documents import Misfit

LISTED = 100

Name = tuple[str, str]
"""Collection and id."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What was listed as a failure, held against what was expected.

    Of two documents with the same unique value either fits, so either may be listed. `unexpected` are those that nobody made.
    """

    expected: Sequence[Misfit]
    reasons: Mapping[Name, str]
    unlisted: Sequence[Misfit]
    unexpected: Sequence[Name]

    @classmethod
    def of(cls, expected: Sequence[Misfit], reasons: Mapping[Name, str]) -> Listing:
        """Compare. `reasons` are those that the failures give, by collection and id."""
        known = {name for misfit in expected for name in names_of(misfit)}
        return cls(
            expected=expected,
            reasons=reasons,
            unlisted=[misfit for misfit in expected if not reasons.keys() & set(names_of(misfit))],
            unexpected=sorted(name for name in reasons if name not in known),
        )

    @property
    def is_exact(self) -> bool:
        """Whether every one is listed, and none else."""
        return not self.unlisted and not self.unexpected

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON. A failure's reason holds no value of the document."""
        by_kind = Counter(misfit.kind.value for misfit in self.expected)
        missing = Counter(misfit.kind.value for misfit in self.unlisted)
        return {
            "expected": len(self.expected),
            "listed": len(self.expected) - len(self.unlisted),
            "by_reason": {
                kind: {"expected": count, "listed": count - missing[kind]}
                for kind, count in sorted(by_kind.items())
            },
            "unlisted": [misfit.to_dict() for misfit in self.unlisted[:LISTED]],
            "unexpected": [list(name) for name in self.unexpected[:LISTED]],
            "documents": [
                {"collection": collection, "id": name, "reason": reason}
                for (collection, name), reason in sorted(self.reasons.items())
            ],
        }


def names_of(misfit: Misfit) -> tuple[Name, ...]:
    """The document, and its twin if it has one."""
    ids = (misfit.id, misfit.twin) if misfit.twin is not None else (misfit.id,)
    return tuple((misfit.collection, str(found)) for found in ids)


def document_name(key: str) -> str:
    """The `_id` of a failure's key as the generator's report has it. One that is no ObjectId stands there as extended JSON."""
    text = str(json.loads(key)[0])
    return text if ObjectId.is_valid(text) else str(json_util.loads(text))


class Remedy(Enum):
    """What is done where no value will do."""

    TAKE_AWAY = "the field goes"
    DELETE = "the document goes"
    NEW_ID = "the document gets an id that is one"


SOMEBODY: Final = object()
"""Stands for the id of a user that there is."""
UNIQUE: Final = object()
"""Stands for a text that nobody else has."""

REMEDIES: Mapping[tuple[str, str], Any] = {
    ("users", "_id"): Remedy.NEW_ID,
    ("users", "email_id"): UNIQUE,
    ("users", "google_id"): Remedy.TAKE_AWAY,
    ("labels", "color"): Remedy.TAKE_AWAY,
    ("teams", "invite_code"): UNIQUE,
    ("teams", "created_by"): SOMEBODY,
    ("tasks", "_id"): Remedy.NEW_ID,
    ("tasks", "title"): "mended",
    ("tasks", "meta"): Remedy.TAKE_AWAY,
    ("tasks", "status"): "todo",
    ("tasks", "priority"): "medium",
    ("tasks", "created_by"): SOMEBODY,
    ("tasks", "due_at"): Remedy.TAKE_AWAY,
    ("tasks", "completed_at"): Remedy.TAKE_AWAY,
    ("tasks", "estimate_hours"): Remedy.TAKE_AWAY,
    ("tasks", "source"): Remedy.TAKE_AWAY,
    ("tasks", "labels"): Remedy.TAKE_AWAY,
    ("tasks", "checklist"): Remedy.TAKE_AWAY,
    ("task_assignments", "user_id"): Remedy.DELETE,
    ("task_assignments", "task_id"): Remedy.DELETE,
    ("user_roles", "role_id"): Remedy.DELETE,
    ("watchlists", "name"): "mended",
    ("audit_logs", "document"): Remedy.TAKE_AWAY,
}


def remedy_of(misfit: Misfit) -> Any:
    """What is to be done: a `Remedy`, or the value that the field gets."""
    return REMEDIES[misfit.collection, misfit.field.partition(".")[0]]


def update_of(misfit: Misfit, *, somebody: ObjectId) -> dict[str, Any]:
    """The update that mends the field of a document."""
    field, remedy = misfit.field.partition(".")[0], remedy_of(misfit)
    if remedy is Remedy.TAKE_AWAY:
        return {"$unset": {field: ""}}
    values = {id(SOMEBODY): somebody, id(UNIQUE): f"mended.{misfit.collection}.{misfit.id}@example.com"}
    return {"$set": {field: values.get(id(remedy), remedy)}}
