"""Helpers of the validator's tests: people on both sides, runs that die, and what a run has looked at."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from backend.shared.validation.chunks import EntityComparer
from backend.shared.validation.keeper import RunKeeper
from backend.shared.validation.report import EntityReport, MismatchKind
from backend.shared.validation.walk import ChunkResult
from tests.support.fixtures import MakeManager, Sql
from tests.support.people import PeopleManager
from tests.support.steps import Crash

FOLK = "INSERT INTO folk (folk_no, mail, nm, born) SELECT n, n || '@x', 'n', '2001-02-03' FROM generate_series(1, {}) AS n"
COMPARED = "validator_chunk_compared"


async def carried(
    make_manager: MakeManager, legacy_sql: Sql, count: int = 1000, **settings: Any
) -> PeopleManager:
    """A manager, and so many people that its relay has carried."""
    manager = await make_manager(batch_size=5000, **settings)
    await legacy_sql(FOLK.format(count))
    assert await manager.relay().drain(timeout_seconds=20)
    return manager


@dataclass
class DieAfter:
    """A hook: the process dies when so many chunks have been compared. Nothing is caught, nothing is tidied up."""

    chunks: int

    async def __call__(self, step: str) -> None:
        if step == COMPARED:
            self.chunks -= 1
            if self.chunks == 0:
                raise Crash(step)


@dataclass
class Looked:
    """What comparers were asked for: where they began, how many rows they went over, which keys they got by name."""

    began_behind: list[str | None] = field(default_factory=list)
    source_rows: int = 0
    by_name: list[str] = field(default_factory=list)

    def forget(self) -> None:
        """Begin anew."""
        self.began_behind, self.source_rows, self.by_name = [], 0, []


def watch(monkeypatch: pytest.MonkeyPatch) -> Looked:
    """Note what is looked at from here on."""
    looked, chunks, among = Looked(), EntityComparer.chunks, EntityComparer.among

    async def noting(
        comparer: EntityComparer, *, after: str | None = None, share: float = 1.0, seed: int = 0
    ) -> AsyncGenerator[ChunkResult, None]:
        looked.began_behind.append(after)
        async for chunk in chunks(comparer, after=after, share=share, seed=seed):
            looked.source_rows += chunk.source_rows
            yield chunk

    async def noting_names(comparer: EntityComparer, keys: Sequence[str]) -> ChunkResult:
        looked.by_name += keys
        return await among(comparer, keys)

    monkeypatch.setattr(EntityComparer, "chunks", noting)
    monkeypatch.setattr(EntityComparer, "among", noting_names)
    return looked


def kinds(report: EntityReport) -> dict[str, MismatchKind]:
    """By key, how it differs."""
    return {item.key: item.kind for item in report.mismatches}


def keep_after_each_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is kept at once, and not every second."""
    monkeypatch.setattr(RunKeeper, "is_due", property(lambda _: True))


async def grow_silent(new_sql: Sql) -> None:
    """Time goes by without a sign of life from the runs under way."""
    await new_sql("UPDATE tandem_people.validation_run SET heartbeat_at = heartbeat_at - interval '1 minute'")
