"""The examples of the design run as they stand, from the service's own folder, again and again."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import backend.cart_service
from tests.integration.cart_service.support import Shop

FOLDER = Path(backend.cart_service.__path__[0])
MANAGER = """
from app.core.dual_write_manager import CartDualWriteManager
from app.core.dual_write_config import DualWriteSettings
manager = CartDualWriteManager(new_db_url=..., legacy_db_url=..., settings=DualWriteSettings.from_env("CART"))
result = await manager.create_cart("user123")       # .success .new_db_error .legacy_db_error .to_dict()
print("ANSWER", result.success, result.new_db_error, result.legacy_db_error, result.to_dict()["operation"])
"""
SERVICE = """
from app.services.cart_service import CartService
await CartService().add_item_to_cart(user_id="user123", product_id=456, quantity=2)
print("ANSWER", (await CartService().get_dual_write_status())["dual_write_enabled"])
"""
PRODUCT = {"items": [{"id": 456, "price": "9.99", "is_active": True}], "missing": []}


@asynccontextmanager
async def product_service() -> AsyncIterator[str]:
    """As much of a product service as the example needs; yields its URL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps(PRODUCT).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close"
        writer.write(head.encode() + b"\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


async def run(snippet: str, shop: Shop, *, product_url: str = "http://127.0.0.1:9") -> str:
    """What `python -m asyncio` prints on lines that begin with ANSWER."""
    given = {
        "CART_DATABASE_URL": shop.databases.new_url,
        "LEGACY_DATABASE_URL": shop.databases.legacy_url,
        "CART_DUAL_WRITE_PHASE": shop.manager.phase.value,
        "PRODUCT_URL": product_url,
    }
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "asyncio"),
        cwd=FOLDER,
        env={**{k: v for k, v in os.environ.items() if "DUAL_WRITE" not in k}, **given},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complained = await asyncio.wait_for(child.communicate(snippet.encode()), 40)
    assert b"Traceback" not in complained, complained.decode()
    assert child.returncode == 0, complained.decode()
    return "".join(line.split("ANSWER ")[1] for line in said.decode().splitlines() if "ANSWER " in line)


async def test_the_managers_example(shop: Shop) -> None:
    for _ in range(2):
        assert await run(MANAGER, shop) == "True None None create_cart"
    carts = await shop.both(legacy="SELECT cust FROM carts", new="SELECT user_id FROM carts")
    assert carts == [("user123",)]
    await shop.carried()


async def test_the_services_example(shop: Shop) -> None:
    async with product_service() as url:
        for _ in range(2):
            assert await run(SERVICE, shop, product_url=url) == "True"
    lines = await shop.both(
        legacy="SELECT prod_no, qty, unit_cents FROM cart_lines",
        new="SELECT product_id, quantity, (unit_price * 100)::int FROM cart_items",
    )
    assert lines == [(456, 4, 999)]
    await shop.carried()
