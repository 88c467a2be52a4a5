"""Documents that no table can hold: of each kind a known number, at places known beforehand.

Nobody refers to them, so that they alone do not fit.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from bson import DatetimeMS, Decimal128, ObjectId

from backend.legacy_documents.errors import DocumentLoadError
from backend.legacy_documents.ids import document_id
from backend.legacy_documents.size import COLLECTIONS, DocumentsSize


class MisfitKind(StrEnum):
    """Why a document does not fit."""

    WRONG_TYPE = "wrong_type"
    MISSING = "missing"
    NULL = "null"
    WRONG_WORD = "wrong_word"
    WRONG_FORM = "wrong_form"
    TOO_LONG = "too_long"
    NUL_CHARACTER = "nul_character"
    DATE_OUT_OF_RANGE = "date_out_of_range"
    NUMBER_OUT_OF_RANGE = "number_out_of_range"
    NOT_A_NUMBER_WITH_SIGN = "not_a_number_with_sign"
    AMBIGUOUS = "ambiguous"
    WRONG_ID = "wrong_id"
    DANGLING_REFERENCE = "dangling_reference"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, kw_only=True)
class Misfit:
    """A document that does not fit: because of `field`, or because `twin` has the same unique value there.

    Of two twins either fits, but not both.
    """

    collection: str
    id: Any
    kind: MisfitKind
    field: str
    twin: ObjectId | None = None

    def to_dict(self) -> dict[str, Any]:
        """The same, ready for JSON."""
        twin = {"twin": str(self.twin)} if self.twin is not None else {}
        return {
            "collection": self.collection,
            "id": str(self.id),
            "kind": self.kind.value,
            "field": self.field,
            **twin,
        }


@dataclass(frozen=True, kw_only=True)
class _Recipe:
    collection: str
    kind: MisfitKind
    field: str
    value: Callable[[], Any]
    """Makes the value of the field; unused where it is missing or a twin's."""


def _recipe(collection: str, kind: MisfitKind, field: str, value: Any = None) -> _Recipe:
    return _Recipe(collection=collection, kind=kind, field=field, value=lambda: value)


_KIND = MisfitKind
_NOBODY = ObjectId("f" * 24)
RECIPES = (
    _recipe("users", _KIND.MISSING, "email_id"),
    _recipe("users", _KIND.WRONG_TYPE, "email_id", ["a@example.com", "b@example.com"]),
    _recipe("users", _KIND.TOO_LONG, "email_id", "é" * 3000),
    _recipe("users", _KIND.WRONG_ID, "_id", "someone@example.com"),
    _recipe("users", _KIND.DUPLICATE, "email_id"),
    _recipe("users", _KIND.DUPLICATE, "google_id"),
    _recipe("labels", _KIND.WRONG_FORM, "color", "light green"),
    _recipe("teams", _KIND.DUPLICATE, "invite_code"),
    _recipe("teams", _KIND.DANGLING_REFERENCE, "created_by", _NOBODY),
    _recipe("tasks", _KIND.WRONG_TYPE, "title", 42),
    _recipe("tasks", _KIND.NULL, "title"),
    _recipe("tasks", _KIND.NUL_CHARACTER, "title", "nul \0 inside"),
    _recipe("tasks", _KIND.NUL_CHARACTER, "meta", {"deep": ["nul \0 inside"]}),
    _recipe("tasks", _KIND.AMBIGUOUS, "meta", {"$numberInt": "5"}),
    _recipe("tasks", _KIND.WRONG_WORD, "status", "someday"),
    _recipe("tasks", _KIND.WRONG_TYPE, "priority", 3),
    _recipe("tasks", _KIND.WRONG_TYPE, "created_by", "0123456789abcdef01234567"),
    _recipe("tasks", _KIND.WRONG_TYPE, "due_at", "2024-02-30"),
    _recipe("tasks", _KIND.DATE_OUT_OF_RANGE, "due_at", DatetimeMS(253_402_300_800_000)),
    _recipe("tasks", _KIND.DATE_OUT_OF_RANGE, "completed_at", DatetimeMS(-(2**62))),
    _recipe("tasks", _KIND.WRONG_TYPE, "estimate_hours", "about 5"),
    _recipe("tasks", _KIND.NUMBER_OUT_OF_RANGE, "estimate_hours", Decimal128("1E+6111")),
    _recipe("tasks", _KIND.NOT_A_NUMBER_WITH_SIGN, "estimate_hours", Decimal128("-NaN")),
    _recipe("tasks", _KIND.WRONG_TYPE, "source", "jira"),
    _recipe("tasks", _KIND.WRONG_TYPE, "source.ticket", 7),
    _recipe("tasks", _KIND.WRONG_TYPE, "labels", "urgent"),
    _recipe("tasks", _KIND.WRONG_TYPE, "labels.0", None),
    _recipe("tasks", _KIND.DANGLING_REFERENCE, "labels.0", _NOBODY),
    _recipe("tasks", _KIND.WRONG_TYPE, "checklist.0", "buy milk"),
    _recipe("tasks", _KIND.WRONG_ID, "_id", 4711),
    _recipe("task_assignments", _KIND.DANGLING_REFERENCE, "user_id", _NOBODY),
    _recipe("task_assignments", _KIND.DANGLING_REFERENCE, "task_id", _NOBODY),
    _recipe("user_roles", _KIND.DANGLING_REFERENCE, "role_id", _NOBODY),
    _recipe("watchlists", _KIND.NULL, "name"),
    _recipe("audit_logs", _KIND.WRONG_TYPE, "document", ["no", "object"]),
    _recipe("audit_logs", _KIND.NUL_CHARACTER, "document", {"deep": {"inside": ["nul \0"]}, "a": 1}),
)


