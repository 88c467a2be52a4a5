"""`compose.yaml` and what belongs to it name the services that there are. No Docker is asked."""

from __future__ import annotations

import re

import pytest

from backend.demo.orders.stack import order_ports
from backend.shared.testing.programs import REPOSITORY

COMPOSE = (REPOSITORY / "compose.yaml").read_text(encoding="utf-8")
PROMETHEUS = (REPOSITORY / "deploy/prometheus/prometheus.yaml").read_text(encoding="utf-8")
EXAMPLE = set(
    re.findall(r"^([A-Z_]+)=", (REPOSITORY / ".env.example").read_text(encoding="utf-8"), re.MULTILINE)
)
DEFINED = set(re.findall(r"^  ([a-z-]+):", COMPOSE, re.MULTILINE))


def test_every_variable_is_in_the_example() -> None:
    named = set(re.findall(r"\$\{([A-Z_]+)", COMPOSE))
    assert named <= EXAMPLE


@pytest.mark.parametrize(("service", "port"), list(order_ports().items()))
def test_every_service_of_the_stack_is_there(service: str, port: int) -> None:
    assert {service, f"{service}-db", f"{service}-prepare", f"{service}-data"} <= DEFINED
    assert f'"127.0.0.1:{port}:{port}"' in COMPOSE
    assert f'["127.0.0.1:{port}"]\n        labels: {{process: {service}}}' in PROMETHEUS


def test_whoever_is_waited_for_is_there() -> None:
    waited = set(re.findall(r"^      ([a-z-]+): \{condition:", COMPOSE, re.MULTILINE))
    assert waited
    assert waited <= DEFINED
