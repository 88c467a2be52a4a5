"""Tracing starts where it is asked for, says nothing that it must not, and never holds up whoever is traced."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from asgi_lifespan import LifespanManager
from fastapi import APIRouter, FastAPI
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from backend.shared.api.application import build_app
from backend.shared.domain.errors import ConfigurationError
from backend.shared.events.envelope import Envelope
from backend.shared.observability import open_telemetry
from backend.shared.observability.metrics import Metrics
from backend.shared.observability.open_telemetry import OpenTelemetryTracing, SparingExporter
from backend.shared.observability.seldom import Seldom
from backend.shared.observability.tracing import (
    SpanKind,
    current_trace,
    span,
    start_tracing,
    stop_tracing,
    tracing_provider,
    use_tracing,
)
from backend.shared.testing.ports import LOOPBACK, free_port
from tests.support.tracing import Spans, trace_of

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
SECRET = "hunter2"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in (ENDPOINT, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SERVICE_NAME", "OTEL_TRACES_EXPORTER"):
        monkeypatch.delenv(name, raising=False)
    yield
    assert tracing_provider() is None


def app_of(routes: APIRouter) -> FastAPI:
    return build_app("t", version="1", service="shop", metrics=Metrics(CollectorRegistry()), routers=[routes])


def client_of(app: FastAPI) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://shop")


# Whether it starts ----------------------------------------------------------------------------------------------------


def test_off_nothing_of_the_sdk_is_imported() -> None:
    program = (
        "import sys, backend.order_service.app.main, backend.shared.cli.relay\n"
        "from prometheus_client import CollectorRegistry\n"
        "from backend.shared.api.application import build_app\n"
        "from backend.shared.observability.metrics import Metrics\n"
        "build_app('t', version='1', service='order', metrics=Metrics(CollectorRegistry()), routers=[])\n"
        "heavy = ('opentelemetry.sdk', 'opentelemetry.exporter', 'opentelemetry.instrumentation')\n"
        "print([name for name in sys.modules if name.startswith(heavy)])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {ENDPOINT: " "},
        {ENDPOINT: "http://127.0.0.1:4318", "OTEL_SDK_DISABLED": "true"},
        {ENDPOINT: "http://127.0.0.1:4318", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
async def test_off(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert start_tracing("shop") is None
    with span("nothing", {}) as nothing:
        nothing.note({"tandem.operation": "none"})
        assert current_trace() == {}


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({ENDPOINT: "collector:4318"}, ENDPOINT),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        ({ENDPOINT: "http://c", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL"),
        ({ENDPOINT: "http://c", "OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER"),
        ({ENDPOINT: "http://c", "OTEL_BSP_MAX_QUEUE_SIZE": "0"}, ENDPOINT),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], named: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        build_app("t", version="1", service="shop", metrics=Metrics(CollectorRegistry()), routers=[])
    assert caught.value.variable == named


@pytest.mark.parametrize("missing", ["opentelemetry.sdk.trace", "opentelemetry.instrumentation.httpx"])
def test_without_the_extra_an_endpoint_is_an_error_that_names_both(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:4318")
    monkeypatch.delitem(sys.modules, open_telemetry.__name__)
    monkeypatch.delattr("backend.shared.observability.open_telemetry")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigurationError, match=rf"{ENDPOINT}.*extra 'tracing'"):
        start_tracing("shop")


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, "shop"),
        ({"OTEL_SERVICE_NAME": "shop-eu"}, "shop-eu"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=shop-us,deployment.environment.name=test"}, "shop-us"),
    ],
)
async def test_who_tells(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], name: str) -> None:
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    exporter = InMemorySpanExporter()
    tracing = OpenTelemetryTracing("shop", SimpleSpanProcessor(exporter))
    use_tracing(tracing)
    with span("work", {}):
        pass
    use_tracing(None)
    await tracing.close()
    (told,) = exporter.get_finished_spans()
    assert told.resource.attributes["service.name"] == name
    assert told.resource.attributes["service.namespace"] == "tandem"


# What it says ---------------------------------------------------------------------------------------------------------


async def test_nothing_personal_and_no_secret_is_sent() -> None:
    """Neither of a request's path, query, headers and address, nor of what an error says."""
    routes = APIRouter()

    @routes.get("/people/{email}")
    async def find(email: str, token: str) -> None:
        raise RuntimeError(f"cannot find {email} with {token}")

    kept, exporter = InMemorySpanExporter(), InMemorySpanExporter()
    tracing = OpenTelemetryTracing("shop", SimpleSpanProcessor(kept))
    tracing.provider.add_span_processor(SimpleSpanProcessor(SparingExporter(exporter)))
    use_tracing(tracing)
    async with client_of(app_of(routes)) as client:
        found = await client.get(
            "/people/ann@example.org", params={"token": SECRET}, headers={"User-Agent": "ann's"}
        )
        assert found.status_code == 500
        await client.get(f"/nowhere/{SECRET}")
    with pytest.raises(ValueError, match=SECRET), span("work", {}):
        raise ValueError(SECRET)
    with (
        pytest.raises(ValueError, match=SECRET),
        tracing.provider.get_tracer("library").start_as_current_span("library's"),
    ):
        raise ValueError(SECRET)
    use_tracing(None)
    await tracing.close()
    assert SECRET in str(encode_spans(kept.get_finished_spans()))  # libraries do say it
    sent = str(encode_spans(exporter.get_finished_spans()))
    for said in (SECRET, "ann", "cannot find", "Traceback"):
        assert said not in sent
    failed = {
        found.name: (found.status.status_code.name, (found.attributes or {}).get("error.type"))
        for found in exporter.get_finished_spans()
    }
    assert failed == {
        "GET /people/{email}": ("ERROR", "500"),
        "GET": ("UNSET", None),
        "work": ("ERROR", "ValueError"),
        "library's": ("ERROR", None),
    }


