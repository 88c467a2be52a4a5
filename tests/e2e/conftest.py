"""One private stack for all tests here: two servers, three services with their relays, a small shop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from backend.demo.stack import Stack
from backend.demo.steps import ShopSource
from tests.support.tracing import Collector


@pytest.fixture(scope="package")
def stack(
    worker_directory: Path, tmp_path_factory: pytest.TempPathFactory, trace_collector: Collector
) -> Iterator[Stack]:
    traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": trace_collector.url, "OTEL_BSP_SCHEDULE_DELAY": "200"}
    made = Stack(tmp_path_factory.mktemp("stack"), data=worker_directory / "stack", settings=traced)
    asyncio.run(made.setup(ShopSource(seed=7, size=500)))
    yield made
    asyncio.run(made.stop())
    made.remove()


@pytest.fixture(scope="package")
def admin_token(stack: Stack) -> str:
    login = {"email": stack.env["TANDEM_ADMIN_EMAIL"], "password": stack.env["TANDEM_ADMIN_PASSWORD"]}
    answer = httpx.post(f"{stack.env['AUTH_URL']}/auth/login", json=login, timeout=20)
    answer.raise_for_status()
    return str(answer.json()["access_token"])
