"""Real processes send their spans, over OTLP, to where a standard variable says."""

from __future__ import annotations

import asyncio
import secrets

import httpx
import pytest

from backend.demo.stack import Stack
from tests.support.tracing import Collector

pytestmark = [
    pytest.mark.xdist_group("stack"),  # one worker: a stack is dear
    pytest.mark.timeout(180),  # whichever comes first starts it
]


async def test_a_request_from_one_service_to_another_is_one_trace(
    stack: Stack, admin_token: str, trace_collector: Collector
) -> None:
    trace = secrets.token_hex(16)
    async with httpx.AsyncClient(base_url=stack.env["CART_URL"], timeout=20) as client:
        await client.post(
            "/carts/current/items",
            json={"product_id": 3, "quantity": 1},
            headers={"Authorization": f"Bearer {admin_token}", "traceparent": f"00-{trace}-{'cd' * 8}-01"},
        )
    took_part = {"cart", "product"}
    assert await asyncio.to_thread(
        trace_collector.wait_for, took_part, trace=bytes.fromhex(trace), seconds=20
    )


async def test_a_relay_of_its_own_sends_its_batches(
    stack: Stack, admin_token: str, trace_collector: Collector
) -> None:
    headers = {"Authorization": f"Bearer {admin_token}"}
    async with httpx.AsyncClient(timeout=30) as client:
        url = f"{stack.env['CART_URL']}/dual-write/test-operation"
        (await client.post(url, headers=headers)).raise_for_status()
    assert await asyncio.to_thread(trace_collector.wait_for, {"cart-relay"}, seconds=20)
