"""A process that traces, and keeps its spans where a test can look at them; and one that collects them from others."""

from __future__ import annotations

import gzip
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from backend.shared.observability.open_telemetry import OpenTelemetryTracing, SparingExporter
from backend.shared.observability.tracing import use_tracing
from backend.shared.testing.ports import LOOPBACK


class Spans:
    """What was traced and has ended, as it would have been sent."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def all(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all() if span.name == name]

    def forget(self) -> None:
        self._exporter.clear()

    def traces(self) -> set[int]:
        return {trace_of(span) for span in self.all()}

    def ancestors(self, span: ReadableSpan) -> list[str]:
        """The names of a span and of those above it, the first of the trace first."""
        by_id = {found.context.span_id: found for found in self.all() if found.context}
        names: list[str] = []
        above: ReadableSpan | None = span
        while above is not None:
            names.insert(0, above.name)
            above = by_id[above.parent.span_id] if above.parent else None
        return names


def trace_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.trace_id)


@pytest.fixture
async def spans() -> AsyncIterator[Spans]:
    """Of what is done in this process: it traces."""
    exporter = InMemorySpanExporter()
    tracing = OpenTelemetryTracing("test", SimpleSpanProcessor(SparingExporter(exporter)))
    use_tracing(tracing)
    yield Spans(exporter)
    use_tracing(None)
    await tracing.close()


@dataclass
class Collector:
    """Takes spans over OTLP from other processes."""

    url: str
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)
    came: threading.Condition = field(default_factory=threading.Condition)

    def services_by_trace(self) -> dict[bytes, set[str]]:
        """Who took part in each trace."""
        found: dict[bytes, set[str]] = {}
        for told in chain.from_iterable(request.resource_spans for request in tuple(self.requests)):
            names = [
                item.value.string_value for item in told.resource.attributes if item.key == "service.name"
            ]
            for span in chain.from_iterable(scope.spans for scope in told.scope_spans):
                found.setdefault(span.trace_id, set()).update(names)
        return found

    def wait_for(self, services: set[str], *, trace: bytes | None = None, seconds: float) -> bool:
        """Until these have taken part in `trace`, or in any one; whether they have."""

        def have() -> bool:
            found = self.services_by_trace()
            return any(services <= names for number, names in found.items() if trace in (None, number))

        with self.came:
            return self.came.wait_for(have, seconds)


@pytest.fixture(scope="session")
def trace_collector() -> Iterator[Collector]:
    """Listens for spans of other processes."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            with collector.came:
                collector.requests.append(ExportTraceServiceRequest.FromString(body))
                collector.came.notify_all()
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
    server.daemon_threads = True
    collector = Collector(url=f"http://{LOOPBACK}:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield collector
    server.shutdown()
    server.server_close()
    thread.join()
