"""The modes with a single store: a transaction for each unit, run again where that helps."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import structlog

from backend.shared.pausing import backoff

from ..ports import Transactions, Unit

T = TypeVar("T")

MAX_RUNS = 5
_FIRST_WAIT_SECONDS = 0.04
_MOST_WAIT_SECONDS = 1.0

log = structlog.stdlib.get_logger(__name__)


class SingleStore:
    """Runs units on one store. Deadlocks and the like are run again, `MAX_RUNS` times in all, with jittered back-off."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    async def write(self, operation: str, unit: Unit[T]) -> T:
        return await self._run(operation, unit, only_reads=False)

    async def read(
        self,
        operation: str,
        unit: Unit[T],
        *,
        entity: str | None = None,  # noqa: ARG002 - there is only one store to read
        key: str | None = None,  # noqa: ARG002 - the same
    ) -> T:
        return await self._run(operation, unit, only_reads=True)

    async def _run(self, operation: str, unit: Unit[T], *, only_reads: bool) -> T:
        for run in range(1, MAX_RUNS + 1):
            try:
                async with self._transactions.begin(only_reads=only_reads) as repositories:
                    return await unit(repositories)
            except Exception as error:
                explained = self._transactions.explain(error)
                if explained is None:
                    raise
                if run == MAX_RUNS or not self._transactions.is_repeatable(error):
                    raise explained from error
                log.info("unit_repeated", operation=operation, run=run, error=str(explained))
            await asyncio.sleep(backoff(run, first=_FIRST_WAIT_SECONDS, most=_MOST_WAIT_SECONDS))
        raise AssertionError("unreachable: the last run returns or raises")

    async def start(self) -> None:
        try:
            await self._transactions.start()
        except Exception as error:
            raise self._explained(error) from error

    async def check(self) -> None:
        try:
            await self._transactions.check()
        except Exception as error:
            raise self._explained(error) from error

    async def close(self) -> None:
        await self._transactions.close()

    def _explained(self, error: Exception) -> Exception:
        return self._transactions.explain(error) or error
