"""Runs units of work: what every kind of side does for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from backend.shared.domain.isolation import Isolation
from backend.shared.unit_of_work import UnitOfWork

T = TypeVar("T")
Unit = Callable[[UnitOfWork], Awaitable[T]]


@dataclass(frozen=True, kw_only=True)
class OwnJournal:
    """Journal rows of one transaction: their numbers, and their keys by entity."""

    ids: Sequence[Any]
    keys: Mapping[str, Sequence[str]]


class Transaction(Protocol):
    """One transaction of a unit, on whatever kind of side: rolled back on leaving unless it was committed inside."""

    commit_sent: bool
    """Whether a COMMIT was sent: from then on a lost connection says nothing of what became of it."""
    connection: Any
    """Its connection: after the commit, for what remains to be done."""

    @property
    def work(self) -> UnitOfWork:
        """What the unit works with."""
        ...

    async def watch_journal(self) -> None:
        """To be called before the unit, if `own_journal` is to be asked."""
        ...

    async def own_journal(self) -> OwnJournal:
        """The journal rows that this transaction has written, those of keys touched included, which are written now."""
        ...

    async def commit(self) -> None:
        """Commit. Returns only if it is durable."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Runner(Protocol):
    """Runs units of work on one side; see `UnitRunner`."""

    async def repeat(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Call `attempt` until it goes through, while its failures are of the kind that leaves nothing behind."""
        ...

    def transaction(
        self,
        *,
        request_id: str,
        journals_touched: bool = False,
        only_reads: bool = False,
        even_if_closed: bool = False,
        isolation: Isolation = Isolation.READ_COMMITTED,
    ) -> Transaction:
        """A transaction, to be entered with `async with`."""
        ...

    def carrying(self, connection: Any, *, request_id: str) -> AbstractAsyncContextManager[Any]:
        """A unit of work in the open transaction of `connection`, which has entered as a carry; all is sent at the end.

        It waits for nobody's locks for long.
        """
        ...
