"""What an incremental validation costs by the side of a full one, over 1,000,000 rows of which 1,000 have changed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from statistics import median

from rich.console import Console

from backend.shared import DualWriteManager, EntityMapping, Key, UnitOfWork
from backend.shared.observability.labels import Verdict
from backend.shared.sync_validator import SyncValidator
from backend.shared.validation.report import ValidationReport
from benchmarks.report import Result
from benchmarks.seven_columns import ROWS, create, entity, fill
from benchmarks.stack import Stack, run_sql

CHANGED = 1_000
FULL_ROUNDS = 5
CHANGED_ROUNDS = 20
_ROW = entity("checked_old", "checked_new")


class CheckedManager(DualWriteManager):
    """A service with one large table of seven columns, the same on both sides."""

    service = "bench_checked"

    @classmethod
    def entities(cls) -> Sequence[EntityMapping]:
        return (_ROW,)

    async def write_probe(self, work: UnitOfWork) -> tuple[str, Key]:
        raise NotImplementedError


async def measure_validate(stack: Stack, console: Console) -> list[Result]:
    """Seconds of a full run, and of an incremental one after 1,000 rows all over the table were changed and carried."""
    console.print(f"  filling both sides with {ROWS:,} rows", style="dim")
    sides = ((stack.legacy_url, "checked_old"), (stack.new_url, "checked_new"))
    await asyncio.gather(
        *(run_sql(url, create(table), fill(table), "VACUUM (FREEZE, ANALYZE)") for url, table in sides)
    )
    manager = stack.manager_of(CheckedManager, batch_size=CHANGED)
    try:
        await manager.install()
        await manager.start()
        validator = SyncValidator(manager.runtime)
        full = [await _timed(validator, changed=False, keys=0) for _ in range(FULL_ROUNDS)]
        await run_sql(
            stack.legacy_url, f"UPDATE checked_old SET note = 'changed' WHERE id % {ROWS // CHANGED} = 0"
        )
        if not await manager.relay().drain(timeout_seconds=30):
            raise RuntimeError("the changes were not carried")
        changed = [await _timed(validator, changed=True, keys=CHANGED) for _ in range(CHANGED_ROUNDS)]
    finally:
        await manager.close()
    return [
        Result(name="validate.full_seconds", value=median(full), unit="s"),
        Result(
            name="validate.changed_seconds",
            value=median(changed),
            unit="s",
            peer="full run",
            peer_value=median(full),
            ratio=median(changed) / median(full),
            goal="ratio <= 0.02",
        ),
    ]


async def _timed(validator: SyncValidator, *, changed: bool, keys: int) -> float:
    started = time.perf_counter()
    report: ValidationReport = await validator.run(changed=changed)
    elapsed = time.perf_counter() - started
    if report.verdict is not Verdict.EQUAL or report.entities[0].keys_changed != keys:
        raise RuntimeError(f"not what was to be measured: {report.verdict_text}")
    return elapsed
