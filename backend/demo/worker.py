"""What customers and staff have in common: one request at a time, and each write into the ledger."""

from __future__ import annotations

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from .ledger import Effect, Ledger, Write
from .shop import Answer, Outcome, Shop
from .turnstile import Turnstile

LONGEST_PAUSE_SECONDS = 0.25
NOBODY_LISTENS_SECONDS = 0.2
WRONG_ANSWERS_KEPT = 100
UNAUTHENTICATED = 401


@dataclass(kw_only=True)
class Market:
    """What all workers share. `wrong_answers` are those that contradict what the same worker was told before."""

    shop: Shop
    ledger: Ledger
    stop: asyncio.Event
    products: Sequence[int] = ()
    turnstile: Turnstile = field(default_factory=Turnstile)
    wrong_answers: list[str] = field(default_factory=list)
    wrong_answer_count: int = 0
    checked_reads: int = 0

    def complain(self, text: str) -> None:
        """Note an answer that cannot be right."""
        self.wrong_answer_count += 1
        self.shop.log.note_wrong_answer(time.monotonic())
        if len(self.wrong_answers) < WRONG_ANSWERS_KEPT:
            self.wrong_answers.append(text)


class Worker(ABC):
    """Acts until the market's stop, one request after the other."""

    source: str

    def __init__(self, market: Market, *, rng: random.Random) -> None:
        self.market = market
        self.rng = rng

    @abstractmethod
    async def act(self) -> None:
        """Do one thing."""

    @abstractmethod
    def forget_token(self) -> None:
        """Log in again before the next request: the token has expired."""

    async def run(self) -> None:
        """Act, with short pauses, until the stop."""
        while not self.market.stop.is_set():
            async with self.market.turnstile:
                await self.act()
            await self.pause(self.rng.uniform(0, LONGEST_PAUSE_SECONDS))

    async def pause(self, seconds: float) -> None:
        """Wait, but not beyond the stop."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.market.stop.wait(), seconds)

    async def ask(
        self,
        service: str,
        path: str,
        *,
        token: str | None = None,
        query: Mapping[str, str | int] | None = None,
    ) -> Any:
        """The body of a GET that was answered with 200; None otherwise."""
        answer = await self.market.shop.call("GET", service, path, token=token, query=query)
        await self._heed(answer)
        return answer.body if answer.ok else None

    async def write(
        self,
        operation: str,
        method: str,
        service: str,
        path: str,
        *,
        token: str | None = None,
        body: Mapping[str, Any] | None = None,
        effects: Callable[[Any], Sequence[Effect]],
        doubtful: Sequence[Effect] = (),
    ) -> Answer:
        """Send a write. In the ledger go `effects` of the answer's body, or, if nobody knows, `doubtful`."""
        answer = await self.market.shop.call(method, service, path, token=token, body=body)
        if answer.outcome in (Outcome.ACKNOWLEDGED, Outcome.IN_DOUBT):
            told = effects(answer.body) if answer.ok else doubtful
            self.market.ledger.note(
                Write(
                    source=self.source,
                    operation=operation,
                    started_at=answer.started_at,
                    acknowledged_at=answer.acknowledged_at,
                    effects=tuple(told),
                )
            )
        await self._heed(answer)
        return answer

    async def _heed(self, answer: Answer) -> None:
        if answer.status == UNAUTHENTICATED:
            self.forget_token()
        if answer.outcome in (Outcome.NOT_SENT, Outcome.IN_DOUBT):
            await self.pause(NOBODY_LISTENS_SECONDS)
