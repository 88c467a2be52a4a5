"""Spans by OpenTelemetry's SDK. Imported only where a process traces: it is of the extra `tracing`."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from importlib.metadata import version

import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.trace.status import Status
from opentelemetry.util import types

from backend.shared.domain.errors import ConfigurationError
from backend.shared.observability.seldom import Seldom

from .tracing import Attributes, SpanKind, TraceContext

CLOSE_SECONDS = 3.0
"""The end of a process waits no longer for whoever collects its spans."""
_said = Seldom(60.0)
_W3C = TraceContextTextMapPropagator()
_KINDS = {
    SpanKind.INTERNAL: trace.SpanKind.INTERNAL,
    SpanKind.PRODUCER: trace.SpanKind.PRODUCER,
    SpanKind.CONSUMER: trace.SpanKind.CONSUMER,
}

# What may be sent. Libraries also note paths, queries, headers, addresses of callers and texts of errors.
SENT_PREFIXES = ("tandem.", "messaging.")
SENT = frozenset(
    {
        "error.type",
        "exception.type",
        "http.request.method",
        "http.response.status_code",
        "http.route",
        "server.address",
        "server.port",
        # The names that OpenTelemetry gave the same things before 2023.
        "http.method",
        "http.status_code",
        "net.peer.name",
        "net.peer.port",
    }
)

log = structlog.get_logger(__name__)


class _OpenSpan:
    def __init__(self, made: trace.Span) -> None:
        self._made = made

    def note(self, attributes: Attributes) -> None:
        """Say more of it."""
        self._made.set_attributes(attributes)

    def failed(self, kind: str) -> None:
        """It came to nothing."""
        self._made.set_attribute("error.type", kind)
        self._made.set_status(StatusCode.ERROR)


class OpenTelemetryTracing:
    """Spans that go to `processor`, and those of calls by httpx. Implements `Tracing`."""

    def __init__(self, service: str, processor: SpanProcessor) -> None:
        self.provider = TracerProvider(resource=_resource(service), shutdown_on_exit=False)
        self.provider.add_span_processor(processor)
        self._tracer = self.provider.get_tracer("tandem", version("tandem"))
        self._calls = HTTPXClientInstrumentor()
        # Of the class, so that it holds for clients that were made before.
        self._calls.instrument(tracer_provider=self.provider)

    @contextmanager
    def span(
        self, name: str, *, kind: SpanKind, parent: TraceContext | None, root: bool, attributes: Attributes
    ) -> Iterator[_OpenSpan]:
        """See `tracing.span`."""
        context, links = Context() if root else None, []
        if parent:
            origin = _W3C.extract(parent, context=Context())
            told, here = _context_of(origin), _context_of(None)
            if told.is_valid and told.trace_id != here.trace_id:
                context = origin
                links = [Link(here)] if here.is_valid else []
        with self._tracer.start_as_current_span(
            name,
            context=context,
            kind=_KINDS[kind],
            attributes=attributes,
            links=links,
            record_exception=False,
            set_status_on_exception=False,
        ) as made:
            opened = _OpenSpan(made)
            try:
                yield opened
            except BaseException as error:
                opened.failed(type(error).__name__)
                raise

    def trace(self) -> dict[str, str]:
        """See `tracing.current_trace`."""
        carrier: dict[str, str] = {}
        _W3C.inject(carrier)
        return carrier

    async def close(self) -> None:
        """Send what is left. The SDK's own bound is half a minute, and it would hold the loop for so long."""
        self._calls.uninstrument()
        done: Future[None] = Future()
        done.set_running_or_notify_cancel()

        def end() -> None:
            self.provider.shutdown()
            done.set_result(None)

        # No thread of a pool: the end of the process would wait for one.
        threading.Thread(target=end, name="end-of-tracing", daemon=True).start()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.wrap_future(done)
        except TimeoutError:
            log.warning("spans_left_behind", waited_seconds=CLOSE_SECONDS)


class SparingExporter(SpanExporter):
    """Hands spans on to `exporter` with those attributes alone that may be sent."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Called by a thread of the SDK's."""
        return self._exporter.export([_spared(span) for span in spans])

    def shutdown(self) -> None:
        """End it."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what it keeps."""
        return self._exporter.force_flush(timeout_millis)


def sending(service: str, *, variable: str) -> OpenTelemetryTracing:
    """Spans that are sent in the background to where the environment says; `variable` is the one that does.

    A span is dropped rather than waited for: so many are kept (`OTEL_BSP_MAX_QUEUE_SIZE`), the latest ones.
    """
    # It has a line for each attempt that fails.
    logging.getLogger(OTLPSpanExporter.__module__).addFilter(_is_to_be_logged)
    try:
        return OpenTelemetryTracing(service, BatchSpanProcessor(SparingExporter(OTLPSpanExporter())))
    except (ValueError, OSError) as error:
        raise ConfigurationError(
            f"is set, and another variable of OpenTelemetry's cannot be used: {error}", variable=variable
        ) from error


def _resource(service: str) -> Resource:
    """Who tells; the environment (`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`) has the last word."""
    own = Resource.create(
        {SERVICE_NAME: service, "service.namespace": "tandem", "service.version": version("tandem")}
    )
    return own.merge(OTELResourceDetector().detect())


def _context_of(context: Context | None) -> trace.SpanContext:
    return trace.get_current_span(context).get_span_context()


def _spared(span: ReadableSpan) -> ReadableSpan:
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=_sent(span.attributes),
        events=[Event(event.name, _sent(event.attributes), event.timestamp) for event in span.events],
        links=[Link(link.context) for link in span.links],
        kind=span.kind,
        # The description of a failure is the text of an error.
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _sent(attributes: types.Attributes) -> types.Attributes:
    found = attributes or {}
    return {name: found[name] for name in found if name in SENT or name.startswith(SENT_PREFIXES)}


def _is_to_be_logged(_record: logging.LogRecord) -> bool:
    return _said.left_out() is not None
