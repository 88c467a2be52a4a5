"""`SyncValidator`: says whether both sides of a service hold the same, and which keys do not (R9)."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import Integer, SmallInteger, String

from backend.shared.domain.errors import TandemError, ValidationError
from backend.shared.domain.mapping import EntityMapping, Key, encode_key
from backend.shared.domain.phases import Direction, Phase, Side
from backend.shared.observability.admin_views import FieldDifferenceView, ValidationView
from backend.shared.observability.labels import Verdict
from backend.shared.runtime import ServiceRuntime
from backend.shared.stores.postgres.errors import classify, describe, is_database_error
from backend.shared.stores.protocol import Trouble
from backend.shared.validation.recheck import Recheck
from backend.shared.validation.report import EntityReport, Mismatch, MismatchKind, ValidationReport
from backend.shared.validation.statements import EntityStatements, Relation

CHUNK_ROWS = 10_000
RECHECK_KEYS = 1_000
PATIENCE_SECONDS = 10.0
MISMATCHES_LISTED = 1_000

log = structlog.get_logger(__name__)


def parse_key(mapping: EntityMapping, text: str) -> Key:
    """A key as people write it: the canonical JSON array, or the bare value where the key is one column."""
    try:
        parts = json.loads(text) if text.startswith("[") else [text]
    except ValueError:
        parts = [text]
    if not isinstance(parts, list) or len(parts) != len(mapping.key):
        raise ValidationError(f"a key of {mapping.name} has {len(mapping.key)} part(s)")
    return tuple(_parse_part(mapping, n, part) for n, part in enumerate(parts))


def _parse_part(mapping: EntityMapping, number: int, part: object) -> int | str:
    declared = mapping.key[number]
    if isinstance(declared.type, Integer):
        bits = (
            15
            if isinstance(declared.type, SmallInteger)
            else 63
            if declared.type.__visit_name__ == "big_integer"
            else 31
        )
        if isinstance(part, bool) or not str(part).removeprefix("-").isdecimal() or not str(part).isascii():
            raise ValidationError(f"{declared.name} of {mapping.name} is a whole number")
        if not -(2**bits) <= int(str(part)) < 2**bits:
            raise ValidationError(f"{declared.name} of {mapping.name} is out of range")
        return int(str(part))
    if not isinstance(part, str) or "\0" in part or (isinstance(declared.type, String) and len(part) > 1000):
        raise ValidationError(f"{declared.name} of {mapping.name} is no such text")
    try:
        part.encode()
    except UnicodeEncodeError:
        raise ValidationError(f"{declared.name} of {mapping.name} is no such text") from None
    return part


@lru_cache(maxsize=1024)
def _statements(entity: EntityMapping, direction: Direction) -> EntityStatements:
    return EntityStatements.of(entity, entity.projections(direction))


@dataclass
class _Tally:
    """What has been found so far of one entity."""

    rows: dict[Side, int] = field(default_factory=lambda: dict.fromkeys(Side, 0))
    kinds: dict[MismatchKind, int] = field(default_factory=lambda: dict.fromkeys(MismatchKind, 0))
    moving: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)
    judged: set[str] = field(default_factory=set)


class SyncValidator:
    """Compares the sides of one service. Reads only; may run at any time, beside anything."""

    def __init__(self, runtime: ServiceRuntime, *, chunk_rows: int = CHUNK_ROWS) -> None:
        self._runtime = runtime
        self._chunk_rows = chunk_rows

    @property
    def direction(self) -> Direction:
        """From the authoritative side to the other; also in a phase that carries nothing any more or yet."""
        policy = self._runtime.phase.policy
        return Direction.towards(policy.authoritative.other)

    async def run(
        self,
        entities: Sequence[str] | None = None,
        *,
        show_values: bool = False,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> ValidationReport:
        """Compare all rows of `entities` (all, if None). Raises `SideError` when a side does not answer."""
        catalog = self._runtime.catalog
        chosen = [catalog[name] for name in entities] if entities else list(catalog.ordered)
        reports = []
        for entity in chosen:
            report = await self._run_entity(
                entity, show_values=show_values, patience_seconds=patience_seconds
            )
            self._runtime.metrics.entity_validated(
                service=self._runtime.service, entity=entity.name, verdict=report.verdict
            )
            reports.append(report)
        return ValidationReport(entities=tuple(reports))

    async def validate_key(self, mapping: EntityMapping, key: Key, *, show_values: bool) -> ValidationView:
        """Compare one key now, looking once: a key still on its way is *incomplete*."""
        recheck = self._recheck(mapping, show_values=show_values)
        (look,) = await recheck.look([encode_key(key)])
        there = {
            recheck.direction.source: look.source is not None,
            recheck.direction.target: look.target is not None,
        }
        verdict = Verdict.EQUAL
        differences: tuple[FieldDifferenceView, ...] = ()
        if not look.equal:
            verdict = Verdict.DIFFERENT if look.settled else Verdict.INCOMPLETE
            differences = tuple(
                FieldDifferenceView(field=item.field, legacy=item.legacy, new=item.new)
                for item in recheck.mismatch(look).fields
            )
        return ValidationView(
            service=self._runtime.service,
            entity=mapping.name,
            key=look.key,
            verdict=verdict,
            in_legacy=there[Side.LEGACY],
            in_new=there[Side.NEW],
            differences=differences,
            detail="it could not be carried: see the failures" if look.failed else None,
        )

    def _recheck(self, entity: EntityMapping, *, show_values: bool) -> Recheck:
        if any(projection.function for projection in entity.projections(self.direction)):
            raise ValidationError(
                f"entity {entity.name} is mapped by Python, which cannot be compared in SQL yet"
            )
        return Recheck(
            engines=self._runtime.engines,
            names=self._runtime.names,
            statements=_statements(entity, self.direction),
            direction=self.direction,
            epoch=self._runtime.control.epoch,
            show_values=show_values,
        )

    async def _run_entity(
        self, entity: EntityMapping, *, show_values: bool, patience_seconds: float
    ) -> EntityReport:
        started, tally = time.monotonic(), _Tally()
        recheck = self._recheck(entity, show_values=show_values)
        deadline = started + patience_seconds
        for number in range(len(recheck.statements.target)):
            async for lower, upper in self._chunks(recheck.statements.source[number]):
                if await self._chunk_is_equal(recheck, number, lower, upper, tally):
                    continue
                keys = await self._differing_keys(recheck, number, lower, upper)
                await self._judge(recheck, keys, tally, deadline=max(deadline, time.monotonic() + 1.0))
        await self._judge(recheck, await self._failed_keys(entity), tally, deadline=deadline)
        kinds = tally.kinds
        return EntityReport(
            service=self._runtime.service,
            entity=entity.name,
            rows_legacy=tally.rows[Side.LEGACY],
            rows_new=tally.rows[Side.NEW],
            missing_in_new=kinds[MismatchKind.MISSING_IN_NEW],
            missing_in_legacy=kinds[MismatchKind.MISSING_IN_LEGACY],
            different=kinds[MismatchKind.DIFFERENT] + kinds[MismatchKind.FAILED],
            moving=tally.moving,
            duration_seconds=time.monotonic() - started,
            mismatches=tuple(tally.mismatches),
        )

    async def _chunks(self, source: Relation) -> AsyncIterator[tuple[str | None, str | None]]:
        """Ranges of keys that follow each other without a gap, from before the first to after the last."""
        lower: str | None = None
        while True:
            statement = source.next_bound(lower="$2" if lower else None)
            parameters = (self._chunk_rows - 1, lower) if lower else (self._chunk_rows - 1,)
            async with self._runtime.engines[self.direction.source].connect() as connection:
                upper = (await connection.exec_driver_sql(statement, parameters)).scalar_one_or_none()
            yield lower, upper
            if upper is None:
                return
            lower = upper

    async def _chunk_is_equal(
        self, recheck: Recheck, number: int, lower: str | None, upper: str | None, tally: _Tally
    ) -> bool:
        """Compare count and hash of a chunk on both sides at once; counts the rows of the root table."""
        answers = await self._ask_both(recheck, number, lower, upper, Relation.chunk)
        if answers is None:
            keys = await self._ask_both(recheck, number, lower, upper, Relation.keys)
            counts = [len(rows) for rows in keys or ([], [])]
        else:
            counts = [rows[0][0] for rows in answers]
        if number == 0:
            tally.rows[self.direction.source] += counts[0]
            tally.rows[self.direction.target] += counts[1]
        return answers is not None and answers[0] == answers[1]

    async def _differing_keys(
        self, recheck: Recheck, number: int, lower: str | None, upper: str | None
    ) -> list[str]:
        """Keys of a chunk whose hashes differ, or that one side has alone; all, where a row cannot be read."""
        hashes = await self._ask_both(recheck, number, lower, upper, Relation.key_hashes)
        if hashes is not None:
            return sorted({row[0] for row in set(hashes[0]) ^ set(hashes[1])})
        keys = await self._ask_both(recheck, number, lower, upper, Relation.keys)
        return sorted({row[0] for rows in keys or () for row in rows})

    async def _ask_both(
        self,
        recheck: Recheck,
        number: int,
        lower: str | None,
        upper: str | None,
        question: Callable[[Relation, str], str],
    ) -> list[list[tuple[Any, ...]]] | None:
        """The rows that `question` has on source and target; None if a row of the range cannot be read."""

        async def ask(side: Side, relation: Relation) -> list[tuple[Any, ...]]:
            condition, parameters = _range(relation, lower, upper)
            async with self._runtime.engines[side].connect() as connection:
                rows = await connection.exec_driver_sql(question(relation, condition), parameters)
                return [tuple(row) for row in rows]

        source, target = recheck.statements.source[number], recheck.statements.target[number]
        try:
            return list(
                await asyncio.gather(ask(self.direction.source, source), ask(self.direction.target, target))
            )
        except DBAPIError as error:
            if classify(error) is not Trouble.REFUSED:
                raise
            return None

    async def _failed_keys(self, entity: EntityMapping) -> list[str]:
        """Keys of open failures: they differ even where the rows happen to be equal."""
        async with self._runtime.engines[self.direction.source].connect() as connection:
            rows = await connection.exec_driver_sql(
                f"SELECT key FROM {self._runtime.names.failure} WHERE entity = $1 AND state = 'open' ORDER BY key",
                (entity.name,),
            )
            return [row.key for row in rows]

    @staticmethod
    async def _judge(recheck: Recheck, keys: list[str], tally: _Tally, *, deadline: float) -> None:
        fresh = [key for key in keys if key not in tally.judged]
        for start in range(0, len(fresh), RECHECK_KEYS):
            part = fresh[start : start + RECHECK_KEYS]
            found, moving = await recheck.judge(part, patience_seconds=deadline - time.monotonic())
            tally.moving += len(moving)
            tally.judged.update(moving, (mismatch.key for mismatch in found))
            for mismatch in found:
                tally.kinds[mismatch.kind] += 1
                if len(tally.mismatches) < MISMATCHES_LISTED:
                    tally.mismatches.append(mismatch)


def _range(relation: Relation, lower: str | None, upper: str | None) -> tuple[str, tuple[str, ...]]:
    parameters = tuple(bound for bound in (lower, upper) if bound is not None)
    numbers = iter(range(1, 3))
    condition = relation.between(
        lower=f"${next(numbers)}" if lower is not None else None,
        upper=f"${next(numbers)}" if upper is not None else None,
    )
    return condition, parameters


async def validate_periodically(runtime: ServiceRuntime, stop: asyncio.Event) -> None:
    """Validate in the background every `SYNC_INTERVAL` seconds until `stop`; trouble is logged and tried again."""
    while not stop.is_set():
        try:
            async with asyncio.timeout(runtime.settings.sync_interval_seconds):
                await stop.wait()
        except TimeoutError:
            if runtime.settings.validate_sync and runtime.phase in _COMPARED:
                await _validate_once(runtime)


_COMPARED = frozenset(phase for phase in Phase if phase.policy.dual)


async def _validate_once(runtime: ServiceRuntime) -> None:
    try:
        report = await SyncValidator(runtime).run()
    except Exception as error:
        if not is_database_error(error) and not isinstance(error, TandemError):
            raise
        log.warning("validation_failed", service=runtime.service, error=describe(error))
        return
    for entity in report.entities:
        level = "info" if entity.verdict is Verdict.EQUAL else "warning"
        getattr(log, level)(
            "entity_validated",
            service=runtime.service,
            entity=entity.entity,
            verdict=entity.verdict.value,
            mismatches=entity.missing_in_new + entity.missing_in_legacy + entity.different,
        )
