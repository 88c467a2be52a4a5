"""Opens both sides of a service by their URLs: an SQL database or a MongoDB, its breaker, and what runs units of work there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from backend.shared.breaker import CircuitBreaker
from backend.shared.database import DatabaseLimits, create_side_engine
from backend.shared.domain.errors import ConfigurationError
from backend.shared.domain.mapping import EntityCatalog
from backend.shared.domain.phases import Capture, Phase, Side
from backend.shared.dual_write_config import DualWriteSettings, ForeignWrites
from backend.shared.journal.carrier import Hook
from backend.shared.stores.mongo.limits import DocumentLimits
from backend.shared.stores.mongo.urls import is_mongo_url
from backend.shared.stores.postgres.names import EngineNames
from backend.shared.stores.postgres.side import PostgresSide
from backend.shared.stores.side import SideStore
from backend.shared.unit_runner import Runner, UnitRunner

NO_DATABASE = "postgresql://not-set@not-set.invalid/not-set"
"""Stands for a legacy database that was let go: nobody connects to it."""
URL_VARIABLES = {Side.LEGACY: "LEGACY_DATABASE_URL", Side.NEW: "DATABASE_URL"}


@dataclass(frozen=True, kw_only=True)
class SideOpener:
    """What both sides are opened with. Nothing connects yet.

    `open` raises `ConfigurationError` for a URL that is missing or of a kind that does not fit.
    """

    names: EngineNames
    catalog: EntityCatalog
    settings: DualWriteSettings
    capture: Capture
    limits: DatabaseLimits
    document_limits: DocumentLimits
    hook: Hook

    def open(self) -> dict[Side, SideStore]:
        """Both sides."""
        urls = {Side.LEGACY: self.settings.legacy_database_url, Side.NEW: self.settings.database_url}
        return {side: self._store(side, url) for side, url in urls.items()}

    def runner(self, store: SideStore, breaker: CircuitBreaker) -> Runner:
        """What runs units of work on the side."""
        if isinstance(store, PostgresSide):
            return UnitRunner(
                store.engine,
                store.side,
                names=self.names,
                catalog=self.catalog,
                breaker=breaker,
                capture=self._in_sql,
            )
        from backend.shared.document_units import document_runner  # noqa: PLC0415 - the driver is an extra

        found: Any = store
        return document_runner(found, catalog=self.catalog, breaker=breaker, hook=self.hook)

    def not_set(self, side: Side) -> ConfigurationError:
        """What to raise for a side whose URL is missing."""
        variable = URL_VARIABLES[side]
        prefixed = f"{self.names.service.upper()}_{variable}"
        return ConfigurationError(f"is not set, nor is {prefixed}", variable=variable)

    def _store(self, side: Side, url: str) -> SideStore:
        if not url and not self._may_lack(side):
            raise self.not_set(side)
        application = f"tandem-{self.names.service}"
        if is_mongo_url(url):
            return self._document_store(side, url, application=application)
        engine = create_side_engine(
            url or NO_DATABASE, application_name=application, variable=URL_VARIABLES[side], limits=self.limits
        )
        return PostgresSide(engine, side, names=self.names, catalog=self.catalog, capture=self._in_sql)

    def _document_store(self, side: Side, url: str, *, application: str) -> SideStore:
        variable = URL_VARIABLES[side]
        if side is Side.NEW:
            raise ConfigurationError(
                "must be a PostgreSQL database: it keeps the phase row", variable=variable
            )
        if self.settings.foreign_writes is ForeignWrites.REJECT:
            raise ConfigurationError(
                "is reject, which a MongoDB cannot: it has nothing that could refuse another program's write; use report",
                variable="DUAL_WRITE_FOREIGN_WRITES",
            )
        if lacking := [entity.name for entity in self.catalog.ordered if entity.document is None]:
            raise ConfigurationError(
                f"is a MongoDB, and {lacking[0]} has no document's shape", variable=variable
            )
        from backend.shared.stores.mongo.side import open_mongo_side  # noqa: PLC0415 - the same

        return open_mongo_side(
            url,
            side,
            names=self.names,
            catalog=self.catalog,
            limits=self.document_limits,
            application_name=application,
            variable=variable,
            hook=self.hook,
            streams=self.capture is Capture.STREAM,
        )

    def _may_lack(self, side: Side) -> bool:
        """Whether it may turn out that `side` is not needed: legacy, when the phase row says that it was let go."""
        return side is Side.LEGACY and self.settings.phase is Phase.COMPLETE

    @property
    def _in_sql(self) -> Capture:
        return Capture.UNIT if self.capture is Capture.UNIT else Capture.TRIGGER


def engines_of(stores: dict[Side, SideStore]) -> dict[Side, AsyncEngine]:
    """The engines of the sides that are SQL databases."""
    return {side: store.engine for side, store in stores.items() if isinstance(store, PostgresSide)}
