"""A circuit breaker for calls to another service: after some failures in a row nobody waits for it any more."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

log = structlog.get_logger(__name__)


class CallRefusedError(Exception):
    """The breaker is open: the call was not made."""


class CallBreaker:
    """Opens after `threshold` failures in a row; after `open_seconds` one call at a time may try again.

    The first that succeeds closes it.
    """

    def __init__(
        self,
        name: str,
        *,
        threshold: int = 5,
        open_seconds: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._threshold = threshold
        self._open_seconds = open_seconds
        self._clock = clock
        self._failures = 0
        self._closed_at: float | None = None
        self._trying = False

    @property
    def is_open(self) -> bool:
        """Whether the last calls failed."""
        return self._failures >= self._threshold

    @contextmanager
    def call(self, *failures: type[Exception]) -> Iterator[None]:
        """One call. Raises CallRefusedError instead of letting it be made; `failures` out of it count against it."""
        trial = self._enter()
        try:
            yield
        except failures:
            self._failed()
            raise
        else:
            self._succeeded()
        finally:
            if trial:
                self._trying = False

    def _enter(self) -> bool:
        if not self.is_open:
            return False
        if self._trying or self._clock() < (self._closed_at or 0.0):
            raise CallRefusedError(f"{self.name} did not answer the last {self._failures} calls")
        self._trying = True
        return True

    def _failed(self) -> None:
        self._failures += 1
        if self.is_open:
            if self._failures == self._threshold:
                log.warning("call_breaker_opened", callee=self.name)
            self._closed_at = self._clock() + self._open_seconds

    def _succeeded(self) -> None:
        if self.is_open:
            log.warning("call_breaker_closed", callee=self.name)
        self._failures = 0
