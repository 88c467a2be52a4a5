"""The shop as its customers and its staff reach it: over HTTP, with every answer counted."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import cycle
from types import TracebackType
from typing import Any, Self

import httpx

from backend.shared.domain.outages import Outage

from .request_log import Request, RequestLog

REQUEST_SECONDS = 15.0
CONNECT_SECONDS = 10.0
"""A server that is gone refuses at once; so long may one, or this process, stand still without that being its failure."""
KEEP_ALIVE_SECONDS = 2.0
"""Less than the services' own 5 s: no request goes out over a connection that is being closed as idle."""
_HELD = "while a killed process held the document"
_EXCUSED = frozenset({"503 during a fault", "504 during a fault", f"503 {_HELD}"})


class Outcome(StrEnum):
    """What the caller of a request knows in the end."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    """4xx: nothing was done."""
    NOT_SENT = "not_sent"
    """Nobody listened: nothing was done."""
    IN_DOUBT = "in_doubt"
    """5xx, or the connection broke: it was done or not."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How a request ended. Times are seconds of the machine's clock; `status` is 0 where no answer came."""

    outcome: Outcome
    status: int
    body: Any
    started_at: float
    ended_at: float

    @property
    def ok(self) -> bool:
        """Whether it was done."""
        return self.outcome is Outcome.ACKNOWLEDGED

    @property
    def acknowledged_at(self) -> float | None:
        """When it was known to be done."""
        return self.ended_at if self.ok else None


@dataclass(kw_only=True)
class HttpTally:
    """What has been answered so far. A server error counts as one of a fault while a fault was on, or just over."""

    requests: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    broken_connections: int = 0
    refused_connections: int = 0
    server_errors: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    @property
    def server_error_count(self) -> int:
        """All answers from 500 on."""
        return self.server_errors.total()

    @property
    def unexcused_count(self) -> int:
        """Server errors but for 503 and 504 during a fault, and what that left held: nobody should ever see one."""
        return sum(count for reason, count in self.server_errors.items() if reason not in _EXCUSED)

    def quantile_seconds(self, share: float) -> float | None:
        """The time in which `share` of the requests that were answered ended."""
        if not self.seconds:
            return None
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "requests": self.requests,
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "server_errors": dict(self.server_errors),
            "broken_connections": self.broken_connections,
            "refused_connections": self.refused_connections,
            "p50_seconds": _rounded(self.quantile_seconds(0.5)),
            "p99_seconds": _rounded(self.quantile_seconds(0.99)),
        }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)


class Shop:
    """One HTTP client for all workers. `fault_is_on` says whether a fault excuses a 503 or 504 just now.

    `urls` are those of a service's replicas; requests go to one after the other. `log` holds when each began and ended.
    `documents_are_held` says whether a killed process may still hold what it was writing: that excuses a write conflict.
    """

    def __init__(
        self,
        urls: Mapping[str, Sequence[str]],
        *,
        connections: int,
        fault_is_on: Callable[[], bool] = lambda: False,
        documents_are_held: Callable[[], bool] = lambda: False,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.tally = HttpTally()
        self.log = RequestLog()
        self._under_way: set[asyncio.Future[None]] = set()
        self._urls = {service: cycle(replicas) for service, replicas in urls.items()}
        self._fault_is_on = fault_is_on
        self._documents_are_held = documents_are_held
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(REQUEST_SECONDS, connect=CONNECT_SECONDS),
            limits=httpx.Limits(
                max_connections=connections,
                max_keepalive_connections=connections,
                keepalive_expiry=KEEP_ALIVE_SECONDS,
            ),
            trust_env=False,
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def call(
        self,
        method: str,
        service: str,
        path: str,
        *,
        token: str | None = None,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request, once. Never raises for what the network or the server does."""
        began = time.monotonic()
        sent = {**(headers or {}), **({"Authorization": f"Bearer {token}"} if token else {})}
        over = asyncio.get_running_loop().create_future()
        self._under_way.add(over)
        try:
            answer = await self._send(method, service, path, headers=sent, body=body, query=query)
        finally:
            self._under_way.discard(over)
            over.set_result(None)
        failed = answer.outcome in (Outcome.NOT_SENT, Outcome.IN_DOUBT)
        self.log.note(Request(service=service, began=began, ended=time.monotonic(), failed=failed))
        return answer

    async def answered(self) -> None:
        """Wait until every request that is under way now is over."""
        await asyncio.gather(*self._under_way)

    async def _send(
        self,
        method: str,
        service: str,
        path: str,
        *,
        headers: Mapping[str, str],
        body: Mapping[str, Any] | None,
        query: Mapping[str, str | int] | None,
    ) -> Answer:
        self.tally.requests += 1
        started_at = time.time()
        clock = time.perf_counter()
        try:
            response = await self._client.request(
                method, f"{next(self._urls[service])}{path}", headers=headers, json=body, params=query
            )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout):
            self.tally.refused_connections += 1
            return _unanswered(Outcome.NOT_SENT, started_at)
        except httpx.HTTPError:
            self.tally.broken_connections += 1
            return _unanswered(Outcome.IN_DOUBT, started_at)
        self.tally.seconds.append(time.perf_counter() - clock)
        body = _body(response)
        self._count(response.status_code, body)
        return Answer(
            outcome=_outcome(response.status_code),
            status=response.status_code,
            body=body,
            started_at=started_at,
            ended_at=time.time(),
        )

    def _count(self, status: int, body: Any) -> None:
        self.tally.statuses[status] += 1
        if status >= httpx.codes.INTERNAL_SERVER_ERROR:
            self.tally.server_errors[f"{status} {self._when(body)}"] += 1

    def _when(self, body: Any) -> str:
        if self._fault_is_on():
            return "during a fault"
        contended = isinstance(body, dict) and body.get("outage") == Outage.CONTENDED.value
        return _HELD if contended and self._documents_are_held() else "without a fault"


def _unanswered(outcome: Outcome, started_at: float) -> Answer:
    return Answer(outcome=outcome, status=0, body=None, started_at=started_at, ended_at=time.time())


def _outcome(status: int) -> Outcome:
    if httpx.codes.is_success(status):
        return Outcome.ACKNOWLEDGED
    return Outcome.REFUSED if httpx.codes.is_client_error(status) else Outcome.IN_DOUBT


def _body(response: httpx.Response) -> Any:
    if not response.content:
        return None
    try:
        return response.json()
    except ValueError:
        return None
