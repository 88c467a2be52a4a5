"""The generated documents: repeatable, awkward, and misfit exactly where they say."""

from __future__ import annotations

import itertools
import tracemalloc
from collections import Counter
from typing import Any

import bson
import pytest

from backend.legacy_documents import (
    COLLECTIONS,
    DocumentGenerator,
    DocumentLoadError,
    DocumentsSize,
    MisfitKind,
    generate,
)
from backend.legacy_documents.awkward import Shape
from backend.legacy_documents.misfits import RECIPES
from backend.shared.domain.mapping import RowsByTable, UnfitError
from backend.task_service.app.mapping import CODEC, Collection
from backend.task_service.app.mapping import COLLECTIONS as MAPPED

MAPPING: dict[str, Collection] = {collection.name: collection for collection in MAPPED}
ONLY_TOGETHER = {MisfitKind.DANGLING_REFERENCE, MisfitKind.DUPLICATE}
"""Misfits that fit as long as they are looked at alone."""


def read(document: dict[str, Any]) -> dict[str, Any]:
    """As the driver reads it."""
    return bson.decode(bson.encode(document), CODEC)


def rows_or_reason(name: str, document: dict[str, Any]) -> tuple[RowsByTable | None, str]:
    try:
        return MAPPING[name].rows_of(document), ""
    except UnfitError as error:
        return None, str(error)


def sorted_fields(value: Any) -> Any:
    """Without the order that known fields have, which does not count."""
    if isinstance(value, dict):
        return {name: sorted_fields(value[name]) for name in sorted(value)}
    return [sorted_fields(item) for item in value] if isinstance(value, list) else value


def test_the_default_is_100_000_documents_and_every_shape_and_kind() -> None:
    generator = DocumentGenerator()
    assert generator.size.total == 100_000
    assert {misfit.kind for misfit in generator.misfits} == set(MisfitKind)
    assert len(generator.misfits) == 3 * len(RECIPES)
    smaller = DocumentGenerator(size=5000)
    assert sum(len(batch) for _, batch in smaller.batches()) == smaller.size.total
    assert set(smaller.shapes) == set(Shape)


def test_the_same_seed_gives_the_same_documents() -> None:
    first, again, other = (
        [bson.encode(document) for _, batch in generate(seed=seed, size=2000) for document in batch]
        for seed in (7, 7, 8)
    )
    assert first == again
    assert not set(first) & set(other)


def test_exactly_the_misfits_do_not_fit_and_all_others_come_back_to_the_byte() -> None:
    generator = DocumentGenerator(seed=3, size=5000)
    expected = {(misfit.collection, misfit.id): misfit for misfit in generator.misfits}
    seen: Counter[str] = Counter()
    for name, batch in generator.batches():
        seen[name] += len(batch)
        for document in map(read, batch):
            rows, reason = rows_or_reason(name, document)
            if rows is None:
                misfit = expected.pop((name, document["_id"]))
                assert reason.startswith(f"{misfit.field}:")
                continue
            back = dict(MAPPING[name].document_of(rows))
            assert bson.encode(sorted_fields(back)) == bson.encode(sorted_fields(document))
            order = [field for field in document if field not in MAPPING[name]._object._known]
            assert [field for field in back if field in order] == order
    assert set(seen) == set(COLLECTIONS)
    assert {misfit.kind for misfit in expected.values()} == ONLY_TOGETHER


def test_ids_differ_and_are_in_order() -> None:
    for name, batches in itertools.groupby(generate(size=3000), key=lambda found: found[0]):
        wrong = {misfit.id for misfit in DocumentGenerator(size=3000).misfits if misfit.collection == name}
        ids = [document["_id"] for _, batch in batches for document in batch if document["_id"] not in wrong]
        assert ids == sorted(set(ids))


def test_kinds_can_be_left_out() -> None:
    without = frozenset({MisfitKind.DATE_OUT_OF_RANGE})
    generator = DocumentGenerator(size=2000, without=without)
    assert {misfit.kind for misfit in generator.misfits} == set(MisfitKind) - without
    assert DocumentGenerator(size=DocumentsSize(misfits_per_kind=0)).misfits == ()


def test_memory_does_not_grow_with_the_size() -> None:
    peaks = []
    for count in (5, 40):
        batches = DocumentGenerator(size=200_000).batches(batch_size=200)
        tracemalloc.start()
        for _ in itertools.islice(batches, count):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.5


def test_a_size_without_room_for_the_misfits_is_refused() -> None:
    with pytest.raises(DocumentLoadError, match="tasks: 100 documents are too few"):
        DocumentGenerator(size=DocumentsSize(tasks=100))
    with pytest.raises(DocumentLoadError, match="users: at least"):
        DocumentsSize(users=0)
    with pytest.raises(DocumentLoadError, match="less than no misfit"):
        DocumentsSize(misfits_per_kind=-1)
