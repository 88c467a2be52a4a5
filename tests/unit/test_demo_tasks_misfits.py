"""The list of documents that fit no table, and what is done about them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bson import ObjectId

from backend.demo.tasks.misfits import Listing, Remedy, document_name, names_of, remedy_of, update_of
from backend.legacy_documents import DocumentGenerator, Misfit, MisfitKind

ID, TWIN = ObjectId("5f5e10000000000000000001"), ObjectId("5f5e10000000000000000002")
TITLE = Misfit(collection="tasks", id=ID, kind=MisfitKind.NULL, field="title")
DOUBLE = Misfit(collection="users", id=ID, kind=MisfitKind.DUPLICATE, field="email_id", twin=TWIN)


def test_everything_listed_and_nothing_else_is_exact() -> None:
    found = Listing.of([TITLE, DOUBLE], {("tasks", str(ID)): "title: null", ("users", str(TWIN)): "unique"})
    assert found.is_exact
    told = found.to_dict()
    assert (told["expected"], told["listed"]) == (2, 2)
    assert told["by_reason"] == {
        "duplicate": {"expected": 1, "listed": 1},
        "null": {"expected": 1, "listed": 1},
    }
    assert {"collection": "tasks", "id": str(ID), "reason": "title: null"} in told["documents"]


def test_what_is_not_listed_is_named() -> None:
    found = Listing.of([TITLE, DOUBLE], {("users", str(ID)): "unique"})
    assert not found.is_exact
    assert found.unlisted == [TITLE]
    told = found.to_dict()
    assert told["listed"] == 1
    assert told["by_reason"]["null"] == {"expected": 1, "listed": 0}
    assert told["unlisted"] == [TITLE.to_dict()]


def test_what_should_fit_is_named() -> None:
    found = Listing.of([TITLE], {("tasks", str(ID)): "title: null", ("tasks", str(TWIN)): "meta: odd"})
    assert not found.is_exact
    assert found.to_dict()["unexpected"] == [["tasks", str(TWIN)]]


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (f'["{ID}"]', str(ID)),
        ('["{\\"$numberInt\\": \\"4711\\"}"]', "4711"),
        ('["\\"someone@example.com\\""]', "someone@example.com"),
    ],
)
def test_a_failures_key_is_the_documents_id(key: str, name: str) -> None:
    assert document_name(key) == name


def test_there_is_a_remedy_for_every_kind_that_the_generator_makes() -> None:
    misfits = DocumentGenerator(seed=1, size=3000).misfits
    assert {misfit.kind for misfit in misfits} == set(MisfitKind)
    for misfit in misfits:
        if isinstance(remedy_of(misfit), Remedy) and remedy_of(misfit) is not Remedy.TAKE_AWAY:
            continue
        (values,) = update_of(misfit, somebody=TWIN).values()
        assert list(values) == [misfit.field.partition(".")[0]]


def test_an_update_takes_a_field_away_or_sets_it() -> None:
    assert update_of(replace(TITLE, field="source.ticket"), somebody=TWIN) == {"$unset": {"source": ""}}
    assert update_of(TITLE, somebody=TWIN) == {"$set": {"title": "mended"}}
    assert update_of(replace(TITLE, field="created_by"), somebody=TWIN) == {"$set": {"created_by": TWIN}}
    mended = {str(update_of(replace(DOUBLE, id=found), somebody=TWIN)) for found in (ID, TWIN)}
    assert len(mended) == 2, "two that had the same value would have the same again"


def test_either_of_two_twins_stands_for_the_misfit() -> None:
    assert names_of(TITLE) == (("tasks", str(ID)),)
    assert names_of(DOUBLE) == (("users", str(ID)), ("users", str(TWIN)))