class Misfits:
    """Where the misfits stand. All of it is known before the first document is made."""

    def __init__(
        self, *, seed: int, size: DocumentsSize, without: frozenset[MisfitKind] = frozenset()
    ) -> None:
        self._recipes = [recipe for recipe in RECIPES if recipe.kind not in without]
        self.known: list[Misfit] = []
        """All of them."""
        self._spoil: dict[tuple[str, int], tuple[_Recipe, Any]] = {}
        self._taken: dict[str, set[int]] = {name: set() for name in COLLECTIONS}
        for collection in COLLECTIONS:
            self._place(collection, seed=seed, size=size)

    def _place(self, collection: str, *, seed: int, size: DocumentsSize) -> None:
        recipes = [
            (recipe, number)
            for number in range(size.misfits_per_kind)
            for recipe in self._recipes
            if recipe.collection == collection
        ]
        twins = sum(recipe.kind is MisfitKind.DUPLICATE for recipe, _ in recipes)
        wanted, count = len(recipes) + twins, size.of(collection)
        if wanted * 2 > count:
            raise DocumentLoadError(
                f"{collection}: {count} documents are too few for {wanted} misfits and twins"
            )
        rng = random.Random(f"{seed}/misfits/{collection}")  # noqa: S311 - repeatable, not secret
        places = iter(rng.sample(range(count), k=wanted))
        for recipe, number in recipes:
            place = next(places)
            twin = next(places) if recipe.kind is MisfitKind.DUPLICATE else None
            self._note(recipe, number=number, place=place, twin=twin, seed=seed)

    def _note(self, recipe: _Recipe, *, number: int, place: int, twin: int | None, seed: int) -> None:
        value = recipe.value()
        known: Any = document_id(recipe.collection, place, seed=seed)
        if recipe.kind is MisfitKind.WRONG_ID:
            value = known = value + number if isinstance(value, int) else f"{number}.{value}"
        if twin is not None:
            value = f"twin.{number}.{recipe.field}"
            self._spoil[recipe.collection, twin] = (recipe, value)
            self._taken[recipe.collection].add(twin)
        self._spoil[recipe.collection, place] = (recipe, value)
        self._taken[recipe.collection].add(place)
        self.known.append(
            Misfit(
                collection=recipe.collection,
                id=known,
                kind=recipe.kind,
                field=recipe.field,
                twin=None if twin is None else document_id(recipe.collection, twin, seed=seed),
            )
        )

    def may_be_referred_to(self, collection: str, number: int) -> bool:
        """Whether it is sure that the document fits."""
        return number not in self._taken[collection]

    def spoil(self, collection: str, number: int, document: dict[str, Any]) -> dict[str, Any]:
        """The document, or what a misfit makes of it."""
        if (found := self._spoil.get((collection, number))) is None:
            return document
        recipe, value = found
        if recipe.kind is MisfitKind.MISSING:
            return {name: inner for name, inner in document.items() if name != recipe.field}
        field, _, inner = recipe.field.partition(".")
        if inner:
            value = [value] if inner.isdigit() else {inner: value}
        return {**document, field: value}
