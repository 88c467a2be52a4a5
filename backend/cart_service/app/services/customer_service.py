"""Who users are and whether they may shop: as the tokens that they brought have said, and as the auth service tells.

What tokens said is kept on the new side only, and what was told is read from whichever side has the authority. Both are a
help, not a need: when a side does not answer, the token at hand has to do.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from backend.shared import DualWriteManager, PermissionDeniedError, SideError, UnitOfWork

from ..entities import Customer
from ..legacy import USER_VIEW
from ..repositories import CustomerRepository, UserViewRepository

MAX_REMEMBERED = 10_000
MEMORY_SECONDS = 5.0
WAIT_SECONDS = 1.0

log = structlog.get_logger(__name__)


class CustomerService:
    """Keeps what tokens say of users on the new side, and what is known of them, for a few seconds, in this process.

    The latest word wins, be it a token or what the auth service told; of two of the same moment, the one that says that the
    user is not active. So what is told of her counts within `memory_seconds` of its being heard.
    """

    def __init__(
        self,
        manager: DualWriteManager,
        *,
        memory_seconds: float = MEMORY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._manager = manager
        self._memory_seconds = memory_seconds
        self._clock = clock
        self._memory: OrderedDict[str, tuple[Customer, float]] = OrderedDict()
        self._asked: set[asyncio.Task[Customer | None]] = set()
        self._late: asyncio.Task[Customer | None] | None = None

    async def see(self, told: Customer) -> Customer:
        """What is known of a user whose verified token says `told`, which is kept if it is news.

        Raises PermissionDeniedError when she is not active.
        """
        known = self._remembered(told) or await self._refreshed(told)
        if not known.is_active:
            raise PermissionDeniedError("this account is not active")
        return known

    async def find(self, user_id: str) -> Customer | None:
        """What is known of a user whose token is not at hand; None also when nobody answers."""
        return _later(await self._briefly(self._load(user_id)), await self._heard(user_id))

    async def aclose(self) -> None:
        """Give up what is under way."""
        for task in tuple(self._asked):
            task.cancel()
        await asyncio.gather(*self._asked, return_exceptions=True)

    def _remembered(self, told: Customer) -> Customer | None:
        """What this process knows, if nothing newer is to be had from the token or, lately, from the new side."""
        known, until = self._memory.get(told.user_id, (told, 0.0))
        return known if self._clock() < until and not _is_news(told, known) else None

    async def _refreshed(self, told: Customer) -> Customer:
        stored = await self._briefly(self._store(told))
        if stored is None:
            known, _ = self._memory.get(told.user_id, (told, 0.0))
            stored = told if _is_news(told, known) else known
        heard = await self._heard(told.user_id)
        known = heard if heard is not None and _is_news(heard, stored) else stored
        self._remember(known)
        return known

    async def _heard(self, user_id: str) -> Customer | None:
        """What the auth service has told of a user; None where it has not, or the side that knows does not answer."""

        async def unit(work: UnitOfWork) -> Customer | None:
            return await UserViewRepository(work).find(user_id)

        try:
            return await self._manager.read(
                unit, entity=USER_VIEW.name, key=(user_id,), operation="find_user_heard_of"
            )
        except SideError as error:
            log.warning("user_view_failed", error=str(error))
            return None

    async def _briefly(self, asking: Coroutine[Any, Any, Customer | None]) -> Customer | None:
        """What the new side says; None when it does not answer within a moment, or is late with an answer already."""
        if self._late is not None and not self._late.done():
            asking.close()
            return None
        task = asyncio.ensure_future(asking)
        self._asked.add(task)
        task.add_done_callback(self._finished)
        done, _ = await asyncio.wait({task}, timeout=WAIT_SECONDS)
        if not done:
            # Not cancelled: a server that hangs would hold up the rollback as well.
            self._late = task
            log.warning("customer_cache_late")
            return None
        return None if task.cancelled() or task.exception() else task.result()

    async def _load(self, user_id: str) -> Customer | None:
        async with self._manager.new_session() as session:
            return await CustomerRepository(session).find(user_id)

    async def _store(self, told: Customer) -> Customer:
        async with self._manager.new_session() as session:
            stored = await CustomerRepository(session).refresh(told)
        self._remember(stored)
        return stored

    def _remember(self, known: Customer) -> None:
        """Unless a later word was remembered meanwhile."""
        before, _ = self._memory.get(known.user_id, (known, 0.0))
        if _is_news(before, known):
            return
        self._memory[known.user_id] = (known, self._clock() + self._memory_seconds)
        self._memory.move_to_end(known.user_id)
        while len(self._memory) > MAX_REMEMBERED:
            self._memory.popitem(last=False)

    def _finished(self, task: asyncio.Task[Customer | None]) -> None:
        self._asked.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.warning("customer_cache_failed", error=str(error), error_type=type(error).__name__)


def _is_news(told: Customer, known: Customer) -> bool:
    if told.refreshed_at == known.refreshed_at:
        return known.is_active and not told.is_active
    return told.refreshed_at > known.refreshed_at


def _later(one: Customer | None, other: Customer | None) -> Customer | None:
    if one is None or other is None:
        return one or other
    return other if _is_news(other, one) else one
