"""Asks a side what a read wants to know, and the journal whether something of that is on its way to the other side."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from sqlalchemy import Table

from backend.shared.domain.errors import ConfigurationError, NotFoundError, ValidationError
from backend.shared.domain.mapping import EntityCatalog, Key, encode_key
from backend.shared.domain.phases import Side
from backend.shared.observability.context import current_request_id
from backend.shared.runtime import ServiceRuntime
from backend.shared.stores.side import OnTheWay
from backend.shared.unit_runner import Unit

T = TypeVar("T")
OPEN_ROWS_MOST = 1_000
"""In a journal longer than this everything counts as on its way: nobody reads all of it for one read."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a read is about. `key` is an entity's key in canonical text if it `is_entity_key`, else any stable text."""

    entity: str | None = None
    key: str | None = None
    is_entity_key: bool = False

    @classmethod
    def of(cls, catalog: EntityCatalog, *, entity: str | None, key: Key | str | None) -> Subject:
        """Raises `ConfigurationError` for an entity that is not known, and for the key of none."""
        if entity is not None:
            entity = catalog[entity].name
        if key is None or isinstance(key, str):
            return cls(entity=entity, key=key)
        if entity is None:
            raise ConfigurationError(f"the key {encode_key(key)} needs its entity")
        return cls(entity=entity, key=encode_key(key), is_entity_key=True)


@dataclass(frozen=True, kw_only=True)
class Answer(Generic[T]):
    """What a unit answered on a side: a value, or the `ValidationError` that it raised."""

    side: Side
    value: T | None
    error: ValidationError | None
    shaped: frozenset[Table]
    """What the unit has asked for, as far as it went through the new side's shape."""

    @property
    def is_missing(self) -> bool:
        """Whether the unit found nothing."""
        return isinstance(self.error, NotFoundError) or (self.error is None and self.value is None)

    @property
    def is_empty(self) -> bool:
        """Whether the unit found nothing, or a list of nothing."""
        return self.is_missing or (self.error is None and self.value in ([], ()))

    def give(self) -> T:
        """The value; raises what the unit raised."""
        if self.error is not None:
            raise self.error
        return cast("T", self.value)


class SideReader:
    """Runs read-only units on either side."""

    def __init__(self, runtime: ServiceRuntime) -> None:
        self._runtime = runtime

    async def ask(self, unit: Unit[T], side: Side, *, even_if_closed: bool = False) -> Answer[T]:
        """Run `unit` on `side`. Raises `SideError`; `FencedError` if it is closed, unless that makes no difference."""
        runner = self._runtime.runners[side]

        async def attempt() -> Answer[T]:
            async with runner.transaction(
                request_id=current_request_id() or "", only_reads=True, even_if_closed=even_if_closed
            ) as transaction:
                value: T | None = None
                error: ValidationError | None = None
                try:
                    value = await unit(transaction.work)
                except ValidationError as raised:
                    error = raised
                return Answer(side=side, value=value, error=error, shaped=frozenset(transaction.work.shaped))

        return await runner.repeat(attempt)

    async def on_the_way(self, source: Side, subject: Subject, *, with_failures: bool = False) -> OnTheWay:
        """Look at the journal of `source`, in one statement. Raises `SideError`.

        A row of it ends after the target's commit. So whatever was committed on `source` before this and is not named is on
        the other side already; `with_failures` also names what could not be carried.
        """
        runner, store = self._runtime.runners[source], self._runtime.stores[source]

        async def attempt() -> OnTheWay:
            return await store.on_the_way(
                entity=subject.entity,
                key=subject.key if subject.is_entity_key else None,
                with_failures=with_failures,
                most=OPEN_ROWS_MOST,
            )

        return await runner.repeat(attempt)

    def entities(self, subject: Subject, shaped: Iterable[Table]) -> frozenset[str]:
        """The entities that a read is about, by what it says and by what its unit has asked for; none if nobody knows."""
        found = {self._runtime.catalog.owner_of(table).name for table in shaped}
        if subject.entity is not None and (found or subject.is_entity_key):
            found.add(subject.entity)
        return frozenset(found)
