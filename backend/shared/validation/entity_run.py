"""One entity from its first key to its last, and what has been found on the way."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from backend.shared.domain.phases import Side
from backend.shared.validation.chunks import EntityComparer
from backend.shared.validation.recheck import Look, Recheck
from backend.shared.validation.report import EntityReport, Mismatch, MismatchKind
from backend.shared.validation.suspects import LOOKED_AT_ONCE, Suspects


@dataclass
class EntityRun:
    """Compares one entity once. Memory is bounded by `chunk_rows` and `listed`, whatever the size of the tables."""

    recheck: Recheck
    chunk_rows: int
    listed: int
    patience_seconds: float
    _rows: dict[Side, int] = field(default_factory=lambda: dict.fromkeys(Side, 0))
    _kinds: dict[MismatchKind, int] = field(default_factory=lambda: dict.fromkeys(MismatchKind, 0))
    _mismatches: dict[str, Mismatch] = field(default_factory=dict)
    _among_failures: bool = False

    async def run(self) -> EntityReport:
        """Compare all keys. Raises `SideError` if a side does not answer, `UnreadableRowError` if keys cannot be read."""
        started = time.monotonic()
        recheck, sides = self.recheck, self.recheck.sides
        suspects = Suspects(recheck, self._convict, self.patience_seconds)
        comparer = EntityComparer(sides=sides, statements=recheck.statements, chunk_rows=self.chunk_rows)
        async for chunk in comparer.chunks():
            self._rows[sides.direction.source] += chunk.source_rows
            self._rows[sides.direction.target] += chunk.target_rows
            await suspects.add(chunk.suspects)
        # Keys with an open failure differ even where the rows happen to be equal. They are counted here and nowhere else.
        self._among_failures = True
        async for failed in self._failed_keys():
            await suspects.add(failed)
        await suspects.settle()
        return self._report(moving=suspects.still_moving, seconds=time.monotonic() - started)

    async def _failed_keys(self) -> AsyncIterator[list[str]]:
        """Keys with an open failure, some at a time; those that fail while this runs are left to the next run."""
        names, entity = self.recheck.names, self.recheck.statements.entity
        sides, last = self.recheck.sides, 0
        (most,) = await sides.ask_source(f"SELECT coalesce(max(id), 0) AS id FROM {names.failure}")
        while True:
            rows = await sides.ask_source(
                f"SELECT id, key FROM {names.failure} "
                "WHERE entity = $1 AND state = 'open' AND id > $2 AND id <= $3 ORDER BY id LIMIT $4",
                entity.name,
                last,
                most.id,
                LOOKED_AT_ONCE,
            )
            if not rows:
                return
            yield [row.key for row in rows]
            last = rows[-1].id

    def _convict(self, look: Look) -> None:
        if (look.failed and not self._among_failures) or look.key in self._mismatches:
            return
        self._kinds[self.recheck.kind(look)] += 1
        if len(self._mismatches) < self.listed:
            self._mismatches[look.key] = self.recheck.mismatch(look)

    def _report(self, *, moving: int, seconds: float) -> EntityReport:
        kinds = self._kinds
        return EntityReport(
            service=self.recheck.names.service,
            entity=self.recheck.statements.entity.name,
            rows_legacy=self._rows[Side.LEGACY],
            rows_new=self._rows[Side.NEW],
            missing_in_new=kinds[MismatchKind.MISSING_IN_NEW],
            missing_in_legacy=kinds[MismatchKind.MISSING_IN_LEGACY],
            different=kinds[MismatchKind.DIFFERENT]
            + kinds[MismatchKind.FAILED]
            + kinds[MismatchKind.UNREADABLE],
            moving=moving,
            duration_seconds=seconds,
            mismatches=tuple(self._mismatches.values()),
        )
