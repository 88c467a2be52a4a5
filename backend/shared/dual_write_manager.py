"""`DualWriteManager`: the front door. A service subclasses it, names its entities and writes its operations."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from types import EllipsisType
from typing import Any, ClassVar, TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from backend.shared.background_validation import validate_periodically
from backend.shared.database import DatabaseLimits
from backend.shared.domain.errors import ConfigurationError
from backend.shared.domain.isolation import Isolation
from backend.shared.domain.mapping import EntityCatalog, EntityMapping, Key
from backend.shared.domain.phases import Capture, Phase, Side
from backend.shared.domain.results import DualWriteResult, Exercised
from backend.shared.dual_write_admin import AdminOperations
from backend.shared.dual_write_config import DualWriteSettings
from backend.shared.events.tables import EventRoom
from backend.shared.gap_backfill import mend_gaps
from backend.shared.journal.carrier import Hook, no_hook
from backend.shared.journal.install import first_phase
from backend.shared.observability.metrics import Metrics, default_metrics
from backend.shared.read_sides import Subject
from backend.shared.reads import ReadPath
from backend.shared.runtime import ServiceRuntime
from backend.shared.schema_version import check_schema_version
from backend.shared.stores.errors import is_connection_loss, is_database_error, to_side_error
from backend.shared.stores.mongo.limits import DocumentLimits
from backend.shared.stranded import StrandedKeys
from backend.shared.unit_of_work import UnitOfWork
from backend.shared.unit_runner import Unit
from backend.shared.writes import WritePath

T = TypeVar("T")
Url = str | EllipsisType | None


class DualWriteManager(AdminOperations):
    """Keeps one service's two databases the same, and says which one to believe.

    A subclass supplies `service`, `entities` and its operations, which call `write` with a unit of work. URLs and
    settings that are not given (or given as `...`) come from the environment. Nothing connects before the first
    operation or `start`; whoever makes a manager closes it.
    """

    capture: ClassVar[Capture] = Capture.TRIGGER
    """Who writes the journal; `Capture.UNIT` where the databases take no triggers, `Capture.STREAM` where other
    programs write to the MongoDB too."""
    migrations: ClassVar[Path | None] = None
    """The folder of the service's Alembic migrations, if it has any."""
    messages: ClassVar[EventRoom | None] = None
    """Where the service keeps its messages, if it has any: legacy is not let go of before those there are delivered."""

    def __init__(
        self,
        new_db_url: Url = None,
        legacy_db_url: Url = None,
        settings: DualWriteSettings | None = None,
        *,
        metrics: Metrics | None = None,
        limits: DatabaseLimits | None = None,
        document_limits: DocumentLimits | None = None,
        hook: Hook = no_hook,
    ) -> None:
        if self.messages is not None and self.capture is not Capture.TRIGGER:
            raise ConfigurationError(
                f"{self.service}: messages are carried by triggers, and there are none here"
            )
        settings = settings or DualWriteSettings.from_env(self.service.upper())
        if isinstance(new_db_url, str):
            settings = replace(settings, database_url=new_db_url)
        if isinstance(legacy_db_url, str):
            settings = replace(settings, legacy_database_url=legacy_db_url)
        self._settings = replace(settings, service=self.service)
        self._metrics = metrics or default_metrics()
        self._limits = limits or DatabaseLimits.from_env(self.service)
        self._document_limits = document_limits or DocumentLimits.from_env(self.service)
        self._hook = hook
        self.counted = True
        self._operations: set[str] = set()

    @classmethod
    @abstractmethod
    def entities(cls) -> Sequence[EntityMapping]:
        """What the service owns, and how each looks on both sides."""

    async def exercise(self) -> AsyncIterator[Exercised]:
        """Call each operation once, on entities made for it, which are removed in the end; for `test_dual_write`.

        A subclass yields an `Exercised` after each call. Without one of its own, the probe is written and removed.
        """
        made = await self.write("exercise", self.write_probe)
        entity, key = made.unwrap()
        yield Exercised(name="probe", result=made, keys=[(entity, key)])
        removed = await self.write("exercise", lambda work: work.delete(entity, key))
        yield Exercised(name="remove_probe", result=removed, keys=[(entity, key)])

    @classmethod
    def catalog(cls) -> EntityCatalog:
        """The entities, parents first."""
        return EntityCatalog(cls.entities())

    @property
    def runtime(self) -> ServiceRuntime:
        """The running parts: engines, breakers, relays."""
        return self._runtime

    @cached_property
    def _runtime(self) -> ServiceRuntime:
        runtime = ServiceRuntime(
            service=self.service,
            catalog=self.catalog(),
            settings=self._settings,
            metrics=self._metrics,
            limits=self._limits,
            document_limits=self._document_limits,
            capture=self.capture,
            messages=self.messages,
            hook=self._hook,
        )
        runtime.following.counted = self.counted
        return runtime

    @cached_property
    def _writes(self) -> WritePath:
        return WritePath(self.runtime)

    @cached_property
    def _reads(self) -> ReadPath:
        return ReadPath(self.runtime)

    @property
    def new_engine(self) -> AsyncEngine:
        """The engine of the new side."""
        return self.runtime.engines[Side.NEW]

    async def install(self) -> Phase:
        """Put journal, guards, marks and triggers into both sides; answers the phase. May be repeated."""
        phase, epoch, chosen = await first_phase(self.new_engine, self.runtime.names, self._settings.phase)
        for store in self.runtime.stores.values():
            await store.install(
                phase=phase, epoch=epoch, foreign_writes=chosen or self._settings.foreign_writes.value
            )
        return phase

    async def start(self, *, relay: bool = False) -> None:
        """Connect and check both sides; with `relay`, carry changes in this process too. May be repeated.

        Raises `SideError` for a database that is down, `ConfigurationError` for one that lacks what is needed.
        """
        await self.runtime.start()
        if relay and not self.runtime.relay_running:
            self.runtime.start_relay()
            if not self.runtime.both_sql:
                self.runtime.spawn(partial(StrandedKeys(self.runtime).run, self.runtime.stop))
            self.runtime.spawn(partial(validate_periodically, self.runtime, self.runtime.stop))
            self.runtime.spawn(partial(mend_gaps, self.runtime, self.runtime.stop))

    async def check_schema(self) -> None:
        """Raise `InstallationError` when the new side lacks a migration that this version needs."""
        if self.migrations is not None:
            await check_schema_version(self.new_engine, service=self.service, migrations=self.migrations)

    async def close(self) -> None:
        """Finish what is under way and let go of both databases. May be repeated; `start` begins anew."""
        if "_runtime" in self.__dict__:  # a manager whose URLs are wrong has none
            await self._writes.finish()
            await self._reads.finish()
            await self.runtime.close()

    async def write(
        self, operation: str, unit: Unit[T], *, isolation: Isolation = Isolation.READ_COMMITTED
    ) -> DualWriteResult[T]:
        """Run `unit` in one transaction on the authoritative side and see to the other side as the settings say.

        `unit` may be run again (deadlock, serialization failure, lost connection), each time in a fresh transaction: it
        must have no effect outside of it. A `ValidationError` raised inside comes out unchanged with nothing kept; trouble
        with a database comes as `success=False`. One of an `isolation` above the default is never run on the secondary
        side alone, whatever the settings say of a side that is away.
        """
        await self.start()
        if operation not in self._operations:
            self._operations.add(operation)
            self._metrics.declare(self.service, operations=[operation])
        return await self._writes.run(operation, unit, isolation=isolation)

    async def run_unit(self, operation: str, unit: Unit[T]) -> T:
        """`write`, for whoever takes messages in: trouble with a database is raised."""
        return (await self.write(operation, unit)).unwrap()

    async def batch(self, operations: Sequence[tuple[str, Unit[Any]]]) -> DualWriteResult[list[Any]]:
        """Run several units in one transaction: all of them or none. Answers their values in order."""

        async def together(work: UnitOfWork) -> list[Any]:
            return [await unit(work) for _, unit in operations]

        return await self.write("batch", together)

    async def read(
        self,
        unit: Unit[T],
        *,
        entity: str | None = None,
        key: Key | str | None = None,
        operation: str = "read",
    ) -> T:
        """Run a read-only unit on the side that phase and settings say; raises `SideError` if that does not answer.

        A read that is about one thing says so: with `entity` and the entity's `key` (a tuple), of that entity it must read
        nothing but that key. A `key` that is text is none of the entity's, but the same for the same thing each time, such
        as a user's id. By the key it is chosen which side answers while reads move to the new one; without a key it is
        always the authoritative side.

        All that `unit` reads is of one moment. It may be run several times, also after this has returned, and on either side: it must have no effect, use what
        `UnitOfWork.shape` gives, and answer the same for the same rows. Its answer is compared by value and type.
        """
        await self.start()
        subject = Subject.of(self.runtime.catalog, entity=entity, key=key)
        return await self._reads.run(unit, subject, operation=operation)

    @asynccontextmanager
    async def new_session(self) -> AsyncIterator[AsyncSession]:
        """A session on the new side in one transaction, for tables that are not dual-written.

        Raises `SideError` for trouble with the database; what the body raises otherwise comes out unchanged.
        """
        await self.start()
        breaker = self.runtime.breakers[Side.NEW]
        breaker.check()
        try:
            async with AsyncSession(self.new_engine, expire_on_commit=False) as session, session.begin():
                yield session
        except Exception as error:
            if not is_database_error(error):
                raise
            if is_connection_loss(error):
                breaker.failed()
            raise to_side_error(error, Side.NEW) from error
        breaker.succeeded()
