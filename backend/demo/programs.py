"""The processes of a service: replicas of it, and its relay."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from backend.shared.testing.ports import LOOPBACK
from backend.shared.testing.processes import ServiceProcess

from . import steps
from .registry import RegisteredService


def service_process(
    member: RegisteredService, *, name: str, port: int, env: Mapping[str, str], logs: Path
) -> ServiceProcess:
    """One replica, which is ready when it says so."""
    server = ("uvicorn", "--factory", member.app_factory, "--host", LOOPBACK, "--port", str(port))
    return ServiceProcess(
        [sys.executable, "-m", *server, "--no-access-log"],
        name=name,
        env=env,
        log=logs / f"{name}.log",
        ready_url=f"http://{LOOPBACK}:{port}/readyz",
    )


def relay_process(
    member: RegisteredService, *, metrics_url: str, env: Mapping[str, str], logs: Path
) -> ServiceProcess:
    """The relay, which is ready when its metrics are to be had."""
    name = f"{member.name}-relay"
    return ServiceProcess(
        steps.tandem_argv("relay", member.name, "--metrics-port", str(urlsplit(metrics_url).port)),
        name=name,
        env=env,
        log=logs / f"{name}.log",
        ready_url=metrics_url,
    )
