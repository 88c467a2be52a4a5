"""Copies one entity between unlike stores: in key order, key by key through the guard, as the relay carries them.

Chunks are ranges of keys, of both sides: so what the source has no longer is removed in the same pass. How far it has come is
kept after each chunk; a chunk that is carried twice, since a process died or two work on one entity, changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog

from backend.shared.domain.errors import ConflictError
from backend.shared.domain.mapping import EntityMapping
from backend.shared.journal.carrier import Hook, no_hook
from backend.shared.migration.backfill_state import BackfillRepository, EntityProgress, Stage
from backend.shared.migration.entity_copy import patiently
from backend.shared.migration.key_carry import Carried, KeyCarrier
from backend.shared.migration.throttle import Throttle
from backend.shared.stores.key_pages import KeyPages
from backend.shared.stores.side import SideStore

CHUNK_KEYS = 2_000
STRANGE_KEYS = 20_000
"""So many keys of a kind that is not mapped are no dirt any more: the mapping is wrong."""
PIECE_KEYS = 250
"""Keys carried in one transaction."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Keys:
    """The keys of one chunk: those of the source, those that only the target has, and the last one unless it is the end."""

    ours: Sequence[str]
    gone: Sequence[str]
    upper: str | None


@dataclass(kw_only=True)
class KeyedCopy:
    """Copies one entity in one epoch. `hook` is called after each chunk, before it is kept that it is done."""

    entity: EntityMapping
    begun_at: datetime
    epoch: int
    source: SideStore
    target: SideStore
    keeper: SideStore
    state: BackfillRepository
    keys: KeyCarrier
    throttle: Throttle
    service: str
    hook: Hook = no_hook
    chunk_keys: int = CHUNK_KEYS

    def __post_init__(self) -> None:
        # What comes meanwhile is journalled, and a key that has gone is carried as one that is not there.
        self._ahead = {
            store.side: KeyPages(store, self.entity, chunk_keys=self.chunk_keys)
            for store in (self.source, self.target)
        }

    async def run(self) -> None:
        """Copy what is left to copy. Raises `ConflictError` if another process has begun it anew since."""
        side = self.target.side
        progress = await patiently(self.throttle, side, self._progress)
        while progress.stage is not Stage.COMPLETE and not progress.exhausted:
            await self.throttle.ready()
            await patiently(self.throttle, side, self._chunk, progress)
            progress = await patiently(self.throttle, side, self._progress)
        if progress.stage is not Stage.COMPLETE:
            await patiently(self.throttle, side, self._refuse_strange)
            await patiently(self.throttle, side, self._complete, progress)
        log.info("entity_backfilled", service=self.service, entity=self.entity.name)

    async def _progress(self) -> EntityProgress:
        async with self.keeper.connect() as connection:
            found = (await self.state.progress(connection))[self.entity.name]
        if found.started_at != self.begun_at:
            raise ConflictError(f"{self.entity.name}: another process has begun the backfill anew")
        return found

    async def _refuse_strange(self) -> None:
        """Keys of no kind that the other side could hold become failures: nothing is dropped unseen (I8)."""
        async with self.source.reading() as connection:
            keys = await self.source.state.strange_keys(connection, self.entity, most=STRANGE_KEYS)
        if len(keys) == STRANGE_KEYS:
            raise ConflictError(
                f"{self.entity.name}: {STRANGE_KEYS} keys or more are of another kind than mapped"
            )
        await self.keys.carry(self.entity, keys, epoch=self.epoch)

    async def _complete(self, before: EntityProgress) -> None:
        async with self.keeper.begin() as connection:
            await self.state.enter_stage(connection, before, Stage.COMPLETE)

    async def _chunk(self, before: EntityProgress) -> None:
        found = await self._keys(before.frontier)
        wanted = [*found.ours, *found.gone]
        pieces = [wanted[start : start + PIECE_KEYS] for start in range(0, len(wanted), PIECE_KEYS)]
        free = asyncio.Semaphore(self.throttle.control.limits.workers)

        async def carry(piece: Sequence[str]) -> Carried:
            async with free:
                return await self.keys.carry(self.entity, piece, epoch=self.epoch)

        tasks = [asyncio.ensure_future(carry(piece)) for piece in pieces]
        try:
            done = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        self.throttle.spend(len(found.ours))
        await self.hook("keyed_chunk_carried")
        async with self.keeper.begin() as connection:
            await self.state.advance(
                connection,
                before,
                frontier=found.upper,
                rows=len(found.ours),
                removed=len(found.gone),
                failed=sum(item.failed for item in done),
                waiting=sum(item.waiting for item in done),
            )

    async def _keys(self, after: str | None) -> _Keys:
        """The next keys of the source past `after`, and those of the target in the same range that it lacks."""
        limit = self.chunk_keys
        ours = await self._ahead[self.source.side].after(after)
        upper = ours[-1] if len(ours) == limit else None
        known, gone, at = set(ours), [], after
        while True:
            theirs = await self._ahead[self.target.side].after(at)
            inside = [key for key in theirs if upper is None or key <= upper]
            gone += [key for key in inside if key not in known]
            if len(inside) < limit:
                return _Keys(ours=ours, gone=gone, upper=upper)
            at = inside[-1]
