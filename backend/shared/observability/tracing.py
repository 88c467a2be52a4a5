"""Spans: what a process tells of its work, as parts of a trace that may cross processes (OpenTelemetry, W3C Trace Context).

Off unless an endpoint is set, and then nothing of the SDK is imported: `span` gives the same empty context each time. Names are of
a closed set. Attributes hold names, keys and counts, never values: what is sent is decided in `open_telemetry.py`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from enum import StrEnum
from typing import Any, Protocol

from backend.shared.domain.errors import ConfigurationError
from backend.shared.setting_values import http_url

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Where spans are sent; the first that is set holds. All other variables of OpenTelemetry's keep their meaning."""
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"

Attributes = Mapping[str, str | int | Sequence[str]]
TraceContext = Mapping[str, str]
"""`traceparent` and `tracestate`; empty where there is no trace."""


class SpanKind(StrEnum):
    """What a span is to others."""

    INTERNAL = "internal"
    PRODUCER = "producer"
    CONSUMER = "consumer"


class Span(Protocol):
    """One piece of work."""

    def note(self, attributes: Attributes) -> None:
        """Say more of it."""
        ...

    def failed(self, kind: str) -> None:
        """It came to nothing; `kind` is the type of the error, never its text."""
        ...


class Tracing(Protocol):
    """Whoever makes spans, for the whole process."""

    provider: Any
    """OpenTelemetry's `TracerProvider`, for libraries that trace by themselves."""

    def span(
        self, name: str, *, kind: SpanKind, parent: TraceContext | None, root: bool, attributes: Attributes
    ) -> AbstractContextManager[Span]:
        """See `span`."""
        ...

    def trace(self) -> dict[str, str]:
        """See `current_trace`."""
        ...

    async def close(self) -> None:
        """Send what is left, for a few seconds at most, and end."""
        ...


class _NoSpan:
    def note(self, attributes: Attributes) -> None:
        """Nothing."""

    def failed(self, kind: str) -> None:
        """Nothing."""


_NOTHING: AbstractContextManager[Span] = nullcontext(_NoSpan())
_tracing: Tracing | None = None


def span(
    name: str,
    attributes: Attributes,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    parent: TraceContext | None = None,
    root: bool = False,
) -> AbstractContextManager[Span]:
    """For `with`: the body is this piece of work. What it raises marks the span as failed, with the error's type alone.

    It is part of the trace of `parent`: beneath the current span where that is in this trace, else beneath `parent`, with a
    link to the current one. Without a `parent`, or with one that cannot be read, it is beneath the current span; with `root`
    it begins a trace.
    """
    if _tracing is None:
        return _NOTHING
    return _tracing.span(name, kind=kind, parent=parent, root=root, attributes=attributes)


def current_trace() -> TraceContext:
    """What makes another piece of work a child of the current span, wherever it is done."""
    return {} if _tracing is None else _tracing.trace()


def tracing_provider() -> Any:
    """OpenTelemetry's `TracerProvider`; None where this process does not trace."""
    return None if _tracing is None else _tracing.provider


def use_tracing(tracing: Tracing | None) -> None:
    """From now on this process traces so. Whoever made it closes it."""
    global _tracing  # noqa: PLW0603 - a process has one
    _tracing = tracing


def start_tracing(service: str) -> Tracing | None:
    """Begin, if the environment asks for it: what has begun, to be ended by `stop_tracing`; None for nothing.

    A process that traces already goes on as it does. `OTEL_SERVICE_NAME` wins over `service`. Connects to nothing: an endpoint
    that is away, or hangs, is found out in the background, costs spans, and nothing else. Raises `ConfigurationError`.
    """
    variable = _endpoint()
    if variable is None or _tracing is not None:
        return None
    http_url(os.environ, variable, of="whoever collects traces")
    _check_protocol()
    try:
        from .open_telemetry import sending  # noqa: PLC0415 - the extra may not be there
    except ImportError as error:
        raise ConfigurationError(
            "is set, and what traces is not installed: install the extra 'tracing'", variable=variable
        ) from error
    started: Tracing = sending(service, variable=variable)
    use_tracing(started)
    return started


async def stop_tracing(started: Tracing | None) -> None:
    """End what `start_tracing` has begun, if anything: what is left is sent, for a few seconds at most."""
    if started is not None:
        use_tracing(None)
        await started.close()


@asynccontextmanager
async def traced(service: str) -> AsyncIterator[None]:
    """`start_tracing` and `stop_tracing` round the body."""
    started = start_tracing(service)
    try:
        yield
    finally:
        await stop_tracing(started)


def _endpoint() -> str | None:
    """The variable that says where to, unless another one says that nothing is to be traced."""
    if _text("OTEL_SDK_DISABLED").lower() == "true" or _text("OTEL_TRACES_EXPORTER").lower() == "none":
        return None
    return next((name for name in ENDPOINTS if _text(name)), None)


def _check_protocol() -> None:
    exporter = _text("OTEL_TRACES_EXPORTER").lower()
    if exporter not in ("", "otlp"):
        raise ConfigurationError("must be otlp or none", variable="OTEL_TRACES_EXPORTER")
    variable = next((name for name in _PROTOCOLS if _text(name)), None)
    if variable is not None and _text(variable).lower() != _PROTOCOL:
        raise ConfigurationError(f"must be {_PROTOCOL}", variable=variable)


def _text(variable: str) -> str:
    return os.environ.get(variable, "").strip()
