"""Asks another service over HTTP: with a deadline, a circuit breaker, and the id of the request that asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TypeVar

import httpx
import structlog
from pydantic import ValidationError

from backend.shared.call_breaker import CallBreaker, CallRefusedError
from backend.shared.domain.errors import AwayError
from backend.shared.observability.context import current_request_id
from backend.shared.observability.middleware import REQUEST_ID_HEADER

MAX_CONNECTIONS = 50
DEFAULT_TIMEOUT_SECONDS = 2.0

T = TypeVar("T")
log = structlog.get_logger(__name__)


class ServiceAwayError(AwayError):
    """The other service does not answer, or not with anything that could be used."""


class ServiceClient:
    """Reads from the service `name` at `base_url`. Connects to nothing before the first call; whoever makes it closes it.

    A call waits no longer than `timeout_seconds` for a connection and for an answer, and no longer than twice that in all.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        breaker: CallBreaker | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.name = name
        self.breaker = breaker or CallBreaker(name)
        self._deadline_seconds = 2 * timeout_seconds
        self._client = httpx.AsyncClient(
            base_url=base_url,
            timeout=timeout_seconds,
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS),
            transport=transport,
            trust_env=False,
        )

    async def get(
        self,
        path: str,
        read: Callable[[httpx.Response], T],
        *,
        params: Mapping[str, str] | None = None,
        token: str | None = None,
    ) -> T:
        """What `read` makes of the answer, asked for with the caller's `token`.

        Raises `ServiceAwayError` for no answer and for a 5xx, and where `read` raises pydantic's or httpx's errors: what comes is of
        no use then. Anything else that `read` raises comes out unchanged, and does not count against the service.
        """
        try:
            with self.breaker.call(ServiceAwayError):
                return await self._ask(path, read, params or {}, token)
        except CallRefusedError as error:
            raise ServiceAwayError(self._unavailable) from error

    async def probe(self) -> None:
        """For `/readyz`: raises when the last calls failed. Makes none itself."""
        if self.breaker.is_open:
            raise ServiceAwayError(self._unavailable)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    @property
    def _unavailable(self) -> str:
        return f"the {self.name} service does not answer now"

    async def _ask(
        self, path: str, read: Callable[[httpx.Response], T], params: Mapping[str, str], token: str | None
    ) -> T:
        try:
            async with asyncio.timeout(self._deadline_seconds):
                response = await self._get(path, params, token)
            if response.is_server_error:
                response.raise_for_status()
            return read(response)
        except (httpx.HTTPError, TimeoutError, ValidationError) as error:
            status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
            log.warning("service_not_heard", callee=self.name, error_type=type(error).__name__, status=status)
            raise ServiceAwayError(self._unavailable) from error

    async def _get(self, path: str, params: Mapping[str, str], token: str | None) -> httpx.Response:
        request_id = current_request_id()
        headers = {REQUEST_ID_HEADER: request_id} if request_id else {}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        try:
            return await self._client.get(path, params=params, headers=headers)
        except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
            # A connection that was kept open may have been closed at the other end in the meantime. Asking is harmless.
            return await self._client.get(path, params=params, headers=headers)