async def test_who_only_looks_whether_it_is_alive_is_not_traced(spans: Spans) -> None:
    routes = APIRouter()

    @routes.get("/dual-write/metrics")
    async def look() -> None:
        """Ends like one of those, and is none."""

    async with client_of(app_of(routes)) as client:
        for path in ("/healthz", "/readyz", "/metrics", "/dual-write/metrics"):
            (await client.get(path)).raise_for_status()
    assert [found.name for found in spans.all()] == ["GET /dual-write/metrics"]


async def test_a_request_continues_the_trace_of_its_caller(spans: Spans) -> None:
    routes = APIRouter()

    @routes.get("/things")
    async def look() -> None:
        pass

    async with client_of(app_of(routes)) as client:
        caller = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
        (await client.get("/things", headers=caller)).raise_for_status()
    (found,) = spans.all()
    assert trace_of(found) == int("ab" * 16, 16)


def test_what_is_beneath_what(spans: Spans) -> None:
    with span("placed", {}):
        story = current_trace()
    with span("asked", {}), span("undone", {}, parent=story), span("told", {}, parent=story):
        pass
    with span("taken", {}, kind=SpanKind.CONSUMER, parent={"traceparent": "nonsense"}):
        pass
    with span("asked again", {}), span("batch", {}, root=True):
        pass
    (told,), (asked,), (undone,) = (spans.named(name) for name in ("told", "asked", "undone"))
    assert spans.ancestors(told) == ["placed", "undone", "told"]
    assert asked.context is not None
    assert [link.context.span_id for link in undone.links] == [asked.context.span_id]
    assert told.links == ()
    assert spans.ancestors(*spans.named("taken")) == ["taken"]
    assert spans.ancestors(*spans.named("batch")) == ["batch"]


GARBAGE: list[Any] = [
    None,
    "text",
    5,
    ["traceparent"],
    {"traceparent": 5},
    {"traceparent": "nonsense"},
    {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01\nNats-Msg-Id: x"},
    {"Nats-Msg-Id": "another", "tracestate": "a=1\r\nb=2"},
]


@pytest.mark.parametrize("trace", GARBAGE)
def test_what_is_no_trace_context_is_left_out(trace: object) -> None:
    envelope = Envelope.model_validate(
        {
            "subject": "events.person.PersonAdded",
            "type": "PersonAdded",
            "version": 1,
            "aggregate_type": "person",
            "aggregate_id": "1",
            "correlation_id": "c",
            "data": {},
            "trace": trace,
        }
    )
    assert envelope.trace == {}


@pytest.fixture(autouse=True)
def no_exporter_is_left() -> Iterator[None]:
    """A thread that still tries to export draws from `random`, which a test of generated values takes amiss."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=45)
        assert not thread.is_alive(), thread.name


# What it costs others -------------------------------------------------------------------------------------------------


@contextmanager
def hanging() -> Iterator[int]:
    """A server that takes connections, and never answers."""
    listening = socket.create_server((LOOPBACK, 0))
    taken: list[socket.socket] = []

    def take() -> None:
        try:
            while True:
                taken.append(listening.accept()[0])
        except OSError:
            return

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()
        for connection in taken:
            connection.close()


@contextmanager
def away() -> Iterator[int]:
    """A port that nobody listens at."""
    yield free_port()


@pytest.mark.parametrize("collector", [hanging, away])
async def test_whoever_collects_spans_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch, collector: Any
) -> None:
    """More spans than are kept, while it hangs or is away: neither requests nor the end of the service wait for it."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "64")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "16")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
    monkeypatch.setattr(open_telemetry, "CLOSE_SECONDS", 0.5)
    routes = APIRouter()

    @routes.get("/things")
    async def look() -> None:
        for _ in range(50):
            with span("work", {}):
                pass

    with collector() as port:
        monkeypatch.setenv(ENDPOINT, f"http://{LOOPBACK}:{port}")
        app = app_of(routes)
        async with LifespanManager(app, shutdown_timeout=20), client_of(app) as client:
            assert tracing_provider() is not None
            began = time.monotonic()
            for _ in range(20):
                (await client.get("/things")).raise_for_status()
            assert time.monotonic() - began < 5  # the exporter waits 2 s for each of sixty batches
            began = time.monotonic()
        assert time.monotonic() - began < 5
        assert tracing_provider() is None


async def test_a_collector_that_is_away_fills_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, f"http://{LOOPBACK}:{free_port()}")
    monkeypatch.setattr(open_telemetry, "_said", Seldom(60.0))
    started = start_tracing("shop")
    exporters = logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    attempt = exporters.makeRecord(exporters.name, logging.WARNING, "", 0, "Transient error", (), None)
    assert [bool(exporters.filter(attempt)) for _ in range(3)] == [True, False, False]
    await stop_tracing(started)


async def test_a_process_has_one(monkeypatch: pytest.MonkeyPatch, spans: Spans) -> None:
    monkeypatch.setenv(ENDPOINT, f"http://{LOOPBACK}:{free_port()}")
    assert start_tracing("another") is None
    await stop_tracing(None)
    with span("work", {}):
        pass
    assert [found.name for found in spans.all()] == ["work"]
