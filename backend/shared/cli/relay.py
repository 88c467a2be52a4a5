"""`tandem relay SERVICE`: the relay as a process of its own."""

from __future__ import annotations

import asyncio
import signal
from typing import Annotated
from wsgiref.simple_server import WSGIServer

import structlog
import typer
from prometheus_client import start_http_server

from backend.shared.cli.install import ServiceArgument
from backend.shared.cli.services import managed
from backend.shared.domain.errors import ConfigurationError
from backend.shared.observability.logging import configure_logging
from backend.shared.observability.metrics import default_metrics
from backend.shared.observability.tracing import traced

log = structlog.get_logger(__name__)


def relay(
    service: ServiceArgument,
    *,
    once: Annotated[bool, typer.Option("--once", help="Carry what is there, then end.")] = False,
    metrics_port: Annotated[
        int | None, typer.Option(help="Serve Prometheus metrics at this port of 127.0.0.1.", min=1, max=65535)
    ] = None,
) -> None:
    """Carry the changes of a service to its other side until SIGTERM or Ctrl-C. Any number may run."""
    configure_logging(f"{service}-relay")
    asyncio.run(_relay(service, once=once, metrics_port=metrics_port))


def _serve_metrics(port: int) -> WSGIServer:
    try:
        server, _ = start_http_server(port, addr="127.0.0.1", registry=default_metrics().registry)
    except OSError as error:
        raise ConfigurationError(
            f"port {port} cannot be had ({error.strerror})", variable="--metrics-port"
        ) from error
    return server


async def _relay(service: str, *, once: bool, metrics_port: int | None) -> None:
    async with traced(f"{service}-relay"), managed(service) as manager:
        await manager.start()
        if once:
            while (await manager.relay().run_once()).rows:
                pass
            return
        server = None
        if metrics_port is not None:
            server = _serve_metrics(metrics_port)
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await manager.start(relay=True)
        log.info("relay_started", service=service, phase=manager.phase.value)
        try:
            await stop.wait()
        finally:
            if server is not None:
                server.shutdown()
        log.info("relay_stopped", service=service)
