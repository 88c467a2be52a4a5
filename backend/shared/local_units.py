"""Runs units of work of a service with one database: begin, the unit, commit; again after what leaves nothing behind."""

from __future__ import annotations

from typing import Final, TypeVar
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from backend.shared.database import distrust_pool
from backend.shared.domain.errors import outcome_unknown
from backend.shared.domain.isolation import Isolation
from backend.shared.domain.mapping import EntityCatalog
from backend.shared.domain.phases import Side
from backend.shared.observability.tracing import span
from backend.shared.stores.errors import is_connection_loss, is_database_error, says_nothing_of_a_commit
from backend.shared.unit_of_work import UnitOfWork
from backend.shared.unit_repeats import repeat
from backend.shared.units import Unit

T = TypeVar("T")
_NO_ENTITIES: Final = EntityCatalog(())


class LocalUnits:
    """Units of work in one PostgreSQL database."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    async def __call__(
        self,
        operation: str,
        unit: Unit[T],
        *,
        isolation: Isolation = Isolation.READ_COMMITTED,
    ) -> T:
        """Run `unit` in one transaction; answers what it answers.

        Deadlock, serialization failure and a connection lost before COMMIT are repeated a bounded number of times, with
        jittered back-off: `unit` must have no effect outside of its transaction. Raises `SideError` for trouble with the
        database, and says so where the answer to COMMIT was lost; what `unit` raises otherwise comes out unchanged.
        """

        async def attempt() -> T:
            async with AsyncSession(self.engine, expire_on_commit=False) as session:
                if isolation is not Isolation.READ_COMMITTED:
                    await session.connection(execution_options={"isolation_level": isolation.value})
                work = UnitOfWork(session, side=Side.NEW, catalog=_NO_ENTITIES, request_id=uuid4().hex)
                result = await unit(work)
                work.check()
                await session.flush()
                await self._commit(session)
                return result

        with span(f"unit {operation}", {"tandem.operation": operation}):
            return await repeat(attempt, engine=self.engine, side=Side.NEW)

    async def _commit(self, session: AsyncSession) -> None:
        try:
            await session.commit()
        except Exception as error:
            if not is_database_error(error) or not says_nothing_of_a_commit(error):
                raise
            if is_connection_loss(error):
                distrust_pool(self.engine)
            raise outcome_unknown(Side.NEW) from error
