"""The use cases' store where the engine keeps two databases the same."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import structlog
from pymongo.errors import PyMongoError

from backend.shared import SideError, UnitOfWork
from backend.shared.stores.errors import describe, to_side_error
from backend.shared.stores.side import StoreKind

from ...ports import Unit
from ..mongo.indexes import create_indexes
from .errors import explain_side_error
from .repositories import repositories_of

if TYPE_CHECKING:
    from ...core.dual_write_manager import TaskDualWriteManager

T = TypeVar("T")

log = structlog.stdlib.get_logger(__name__)


class DualStore:
    """Runs units as the phase says: on the authoritative side, and sees to the other one. Owns the manager."""

    def __init__(self, manager: TaskDualWriteManager, *, run_relay: bool = True) -> None:
        self.manager = manager
        self._run_relay = run_relay

    async def write(self, operation: str, unit: Unit[T]) -> T:
        """See `TaskStore`. Trouble with a side is a SideError, which names it."""
        try:
            return (await self.manager.write(operation, _on_work(unit))).unwrap()
        except SideError as error:
            raise explain_side_error(error) from error

    async def read(
        self, operation: str, unit: Unit[T], *, entity: str | None = None, key: str | None = None
    ) -> T:
        """See `TaskStore`."""
        return await self.manager.read(
            _on_work(unit),
            entity=entity,
            key=(key,) if key is not None else None,
            operation=operation,
        )

    async def start(self) -> None:
        """Connect; nothing is carried before everything is known to be in place."""
        await self.manager.start()
        await self.manager.check_schema()
        await self._create_indexes()
        await self.manager.start(relay=self._run_relay)

    async def _create_indexes(self) -> None:
        """Make those of a side of documents, which no migration knows; a secondary that is away gets them another time."""
        for side, found in self.manager.runtime.stores.items():
            if found.kind is not StoreKind.MONGO:
                continue
            try:
                await create_indexes(cast("Any", found).collections.database)
            except PyMongoError as error:
                if side is self.manager.phase.policy.authoritative:
                    raise to_side_error(error, side) from error
                log.warning("indexes_not_made", side=side.value, error=describe(error))

    async def check(self) -> None:
        """Ask the authoritative side for a sign of life."""
        await self.manager.runtime.stores[self.manager.phase.policy.authoritative].ping()

    async def close(self) -> None:
        """Let go of both."""
        await self.manager.close()


def _on_work(unit: Unit[T]) -> Callable[[UnitOfWork], Awaitable[T]]:
    async def on_work(work: UnitOfWork) -> T:
        return await unit(repositories_of(work))

    return on_work
