"""`Repairer`: makes keys that differ equal again, and writes down who did it and why.

Each key is looked at first, as the validator does: what has become equal is not touched, what is still moving is left
alone. From the authoritative side it goes over like any carry, behind the guard; from the other side it is an ordinary
captured write (`repair_authority`). Then it is looked at again. Safe beside relays, writers, validators, backfills and other
repairs; may be ended anywhere and run again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import replace

import structlog

from backend.shared.domain.errors import ConfigurationError, ConflictError, TandemError, ValidationError
from backend.shared.domain.mapping import EntityMapping, encode_key
from backend.shared.domain.phases import Direction, Side
from backend.shared.migration.repair_authority import AuthorityWriter
from backend.shared.migration.repair_log import RepairRepository
from backend.shared.migration.repair_looks import Looks
from backend.shared.migration.repair_plan import Plan, plan_of
from backend.shared.migration.repair_results import (
    Identity,
    KeyRepair,
    RepairOutcome,
    RepairReport,
    RepairRequest,
)
from backend.shared.migration.repair_writers import CarryingWriter, RepairWriter
from backend.shared.runtime import ServiceRuntime
from backend.shared.stores.errors import is_database_error, to_side_error
from backend.shared.validation.keys import parse_key
from backend.shared.validation.recheck import Look
from backend.shared.validation.statements import statements_of

BATCH_KEYS = 500
PATIENCE_SECONDS = 10.0
SECOND_TRIES_MOST = 20_000
"""Keys that wait for another row are kept in memory for a second try, up to this many."""

_EQUAL_NOW = "nothing was written"
_ON_ITS_WAY = "a change of it is on its way; left alone"
_UNREADABLE = "its row cannot be read in the types of the other side"

OnKey = Callable[[KeyRepair], None]

log = structlog.get_logger(__name__)


class Repairer:
    """Repairs one service. `batch_keys` bounds what is looked at together, `patience_seconds` the wait for moving keys."""

    def __init__(
        self,
        runtime: ServiceRuntime,
        *,
        batch_keys: int = BATCH_KEYS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._runtime = runtime
        self._batch_keys = batch_keys
        self._patience_seconds = patience_seconds

    async def run(
        self, request: RepairRequest, *, on_key: OnKey = lambda _key: None, stop: asyncio.Event | None = None
    ) -> RepairReport:
        """Repair what `request` names, batch by batch; `on_key` gets each key as it is done. `stop` ends it between two.

        Raises `ConflictError` in a phase without second writes and where there is nothing to go by, `ValidationError` for
        keys that cannot be, `FencedError` if the sides are not (or no longer) in the state that the phase says, and
        `SideError` if one does not answer. Keys that were done by then stay done.
        """
        run = _Run(
            self._runtime,
            request,
            batch_keys=self._batch_keys,
            patience_seconds=self._patience_seconds,
            on_key=on_key,
            stop=stop or asyncio.Event(),
        )
        try:
            return await run.run()
        except TandemError:
            raise
        except Exception as error:
            if not is_database_error(error):
                raise
            # What the sides themselves said has come as `SideError`; what is left are the tables on the new side.
            raise to_side_error(error, Side.NEW) from error


class _Run:
    """One repair, in one phase and epoch."""

    def __init__(
        self,
        runtime: ServiceRuntime,
        request: RepairRequest,
        *,
        batch_keys: int,
        patience_seconds: float,
        on_key: OnKey,
        stop: asyncio.Event,
    ) -> None:
        self._direction = direction = _direction(runtime, request)
        self._runtime = runtime
        self._request = request
        self._batch_keys = batch_keys
        self._patience_seconds = patience_seconds
        self._on_key = on_key
        self._stop = stop
        self._from = request.source or direction.source
        self._entities = _entities(runtime, request)
        self._repository = RepairRepository(runtime.engines[Side.NEW], runtime.names)
        self._looks = Looks(runtime, direction=direction, epoch=runtime.control.epoch)
        kind = CarryingWriter if self._from is direction.source else AuthorityWriter
        self._writer: RepairWriter = kind(
            runtime,
            direction=direction,
            epoch=runtime.control.epoch,
            looks=self._looks,
            patience_seconds=patience_seconds,
        )
        self._counts: Counter[RepairOutcome] = Counter()
        self._again: list[Identity] = []
        self._second_try = False

    async def run(self) -> RepairReport:
        request, note, more = self._request, "", False
        await self._looks.check_fence()
        async for batch in self._batches():
            await self._batch(batch)
            if self._stop.is_set():
                break
        if not self._counts and not self._again and not self._stop.is_set():
            note = await self._nothing()
        else:
            note = await self._more_than_kept()
            more = bool(note)
        self._second_try = True
        # Those that waited for a row to go, such as a parent for its children, go in the other order now.
        for part in _parts(self._again[::-1], self._batch_keys):
            if not self._stop.is_set():
                await self._batch(part)
        return RepairReport(
            service=self._runtime.service,
            source=self._from,
            target=self._from.other,
            dry_run=request.dry_run,
            counts=self._counts,
            interrupted=self._stop.is_set(),
            note=note,
            more=more,
        )

    async def _nothing(self) -> str:
        request, service = self._request, self._runtime.service
        if not await self._repository.was_validated(request.entity):
            raise ConflictError(
                f"no mismatch is kept: run `tandem validate {service}` first, or name keys with --key"
            )
        return "nothing to repair: the last validation left no mismatch open"

    async def _more_than_kept(self) -> str:
        if self._request.keys:
            return ""
        names = [item.name for item in self._entities if await self._repository.kept_only_some(item.name)]
        if not names:
            return ""
        return f"more keys of {', '.join(names)} differ than the last validation kept: validate again"

    async def _batches(self) -> AsyncIterator[list[Identity]]:
        """The keys that are meant, parents first, up to the limit."""
        left = self._request.limit
        batch: list[Identity] = []
        async for identity in self._identities():
            if left is not None and left <= 0:
                break
            left = None if left is None else left - 1
            batch.append(identity)
            if len(batch) == self._batch_keys:
                yield batch
                batch = []
        if batch:
            yield batch

    async def _identities(self) -> AsyncIterator[Identity]:
        if self._request.keys:
            (entity,) = self._entities
            keys = [encode_key(parse_key(entity, text)) for text in self._request.keys]
            for key in dict.fromkeys(keys):
                yield entity.name, key
            return
        for entity in self._entities:
            async for page in self._repository.open_mismatches(entity.name, page_keys=self._batch_keys):
                for identity in page:
                    yield identity

    async def _batch(self, batch: Sequence[Identity]) -> None:
        await self._looks.check_fence()
        looks = await self._looks.settled(batch, patience_seconds=self._patience_seconds)
        await self._runtime.hook("repair_looked")
        done: dict[Identity, KeyRepair] = {}
        differing: dict[Identity, Look] = {}
        for item in batch:
            look = looks[item]
            if look.equal:
                done[item] = _result(item, RepairOutcome.EQUAL_ALREADY, detail=_EQUAL_NOW)
            elif look.settled:
                differing[item] = look
            else:
                done[item] = _result(item, RepairOutcome.MOVING, detail=_ON_ITS_WAY)
        plans = await self._plans(differing)
        if self._request.dry_run:
            done |= {item: self._planned(item, look, plans[item]) for item, look in differing.items()}
        else:
            done |= await self._repair(differing, plans, done.values())
        for item in batch:
            self._tell(done[item])

    async def _plans(self, differing: dict[Identity, Look]) -> dict[Identity, Plan]:
        looks, direction = differing, self._direction
        if self._from is not direction.source:
            direction = Direction.towards(direction.source)
            looks = await self._looks.backwards(differing)
        catalog = self._runtime.catalog
        return {
            item: plan_of(statements_of(catalog[item[0]], direction), look) for item, look in looks.items()
        }

    def _planned(self, item: Identity, look: Look, plan: Plan) -> KeyRepair:
        if plan.sql:
            return _result(item, RepairOutcome.PLANNED, plan=plan)
        if look.source is not None and look.source == look.target:
            return _result(
                item, RepairOutcome.PLANNED, detail="both sides are equal: its failure is tried again"
            )
        return _result(item, RepairOutcome.REFUSED, detail=_UNREADABLE)

    async def _repair(
        self, differing: dict[Identity, Look], plans: dict[Identity, Plan], others: Iterable[KeyRepair]
    ) -> dict[Identity, KeyRepair]:
        """Write it down, write, look again, and write down what became of it."""
        request = self._request
        numbers = await self._repository.begin(
            [(item, [change.field for change in plans[item].fields]) for item in differing],
            source=self._from,
            by=request.by,
            reason=request.reason,
        )
        written = await self._writer.write(differing)
        done = {}
        for item, result in written.items():
            plan = plans[item] if request.show_values else plans[item].without_values()
            done[item] = replace(
                _result(item, result.outcome, detail=result.detail, plan=plan), sql=(), waits=result.waits
            )
        await self._repository.finish([*others, *done.values()], numbers)
        for repair in done.values():
            self._log(repair)
        return done

    def _tell(self, repair: KeyRepair) -> None:
        if repair.waits and not self._second_try and len(self._again) < SECOND_TRIES_MOST:
            self._again.append(repair.identity)
            return
        self._counts[repair.outcome] += 1
        self._on_key(repair)

    def _log(self, repair: KeyRepair) -> None:
        told = log.info if repair.outcome is RepairOutcome.REPAIRED else log.warning
        told(
            "key_repaired" if repair.outcome is RepairOutcome.REPAIRED else "key_not_repaired",
            service=self._runtime.service,
            entity=repair.entity,
            key=repair.key,
            from_side=self._from.value,
            outcome=repair.outcome.value,
            fields=[change.field for change in repair.fields],
            by=self._request.by,
            reason=self._request.reason,
            detail=repair.detail or None,
        )


def _direction(runtime: ServiceRuntime, request: RepairRequest) -> Direction:
    """From the authoritative side to the other; raises `ConflictError` where there is no second side to repair."""
    phase = runtime.phase
    direction = phase.policy.direction
    if direction is None:
        raise ConflictError(
            f"phase {phase.value} has no secondary side: nothing is carried, so there is nothing to repair"
        )
    if request.source in (None, direction.source) and not runtime.settings.carries(phase):
        raise ConfigurationError(f"writes to the {direction.target.value} side are switched off")
    return direction


def _entities(runtime: ServiceRuntime, request: RepairRequest) -> list[EntityMapping]:
    """The entities that are meant, parents first."""
    catalog = runtime.catalog
    if request.limit is not None and request.limit < 1:
        raise ValidationError("the limit is at least 1")
    if request.entity is not None:
        return [catalog[request.entity]]
    if request.keys:
        if catalog.only is None:
            raise ValidationError(f"say which entity: {', '.join(entity.name for entity in catalog.ordered)}")
        return [catalog.only]
    return list(catalog.ordered)


def _parts(items: Sequence[Identity], size: int) -> list[Sequence[Identity]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _result(
    item: Identity, outcome: RepairOutcome, *, detail: str = "", plan: Plan | None = None
) -> KeyRepair:
    return KeyRepair(
        entity=item[0],
        key=item[1],
        outcome=outcome,
        fields=plan.fields if plan else (),
        sql=plan.sql if plan else (),
        detail=detail,
    )


__all__ = ["KeyRepair", "RepairOutcome", "RepairReport", "RepairRequest", "Repairer"]
