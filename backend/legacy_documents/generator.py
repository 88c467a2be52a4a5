"""Makes ten collections out of nothing: seeded, of any size, and as untidy as many programs leave them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from backend.legacy_documents.awkward import Shape
from backend.legacy_documents.makers import DocumentMaker
from backend.legacy_documents.misfits import Misfit, MisfitKind, Misfits
from backend.legacy_documents.size import COLLECTIONS, DocumentsSize

Batch = tuple[str, list[dict[str, Any]]]
"""A collection's name, and some of its documents."""


class DocumentGenerator:
    """The same seed and size give the same documents. No more than a batch is held in memory.

    `without` leaves kinds of misfits out. `misfits` is known from the start, `shapes` counts what the batches so far held. The documents can be gone through again.
    """

    def __init__(
        self,
        *,
        seed: int = 1,
        size: DocumentsSize | int | None = None,
        without: frozenset[MisfitKind] = frozenset(),
    ) -> None:
        self.seed = seed
        self.size = DocumentsSize.of_total(size) if isinstance(size, int) else size or DocumentsSize()
        self._misfits = Misfits(seed=seed, size=self.size, without=without)
        self.shapes: Counter[Shape] = Counter()

    @property
    def misfits(self) -> tuple[Misfit, ...]:
        """The documents that no table can hold."""
        return tuple(self._misfits.known)

    def batches(self, *, batch_size: int = 1000) -> Iterator[Batch]:
        """All documents, parents before children."""
        self.shapes.clear()
        for collection in COLLECTIONS:
            maker = DocumentMaker(
                collection, seed=self.seed, size=self.size, misfits=self._misfits, counts=self.shapes
            )
            count = self.size.of(collection)
            for first in range(0, count, batch_size):
                numbers = range(first, min(first + batch_size, count))
                yield collection, [maker.document(number) for number in numbers]


def generate(*, seed: int = 1, size: DocumentsSize | int | None = None) -> Iterator[Batch]:
    """The documents in batches, parents before children; `size` as a number asks for about so many in all."""
    return DocumentGenerator(seed=seed, size=size).batches()
