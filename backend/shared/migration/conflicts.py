"""`Conflicts`: lists what foreign programs wrote to a closed side, and settles it either way (R7, I8).

To keep the authoritative state is to carry the key once more. To keep the foreign write is an ordinary captured write on the
authoritative side (`conflict_writer`), which the relay carries back. A conflict is held in its table while that is done, so
that of two operators one wins; it is closed when it is done, so that a crash leaves it open, and settling it again does no
harm. Where the authority has moved since, the side of the conflict may be the authoritative one now: then the foreign write
is part of the authoritative state, and to decide against it is to take it back there.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from backend.shared.domain.errors import ConflictError, NotFoundError, ValidationError
from backend.shared.domain.phases import Side
from backend.shared.journal.conflict_records import Conflict
from backend.shared.journal.on_sides import count_open_conflicts
from backend.shared.migration.conflict_settling import Settlement, SettleOutcome, Settler
from backend.shared.runtime import ServiceRuntime
from backend.shared.stores.errors import is_database_error, to_side_error
from backend.shared.stores.side import Conflicts as KeptConflicts
from backend.shared.stores.side import Connection, LockHeldError

PATIENCE_SECONDS = 10.0
BATCH_CONFLICTS = 200

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class ConflictId:
    """Names a conflict for people: `cart-legacy-12`."""

    service: str
    side: Side
    number: int

    def __str__(self) -> str:
        return f"{self.service}-{self.side.value}-{self.number}"

    @classmethod
    def parse(cls, text: str) -> ConflictId:
        """The id that `text` is; raises `ValidationError` for one that cannot be."""
        found = re.fullmatch(r"([a-z][a-z0-9_]*)-(legacy|new)-([1-9][0-9]{0,17})", text)
        if found is None:
            raise ValidationError(f"{text!r} is no conflict's id: they look like cart-legacy-12")
        return cls(service=found[1], side=Side(found[2]), number=int(found[3]))


class Conflicts:
    """The conflicts of one service. Safe beside traffic, relays and other operators."""

    def __init__(self, runtime: ServiceRuntime, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._runtime = runtime
        self._patience_seconds = patience_seconds

    async def page(
        self,
        *,
        after: tuple[Side, int] | None = None,
        limit: int,
        entity: str | None = None,
        settled: bool = False,
    ) -> list[Conflict]:
        """Open or `settled` conflicts of both sides, legacy first, each side's in the order of their numbers."""
        state = "settled" if settled else "open"
        found: list[Conflict] = []
        for side in await self._sides():
            if after is not None and list(Side).index(side) < list(Side).index(after[0]):
                continue
            after_id = after[1] if after is not None and after[0] is side else 0
            if len(found) < limit:
                async with self._connected(side) as connection:
                    found += await self._kept_on(side).page(
                        connection,
                        after_id=after_id,
                        limit=limit - len(found),
                        entity=entity,
                        state=state,
                    )
        return found

    async def count(self) -> int:
        """How many are open on both sides."""
        total = 0
        for side in await self._sides():
            async with self._connected(side) as connection:
                total += await self._kept_on(side).count(connection)
        return total

    def _kept_on(self, side: Side) -> KeptConflicts:
        return self._runtime.stores[side].conflicts

    async def _sides(self) -> list[Side]:
        """Both; but where the phase has nothing to do with legacy any more, that may be gone."""
        runtime = self._runtime
        late = set(Side) - set(runtime.sides_in_use)
        if not runtime.base_settings.legacy_database_url:
            return list(runtime.sides_in_use)
        there = await count_open_conflicts(runtime.stores, late)
        return [side for side in Side if side not in late or side in there]

    async def plan(self, wanted: ConflictId, *, keep: Side, show_values: bool = False) -> Settlement:
        """What settling would do. Changes nothing."""
        await self._runtime.following.refresh()
        async with self._connected(wanted.side) as connection:
            conflict = self._known(wanted, await self._kept_on(wanted.side).get(connection, wanted.number))
        if done := _done_already(wanted, conflict, keep):
            return done
        return await self._settler("").plan(conflict, keep, show_values=show_values)

    async def settle(self, wanted: ConflictId, *, keep: Side, by: str) -> Settlement:
        """Make the state of side `keep` the state of both. May be repeated.

        Raises `NotFoundError`, `ConflictError` where it was settled the other way or somebody is at it, `FencedError` where
        the authority moves meanwhile, and `SideError` if a side does not answer. What the databases refuse comes as
        `SettleOutcome.REFUSED`.
        """
        await self._runtime.following.refresh()
        async with self._connected(wanted.side) as holding:
            conflict = self._known(wanted, await self._hold(holding, wanted))
            if done := _done_already(wanted, conflict, keep):
                return done
            await self._runtime.hook("conflict_held")
            (done,) = await self._settler(by).settle([conflict], keep)
            await self._write_down(holding, [done], keep, by)
        return done

    async def settle_all(
        self, *, keep: Side, by: str, on_each: Callable[[Settlement], None] = lambda _: None
    ) -> None:
        """Settle what is open now, in the order in which it was written; what was refused is tried once more in the end."""
        await self._runtime.following.refresh()
        again: list[Conflict] = []
        for side in await self._sides():
            async for batch in self._batches(side):
                for done in await self._settle_batch(side, batch, keep, by):
                    if done.outcome is SettleOutcome.REFUSED:
                        again.append(done.conflict)
                    else:
                        on_each(done)
        for conflict in reversed(again):  # such as children before their parents
            for done in await self._settle_batch(conflict.side, [conflict], keep, by):
                on_each(done)

    async def _batches(self, side: Side) -> AsyncIterator[list[Conflict]]:
        async with self._connected(side) as connection:
            last, after = await self._kept_on(side).last_id(connection), 0
        while after < last:
            async with self._connected(side) as connection:
                page = await self._kept_on(side).page(connection, after_id=after, limit=BATCH_CONFLICTS)
            if not page:
                return
            after = page[-1].id
            yield [conflict for conflict in page if conflict.id <= last]

    async def _settle_batch(
        self, side: Side, batch: Sequence[Conflict], keep: Side, by: str
    ) -> list[Settlement]:
        async with self._connected(side) as holding:
            free = await self._kept_on(side).hold_free(holding, [conflict.id for conflict in batch])
            done = await self._settler(by).settle([item for item in batch if item.id in free], keep)
            await self._write_down(holding, done, keep, by)
        return done

    async def _write_down(self, holding: Connection, done: Sequence[Settlement], keep: Side, by: str) -> None:
        await self._runtime.hook("conflict_done")
        for item in done:
            number, kept = item.conflict.id, self._kept_on(item.conflict.side)
            if item.is_settled:
                await kept.settle(holding, [number], kept=keep, by=by, detail=item.detail)
            elif item.detail:
                await kept.note(holding, number, item.detail)
        await holding.commit()
        for item in done:
            told = log.info if item.is_settled else log.warning
            told(
                "conflict_settled" if item.is_settled else "conflict_not_settled",
                service=self._runtime.service,
                conflict=str(self.id_of(item.conflict)),
                entity=item.conflict.entity,
                key=item.conflict.key,
                kept=keep.value,
                outcome=item.outcome.value,
                by=by,
                detail=item.detail or None,
            )

    async def _hold(self, connection: Connection, wanted: ConflictId) -> Conflict | None:
        if wanted.service != self._runtime.service:
            return None
        try:
            return await self._kept_on(wanted.side).hold(connection, wanted.number)
        except LockHeldError as error:
            raise ConflictError(f"somebody else settles {wanted} just now") from error

    def _known(self, wanted: ConflictId, conflict: Conflict | None) -> Conflict:
        if conflict is None or wanted.service != self._runtime.service:
            raise NotFoundError(f"there is no conflict {wanted}")
        if conflict.entity not in self._runtime.catalog:
            raise ConflictError(f"{wanted} is of the entity {conflict.entity}, which is no longer mapped")
        return conflict

    def id_of(self, conflict: Conflict) -> ConflictId:
        """The name of a conflict."""
        return ConflictId(service=self._runtime.service, side=conflict.side, number=conflict.id)

    def _settler(self, by: str) -> Settler:
        return Settler(self._runtime, by=by, patience_seconds=self._patience_seconds)

    @asynccontextmanager
    async def _connected(self, side: Side) -> AsyncIterator[Connection]:
        try:
            async with self._runtime.stores[side].connect() as connection:
                yield connection
        except Exception as error:
            if not is_database_error(error):
                raise
            raise to_side_error(error, side) from error


def _done_already(wanted: ConflictId, conflict: Conflict, keep: Side) -> Settlement | None:
    if conflict.state == "open":
        return None
    kept = conflict.kept.value if conflict.kept else "neither side"
    if conflict.kept is not keep:
        raise ConflictError(f"{wanted} was settled by {conflict.settled_by}: kept {kept}")
    return Settlement(
        conflict=conflict,
        keep=keep,
        outcome=SettleOutcome.SETTLED_ALREADY,
        detail=f"by {conflict.settled_by}",
    )


__all__ = ["ConflictId", "Conflicts", "SettleOutcome", "Settlement"]
